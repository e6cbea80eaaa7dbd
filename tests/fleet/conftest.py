"""One fleet for the tests of a file: two replicas, whose Redis, database and model are its own."""

from collections.abc import Iterator

import pytest

from tests.fleet.counted_model import CountedModel
from tests.fleet.fleet import Fleet
from tests.servers import RedisServer


@pytest.fixture(scope="module")
def model() -> Iterator[CountedModel]:
    with CountedModel() as model:
        yield model


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, model: CountedModel) -> Iterator[Fleet]:
    with RedisServer() as redis, Fleet(tmp_path_factory.mktemp("fleet"), model, redis) as fleet:
        yield fleet.start("one", "two")
