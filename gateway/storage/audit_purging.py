"""What is personal of a tenant, removed from its audit rows for good; what it used stays."""

from collections.abc import AsyncIterator, Sequence
from operator import add
from typing import Any, Final

from attrs import asdict, astuple, frozen

from gateway.model import Tenant
from gateway.rules.audit_chain import Chain, Removal
from gateway.storage.actions import NOBODY, Actor, note, now_of
from gateway.storage.audit_reading import LATE_S
from gateway.storage.audit_removals import PURGE, note_removal, opened, seal_keys
from gateway.storage.database import Database, Row, Session
from gateway.storage.prompts import LOCK, counted, destroy, scrub

PAGE_ROWS: Final = 2_000
_PAGE_SEALS: Final = 500
_IDS: Final = """
    SELECT request_id, received_at_us, peer <> '' AS addresses, user_agent IS NOT NULL AS user_agents,
        client_request_id IS NOT NULL AS client_request_ids
    FROM audit
    WHERE tenant_id = :tenant_id AND received_at_us >= :after
        AND (received_at_us > :after OR request_id > :after_id)
    ORDER BY received_at_us, request_id LIMIT :page
"""
# What says who sent a request rather than for whom: an address, a program, a number of the caller's own.
_PURGE: Final = """
    UPDATE audit SET peer = '', user_agent = NULL, client_request_id = NULL
    WHERE request_id = :request_id
        AND (peer <> '' OR user_agent IS NOT NULL OR client_request_id IS NOT NULL)
"""
_PERSONAL: Final = """
    SELECT CAST(coalesce(sum(CASE WHEN peer <> '' THEN 1 ELSE 0 END), 0) AS BIGINT) AS addresses,
        count(user_agent) AS user_agents, count(client_request_id) AS client_request_ids
    FROM audit WHERE tenant_id = :tenant_id
"""
_QUARANTINED: Final = "SELECT digest, record FROM quarantine WHERE kind <> 'ledger'"
_RELEASE: Final = "DELETE FROM quarantine WHERE digest = :digest"
# Seals of the last moments: of a batch that is on its way, neither rows nor seals are to be seen yet.
_LATE_SEALS: Final = """
    SELECT day, seq FROM audit_seals WHERE tenant_id = :tenant_id AND salt IS NOT NULL AND sealed_at > :late
"""
_SEALS: Final = """
    SELECT day, seq FROM audit_seals
    WHERE tenant_id = :tenant_id AND salt IS NOT NULL AND sealed_at <= :late LIMIT :page
"""
_OF_ROWS: Final = ("addresses", "user_agents", "client_request_ids")
# Those of batches that came in since, as far as the purge was noted to go.
_SEALS_SINCE: Final = """
    SELECT day, seq, ids FROM audit_seals
    WHERE tenant_id = :tenant_id AND salt IS NOT NULL AND sealed_at > :late AND sealed_at <=
        (SELECT at FROM audit_removals WHERE kind = 'purge' AND tenant_id = :tenant_id)
        AND (day > :day OR (day = :day AND seq > :seq))
    ORDER BY day, seq LIMIT :page
"""
_STILL_PERSONAL: Final = """
    SELECT request_id FROM audit
    WHERE request_id IN EACH(:ids)
        AND (peer <> '' OR user_agent IS NOT NULL OR client_request_id IS NOT NULL)
"""
_UNSALT: Final = "UPDATE audit_seals SET salt = NULL WHERE day = :day AND seq = :seq"


@frozen
class Personal:
    """How many rows have what is personal, or how much of it was removed."""

    addresses: int
    user_agents: int
    client_request_ids: int
    quarantined: int = 0
    """Records that could not be stored, and were kept as they came."""
    prompts: int = 0
    """Of the prompt log."""

    def __add__(self, other: "Personal") -> "Personal":
        return Personal(*map(add, astuple(self), astuple(other)))


@frozen
class Purge:
    """A purge that was begun: what there was, and what its seals are."""

    found: Personal
    late: float
    late_seals: Sequence[Row]


class AuditPurging:
    """All raise StoreUnavailable when the database does not answer."""

    def __init__(self, database: Database, actor: Actor = NOBODY) -> None:
        self._database = database
        self._actor = actor

    async def personal(self, tenant_id: str) -> Personal:
        """What of a tenant's rows is personal."""
        async with self._database.snapshot(patient=True) as connection:
            found = await connection.fetch_one(_PERSONAL, {"tenant_id": tenant_id})
            quarantined = await _quarantined(connection, tenant_id)
            prompts = await counted(connection, tenant_id)
        addresses, user_agents, client_request_ids = found or (0, 0, 0)
        of_rows = int(addresses), int(user_agents), int(client_request_ids)
        return Personal(*of_rows, len(quarantined), prompts.prompts)

    async def begin(self, tenant: Tenant, chain: Chain) -> Purge:
        """Note what will be removed; what is in quarantine, and all prompts, remove at once.

        Before anything else is removed, so that nothing is without its note.
        """
        found = await self.personal(tenant.id)
        async with self._database.transaction("keys", LOCK) as connection:
            await destroy(connection, tenant)
            for digest in await _quarantined(connection, tenant.id):
                await connection.execute(_RELEASE, {"digest": digest})
            changes = {name: (count, 0) for name, count in asdict(found).items()}
            await note(connection, self._actor, "purge_tenant", tenant, changes)
            now = await now_of(connection)
            await note_removal(connection, chain, Removal(PURGE, tenant.id, 0, now))
            late = {"tenant_id": tenant.id, "late": now - LATE_S}
            return Purge(found, now - LATE_S, await connection.fetch_all(_LATE_SEALS, late))

    async def rows(
        self, tenant_id: str, chain: Chain, page: int = PAGE_ROWS
    ) -> AsyncIterator[tuple[int, Personal]]:
        """Remove what is personal from a tenant's rows: after each page, how many rows were gone through, and
        what of them was removed.

        Rows stay, and with them who used what: what is billed. Cut short, it can be done again. It goes up to
        the newest row, so what came in since it began is noted with each page: after that was read, as no row
        may be of later than its note.
        """
        after, after_id = -(2**63), ""
        while True:
            values = {"tenant_id": tenant_id, "after": after, "after_id": after_id, "page": page}
            async with self._database.transaction() as connection, opened(connection):
                rows = await connection.fetch_all(_IDS, values)
                if rows:
                    now = await now_of(connection)
                    await note_removal(connection, chain, Removal(PURGE, tenant_id, 0, now))
                ids = [{"request_id": row["request_id"]} for row in rows]
                await connection.execute_many(_PURGE, ids)
            if not rows:
                return
            after, after_id = rows[-1]["received_at_us"], rows[-1]["request_id"]
            yield len(rows), Personal(*(sum(bool(row[name]) for row in rows) for name in _OF_ROWS))

    async def end(self, tenant_id: str, purge: Purge, page: int = PAGE_ROWS) -> None:
        """Remove the salts, without which the proofs of what was removed tell nothing.

        Only of rows that `rows` has gone through: of a batch that came in meanwhile, where it has them all.
        """
        await self._unsalt(purge.late_seals)
        values: dict[str, Any] = {"tenant_id": tenant_id, "late": purge.late, "page": page}
        while True:
            async with self._database.session() as connection:
                seals = await connection.fetch_all(_SEALS, values)
            if not seals:
                break
            await self._unsalt(seals)
        await self._unsalt_since(tenant_id, purge.late)
        await scrub(self._database)

    async def _unsalt_since(self, tenant_id: str, late: float) -> None:
        values: dict[str, Any] = {"tenant_id": tenant_id, "late": late, "day": 0, "seq": 0}
        while True:
            async with self._database.session() as connection:
                seals = await connection.fetch_all(_SEALS_SINCE, {**values, "page": _PAGE_SEALS})
                ids = [id_ for seal in seals for id_ in seal["ids"].split()]
                rows = await connection.fetch_all(_STILL_PERSONAL, {"ids": ids}) if ids else ()
            if not seals:
                return
            personal = {row["request_id"] for row in rows}
            await self._unsalt([seal for seal in seals if personal.isdisjoint(seal["ids"].split())])
            values |= {"day": seals[-1]["day"], "seq": seals[-1]["seq"]}

    async def _unsalt(self, seals: Sequence[Row]) -> None:
        async with self._database.transaction() as connection, opened(connection):
            await connection.execute_many(_UNSALT, seal_keys(seals))


async def _quarantined(connection: Session, tenant_id: str) -> Sequence[bytes]:
    """Which of the records that could not be stored speak of a tenant: there are few, if any."""
    rows = await connection.fetch_all(_QUARANTINED)
    return [row["digest"] for row in rows if tenant_id.encode() in row["record"]]
