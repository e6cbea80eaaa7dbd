"""A migrated database of its own for each test."""

import pytest

from gateway.storage.database import Database
from gateway.storage.migrations import migrate


@pytest.fixture
def database_url(tmp_path) -> str:
    url = f"sqlite:///{tmp_path}/gateway.db"
    migrate(url)
    return url


@pytest.fixture
async def database(database_url):
    async with Database(database_url) as opened:
        yield opened
