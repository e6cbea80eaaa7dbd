"""Whether Postgres is up to date, by the driver that serves; bringing it there is `applying`'s.

A process whose database lacks nothing does not load what would change it.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

import asyncpg
from yoyo.migrations import default_migration_table

from gateway.storage.atomic_backend import AtomicBackend
from gateway.storage.postgres.connecting import Connector, errors_told

_CONNECT_S: Final = 5.0
# Whoever owns what remembers the migrations; where there is none yet, whoever may make it.
_MAY_CHANGE: Final = """
    SELECT coalesce(
        (SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = to_regclass($1)),
        has_schema_privilege(current_schema(), 'CREATE')
    )
"""

_T = TypeVar("_T")


class PostgresMigrator:
    """`storage.migrations.Migrator`."""

    folder: Final = "postgres"
    exists: Final = True
    """Else it can't be connected to, which says so."""

    def __init__(self, database_url: str) -> None:
        self._connector = Connector(database_url)
        self.name = str(self._connector.address)

    def make(self) -> None:
        """Databases are made by whoever administers the server."""

    def may_change(self) -> bool:
        return self._read(_may_change)

    def applied(self) -> set[str]:
        return self._read(_applied)

    def backend(self) -> AtomicBackend:
        from gateway.storage.postgres.applying import backend_at

        return backend_at(self._connector.address)

    @contextlib.contextmanager
    def lock(self) -> Iterator[Callable[[], bool]]:
        from gateway.storage.postgres.applying import lock_at

        with lock_at(self._connector.address) as is_ours:
            yield is_ours

    def errors_told(self) -> contextlib.AbstractContextManager[None]:
        return errors_told(self._connector.address)

    def _read(self, ask: "Callable[[asyncpg.Connection], Coroutine[Any, Any, _T]]") -> _T:
        """Ask on a connection of its own, in a thread: whoever calls may be in an event loop."""

        async def asked() -> _T:
            connection = await self._connector.connect(_CONNECT_S * len(self._connector.address.hosts))
            try:
                return await ask(connection)
            finally:
                await connection.close(timeout=_CONNECT_S)

        with ThreadPoolExecutor(1) as thread:
            return thread.submit(asyncio.run, asked()).result()


async def _may_change(connection: asyncpg.Connection) -> bool:
    return bool(await connection.fetchval(_MAY_CHANGE, default_migration_table))


async def _applied(connection: asyncpg.Connection) -> set[str]:
    table = await connection.fetchval("SELECT to_regclass($1)::text", default_migration_table)
    if table is None:
        return set()
    return {row["migration_id"] for row in await connection.fetch("SELECT migration_id FROM _yoyo_migration")}
