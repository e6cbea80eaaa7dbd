"""Changing the schema of Postgres, by psycopg: yoyo knows no other driver.

The lock is an advisory one on a connection of its own, and goes with the process. A transaction holds it, so
that it holds behind a pooler too; one that has read and written nothing keeps nobody waiting.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from yoyo.backends.core.postgresql import PostgresqlPsycopgBackend
from yoyo.migrations import default_migration_table

from gateway.postgres_address import PostgresAddress
from gateway.storage.atomic_backend import AtomicBackend
from gateway.storage.postgres.database import DURABLE, lock_key
from gateway.storage.postgres.libpq import connect, errors_told

if TYPE_CHECKING:
    import psycopg

# A change of a table waits for whoever reads it, and everybody else then waits for the change: not for long.
_TABLE_LOCK: Final = "SET LOCAL lock_timeout = '5s'"
_KEY: Final = lock_key("migrations")


def backend_at(address: PostgresAddress) -> AtomicBackend:
    return _AtomicPostgres(address, default_migration_table)


@contextlib.contextmanager
def lock_at(address: PostgresAddress) -> Iterator[Callable[[], bool]]:
    """`Migrator.lock`. What psycopg raises meanwhile is told."""
    with errors_told(address), connect(address, autocommit=True) as connection:

        def is_ours() -> bool:
            connection.rollback()
            connection.execute("BEGIN")
            connection.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
            found = connection.execute("SELECT pg_try_advisory_xact_lock(%s)", (_KEY,)).fetchone()
            return found is not None and bool(found[0])

        yield is_ours


class _AtomicPostgres(AtomicBackend, PostgresqlPsycopgBackend):  # type: ignore[misc]
    """yoyo's backend for psycopg 3; what differs is said at each method."""

    def connect(self, dburi: PostgresAddress) -> "psycopg.Connection[Any]":
        """As the gateway itself connects."""
        return connect(dburi, autocommit=True)

    def begin(self) -> None:
        super().begin()
        self.execute(_TABLE_LOCK)
        self.execute(DURABLE)
