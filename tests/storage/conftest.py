"""A migrated database of its own for each test, on either engine."""

import pytest

from gateway.storage.engines import database_at
from gateway.storage.migrations import migrate

ENGINES = ["sqlite", "postgres"]


@pytest.fixture
def sqlite_url(tmp_path) -> str:
    url = f"sqlite:///{tmp_path}/gateway.db"
    migrate(url)
    return url


@pytest.fixture(params=ENGINES)
def database_url(request) -> str:
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
async def database(database_url):
    async with database_at(database_url) as opened:
        yield opened
