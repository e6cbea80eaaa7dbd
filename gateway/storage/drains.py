"""Backends that operators take out of service, for all processes that share the database."""

from typing import Final

from gateway.storage.actions import NOBODY, Actor, note
from gateway.storage.database import Database

_ALL: Final = "SELECT name FROM drained_backends"
_BEGIN: Final = """
    INSERT INTO drained_backends (name, since) VALUES (:name, NOW_S()) ON CONFLICT (name) DO NOTHING
"""
_END: Final = "DELETE FROM drained_backends WHERE name = :name"
_HAS: Final = "SELECT 1 FROM drained_backends WHERE name = :name"
_LOCK: Final = "drained_backends"


class Drains:
    """All raise StoreUnavailable when the database does not answer. Changes are noted as `actor`'s doing."""

    def __init__(self, database: Database, actor: Actor = NOBODY) -> None:
        self._database = database
        self._actor = actor

    async def all(self) -> frozenset[str]:
        """The names of backends that get no new requests."""
        async with self._database.session() as connection:
            return frozenset(row[0] for row in await connection.fetch_all(_ALL))

    async def begin(self, name: str) -> bool:
        """Take it out of service; False where it was before."""
        return await self._change(name, _BEGIN, is_drained=True)

    async def end(self, name: str) -> bool:
        """Take it back into service; False where it was not out of it."""
        return await self._change(name, _END, is_drained=False)

    async def _change(self, name: str, statement: str, *, is_drained: bool) -> bool:
        async with self._database.transaction(_LOCK) as connection:
            was_drained = bool(await connection.fetch_val(_HAS, {"name": name}))
            if was_drained is is_drained:
                return False
            await connection.execute(statement, {"name": name})
            action = "drain_backend" if is_drained else "undrain_backend"
            await note(connection, self._actor, action, None, {name: (was_drained, is_drained)})
        return True
