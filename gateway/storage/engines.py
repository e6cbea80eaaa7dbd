"""Which engine it is, by DATABASE_URL: the one place that chooses.

An engine's adapters are imported where it is chosen: their drivers take 12 MB each and a quarter of a second,
which nobody with the other one should have to give.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol

from gateway.postgres_address import is_postgres
from gateway.storage.database import CONNECTIONS, Database


def database_at(database_url: str, *, connections: int = CONNECTIONS) -> Database:
    """The database, closed. What was reported as done on it survives a power cut."""
    if is_postgres(database_url):
        from gateway.storage.postgres.database import PostgresDatabase

        return PostgresDatabase(database_url, connections=connections)
    from gateway.storage.sqlite.database import SqliteDatabase

    return SqliteDatabase(database_url, connections=connections, synchronous="FULL")


class AuditDays(Protocol):
    """How an engine keeps the audit log by day. All raise StoreUnavailable."""

    async def make_ahead(self) -> None:
        """Make room for the days to come. Rows of days without are kept all the same."""

    async def may_remove(self) -> bool:
        """Whether this role may remove audit rows at all, and all that hangs on them."""

    async def may_change(self) -> bool:
        """Whether this role could change or delete a row that is there."""

    async def drop_before(self, day: int) -> int:
        """Drop what days before this one have of their own: how many could be dropped. Rows may be left."""


class OneTable:
    """`AuditDays` where all days are in one table."""

    async def make_ahead(self) -> None:
        pass

    async def may_remove(self) -> bool:
        return True

    async def may_change(self) -> bool:
        return True

    async def drop_before(self, day: int) -> int:  # noqa: ARG002 - rows are deleted by whoever asks
        return 0


def grant_serving(database_url: str, role: str) -> None:
    """Let a role of Postgres serve, and do nothing else. Raises Refused."""
    from gateway.storage.postgres.roles import RoleUnusable, grant_to

    if not is_postgres(database_url):
        raise RoleUnusable("SQLite has no roles: who may write the file may do anything with it.")
    grant_to(database_url, role)


def grant_serving_again(database_url: str) -> None:
    """Let the role that was let serve before use what has been added since, where there is one."""
    if is_postgres(database_url):
        from gateway.storage.postgres.roles import regrant

        regrant(database_url)


def audit_days(database_url: str, database: Database) -> AuditDays:
    if not is_postgres(database_url):
        return OneTable()
    from gateway.storage.postgres.audit_days import PostgresAuditDays

    return PostgresAuditDays(database)


@asynccontextmanager
async def serving(database_url: str, *, alone: bool, on_lost: Callable[[], None]) -> AsyncIterator[None]:
    """Serve on the database meanwhile: with others that count together, or as one that counts `alone`.

    Two that count alone would each allow the whole of every limit. Raises AnotherServes where there is one
    already. `on_lost` is called when another one came while the database was out of reach: then stop.
    """
    if is_postgres(database_url):
        from gateway.storage.postgres.serving import serving as serving_on_postgres

        async with serving_on_postgres(database_url, alone=alone, on_lost=on_lost):
            yield
    else:
        from gateway.storage.sqlite.serving import serving as serving_on_sqlite

        with serving_on_sqlite(database_url, alone=alone):
            yield
