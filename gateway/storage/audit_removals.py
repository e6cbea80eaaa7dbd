"""Audit rows removed on purpose: noted so that it can be told from tampering, and behind a guard.

On SQLite triggers refuse every other change of the log (migration 0020); on Postgres the rights of roles do.
"""

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from attrs import asdict, frozen

from gateway.rules.audit_chain import Chain, Removal
from gateway.storage.database import Row, Session

PURGE: Final = "purge"
RETENTION: Final = "retention"
DAYS: Final = "days"

_OPEN: Final = """
    INSERT INTO meta (name, value) VALUES ('audit_open', '1') ON CONFLICT (name) DO NOTHING
"""
_CLOSE: Final = "DELETE FROM meta WHERE name = 'audit_open'"
# What was removed before stays removed: neither a day nor a moment goes back.
_NOTE: Final = """
    INSERT INTO audit_removals (kind, tenant_id, before_day, at, proof)
    VALUES (:kind, :tenant_id, :before_day, :at, :proof)
    ON CONFLICT (kind, tenant_id) DO UPDATE
    SET before_day = excluded.before_day, at = excluded.at, proof = excluded.proof
    WHERE audit_removals.before_day < excluded.before_day
        OR (audit_removals.before_day = excluded.before_day AND audit_removals.at < excluded.at)
"""
_ALL: Final = "SELECT kind, tenant_id, before_day, at, proof FROM audit_removals ORDER BY kind, tenant_id"


@contextlib.asynccontextmanager
async def opened(connection: Session) -> AsyncIterator[None]:
    """The log can be changed meanwhile, in this transaction alone."""
    await connection.execute(_OPEN)
    yield
    await connection.execute(_CLOSE)


async def note_removal(connection: Session, chain: Chain, removal: Removal) -> None:
    """Before anything is removed: what is removed without its note looks like tampering."""
    values: dict[str, Any] = {**asdict(removal), "proof": chain.proof_of_removal(removal)}
    await connection.execute(_NOTE, values)


def seal_keys(seals: Sequence[Row]) -> list[dict[str, Any]]:
    """Of rows of `audit_seals`, what a statement needs to find each."""
    return [{"day": seal["day"], "seq": seal["seq"]} for seal in seals]


@frozen
class Removals:
    """What was removed on purpose, as far as it is proven."""

    before_days: dict[tuple[str, str], int]
    at: dict[tuple[str, str], float]
    forged: Sequence[Removal]

    @classmethod
    async def read(cls, connection: Session, chain: Chain) -> "Removals":
        before_days, at, forged = {}, {}, []
        for row in await connection.fetch_all(_ALL):
            removal = Removal(row["kind"], row["tenant_id"], int(row["before_day"]), float(row["at"]))
            if chain.proof_of_removal(removal) != bytes(row["proof"]):
                forged.append(removal)
                continue
            before_days[removal.kind, removal.tenant_id] = removal.before_day
            at[removal.kind, removal.tenant_id] = removal.at
        return cls(before_days, at, forged)

    def has_expired(self, tenant_id: str, day: int) -> bool:
        """Whether rows of this day were removed for their age."""
        return day < max(self.before_days.get((RETENTION, tenant_id), 0), self.gone_before)

    def is_purged(self, tenant_id: str, sealed_at: float) -> bool:
        """Whether what is personal in rows that were sealed then was removed."""
        return sealed_at <= self.at.get((PURGE, tenant_id), -1.0)

    @property
    def gone_before(self) -> int:
        """All days before this one are gone, with their seals."""
        return self.before_days.get((DAYS, ""), 0)
