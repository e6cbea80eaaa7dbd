"""Gateways that share counters, and up to when the ledger has what each has spooled."""

from typing import Final

from gateway.storage.database import Database

# A process that was not heard of for so long is dead, and what it had spooled is on its disk only.
LIVE_S: Final = 15.0
_NOW: Final = "SELECT NOW_S()"
_REPORT: Final = """
    INSERT INTO replicas (name, seen_at, drained_at) VALUES (:name, :seen_at, :drained_at)
    ON CONFLICT (name) DO UPDATE SET seen_at = excluded.seen_at, drained_at = excluded.drained_at
"""
# Within the same tick of the clock nobody knows which came first.
_BEHIND: Final = (
    "SELECT name FROM replicas WHERE seen_at > :alive_since AND drained_at <= :since ORDER BY name"
)
_REMOVE: Final = "DELETE FROM replicas WHERE name = :name OR seen_at < :forgotten"
_FORGOTTEN_S: Final = 24 * 60 * 60.0


class Replicas:
    """The adapter behind `ports.Replicas`. All raise StoreUnavailable when the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def now(self) -> float:
        """Seconds since the epoch by the database's clock, which is one for all."""
        async with self._database.session() as connection:
            return float(await connection.fetch_val(_NOW))

    async def report(self, name: str, drained_at: float) -> None:
        """All that this process had spooled at that time, by `now`, is in the ledger."""
        seen_at = await self.now()
        async with self._database.transaction() as connection:
            await connection.execute(_REPORT, {"name": name, "seen_at": seen_at, "drained_at": drained_at})

    async def behind(self, since: float) -> list[str]:
        """The live processes of which the ledger may lack something that they had spooled at that time."""
        alive_since = await self.now() - LIVE_S
        async with self._database.session() as connection:
            rows = await connection.fetch_all(_BEHIND, {"alive_since": alive_since, "since": since})
        return [row["name"] for row in rows]

    async def remove(self, name: str) -> None:
        """This process is gone, and all of it is in the ledger; so are those that died long ago."""
        forgotten = await self.now() - _FORGOTTEN_S
        async with self._database.transaction() as connection:
            await connection.execute(_REMOVE, {"name": name, "forgotten": forgotten})
