"""A model whose work is known to the token, for the tests of this folder."""

from collections.abc import Iterator

import pytest

from tests.fleet.counted_model import CountedModel


@pytest.fixture(scope="session")
def model() -> Iterator[CountedModel]:
    with CountedModel() as model:
        yield model
