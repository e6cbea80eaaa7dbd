"""Migrating Postgres, by psycopg: yoyo knows no other driver.

The lock is an advisory one on a connection of its own, and goes with the process. A transaction holds it, so
that it holds behind a pooler too; one that has read and written nothing keeps nobody waiting.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Final

import psycopg
from yoyo.backends.core.postgresql import PostgresqlPsycopgBackend
from yoyo.migrations import default_migration_table

from gateway.postgres_address import PostgresAddress
from gateway.storage.atomic_backend import AtomicBackend
from gateway.storage.postgres.connecting import Connector, errors_told, libpq_arguments
from gateway.storage.postgres.database import DURABLE, lock_key

_CONNECT_S: Final = 5.0
# A change of a table waits for whoever reads it, and everybody else then waits for the change: not for long.
_TABLE_LOCK: Final = "SET LOCAL lock_timeout = '5s'"
_KEY: Final = lock_key("migrations")
# Whoever owns what remembers the migrations; where there is none yet, whoever may make it.
_MAY_CHANGE: Final = """
    SELECT coalesce(
        (SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = to_regclass(%s)),
        has_schema_privilege(current_schema(), 'CREATE')
    )
"""


class PostgresMigrator:
    """`storage.migrations.Migrator`."""

    folder: Final = "postgres"
    exists: Final = True
    """Else it can't be connected to, which says so."""

    def __init__(self, database_url: str) -> None:
        self._address = Connector(database_url).address
        self.name = str(self._address)

    def make(self) -> None:
        """Databases are made by whoever administers the server."""

    def may_change(self) -> bool:
        with _connected(self._address) as connection:
            return bool(_row(connection, _MAY_CHANGE, default_migration_table)[0])

    def applied(self) -> set[str]:
        with _connected(self._address) as connection:
            (table,) = _row(connection, "SELECT to_regclass(%s)::text", default_migration_table)
            if table is None:
                return set()
            return {id for (id,) in connection.execute("SELECT migration_id FROM _yoyo_migration")}

    def backend(self) -> AtomicBackend:
        return _AtomicPostgres(self._address, default_migration_table)

    @contextlib.contextmanager
    def lock(self) -> Iterator[Callable[[], bool]]:
        with _connected(self._address) as connection:

            def is_ours() -> bool:
                connection.rollback()
                connection.execute("BEGIN")
                connection.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
                return bool(_row(connection, "SELECT pg_try_advisory_xact_lock(%s)", _KEY)[0])

            yield is_ours

    def errors_told(self) -> contextlib.AbstractContextManager[None]:
        return errors_told(self._address)


class _AtomicPostgres(AtomicBackend, PostgresqlPsycopgBackend):  # type: ignore[misc]
    """yoyo's backend for psycopg 3; what differs is said at each method."""

    def connect(self, dburi: PostgresAddress) -> "psycopg.Connection[Any]":
        """As the gateway itself connects."""
        return _connected(dburi)

    def begin(self) -> None:
        super().begin()
        self.execute(_TABLE_LOCK)
        self.execute(DURABLE)


def _connected(address: PostgresAddress) -> "psycopg.Connection[Any]":
    return psycopg.connect(**libpq_arguments(address, _CONNECT_S), autocommit=True)


def _row(connection: "psycopg.Connection[Any]", statement: str, *values: object) -> tuple[Any, ...]:
    (row,) = connection.execute(statement.encode(), values)
    return tuple(row)
