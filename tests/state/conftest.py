"""A migrated database, where what is kept matters; most tests here need none."""

from tests.storage.conftest import database, database_url, sqlite_url

__all__ = ["database", "database_url", "sqlite_url"]
