"""One fleet for the tests of a file: two replicas, whose Redis, database and model are its own."""

from collections.abc import Iterator

import pytest

from tests.fleet.counted_model import CountedModel
from tests.fleet.fleet import Fleet
from tests.postgres_server import PostgresServer
from tests.servers import RedisServer


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """For this folder alone, whose tests may stop it, and have dozens of gateways."""
    with PostgresServer({"max_connections": "400"}) as server:
        yield server


@pytest.fixture(scope="module")
def postgres_url(postgres: PostgresServer) -> Iterator[str]:
    name = postgres.new_database()
    yield postgres.url(name)
    postgres.drop(name)


@pytest.fixture(scope="module")
def database_url(postgres_url: str) -> str:
    """A file may have another one."""
    return postgres_url


@pytest.fixture(scope="module")
def model() -> Iterator[CountedModel]:
    with CountedModel() as model:
        yield model


@pytest.fixture(scope="module")
def fleet(
    tmp_path_factory: pytest.TempPathFactory, model: CountedModel, database_url: str
) -> Iterator[Fleet]:
    with (
        RedisServer() as redis,
        Fleet(tmp_path_factory.mktemp("fleet"), model, database_url, redis.url) as fleet,
    ):
        yield fleet.start("one", "two")
