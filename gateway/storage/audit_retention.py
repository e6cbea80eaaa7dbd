"""Audit rows whose time is over are removed, a batch at a time; usage and ledger stay.

Each tenant's rows are kept for the days that were set for it, everybody else's (refusals of nobody known,
and deleted tenants) for those of GATEWAY_AUDIT_RETENTION_DAYS. What nobody keeps any more goes by whole days,
which on Postgres are tables. Whatever goes is noted before, so that verify-audit can tell it from tampering.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from attrs import define, evolve, frozen
from loguru import logger

from gateway.errors import StoreUnavailable
from gateway.rules.audit_chain import DAY_S, DAY_US, REGISTER, Chain, Removal
from gateway.storage.actions import NOBODY, Actor, note, now_of
from gateway.storage.audit_removals import DAYS, RETENTION, note_removal, opened, seal_keys
from gateway.storage.database import Database, Row
from gateway.storage.engines import AuditDays

PAGE_ROWS: Final = 2_000
_LOCK: Final = "audit retention"
_TENANTS: Final = "SELECT id, audit_retention_days FROM tenants"
# Tenants that were deleted are known by their rows alone.
_FORMER: Final = """
    SELECT DISTINCT tenant_id FROM audit_seals WHERE day > :register AND day < :before AND ids <> ''
    UNION SELECT DISTINCT tenant_id FROM audit WHERE tenant_id IS NOT NULL AND received_at_us < :before_us
"""
_OLD: Final = """
    SELECT request_id FROM audit
    WHERE tenant_id = :tenant_id AND received_at_us < :before_us ORDER BY received_at_us LIMIT :page
"""
_OLD_OF_NOBODY: Final = """
    SELECT request_id FROM audit
    WHERE tenant_id IS NULL AND received_at_us < :before_us ORDER BY received_at_us LIMIT :page
"""
_OLD_OF_ALL: Final = (
    "SELECT request_id FROM audit WHERE received_at_us < :before_us ORDER BY received_at_us LIMIT :page"
)
_DELETE: Final = "DELETE FROM audit WHERE request_id IN EACH(:ids)"
_SEALS: Final = """
    SELECT day, seq FROM audit_seals
    WHERE tenant_id = :tenant_id AND day > :register AND day < :before AND ids <> ''
    ORDER BY day, seq LIMIT :page
"""
_EMPTY: Final = """
    UPDATE audit_seals SET ids = '', proofs = :nothing, salt = NULL WHERE day = :day AND seq = :seq
"""
_OLD_SEALS: Final = """
    SELECT day, seq FROM audit_seals WHERE day > :register AND day < :before ORDER BY day, seq LIMIT :page
"""
_DELETE_SEAL: Final = "DELETE FROM audit_seals WHERE day = :day AND seq = :seq"
_OLD_HEADS: Final = "SELECT day FROM audit_heads WHERE day > :register AND day < :before ORDER BY day"
# Holds the head until the commit, as those do who seal.
_HOLD_HEAD: Final = "UPDATE audit_heads SET seq = seq WHERE day = :day"
_SEALS_LEFT: Final = "SELECT day, seq FROM audit_seals WHERE day = :day ORDER BY seq LIMIT :page"
_DELETE_HEAD: Final = "DELETE FROM audit_heads WHERE day = :day"


@frozen
class Expiry:
    """Before which day (UTC, counted from 1970) rows are over, by tenant; None: they are kept for good."""

    by_tenant: dict[str, int | None]
    others: int | None

    @property
    def of_all(self) -> int | None:
        """Before this day nobody keeps anything."""
        days = [self.others, *self.by_tenant.values()]
        known = [day for day in days if day is not None]
        return min(known) if len(known) == len(days) else None

    def of(self, tenant_id: str) -> int | None:
        return self.by_tenant.get(tenant_id, self.others)


@define
class Expired:
    """How much was removed: tables of whole days, and rows beside these."""

    days: int = 0
    rows: int = 0


class Retention:
    """All raise StoreUnavailable. Each batch is one transaction, and of two who remove, one waits."""

    def __init__(
        self,
        database: Database,
        days: AuditDays,
        chain: Chain,
        default_days: int | None,
        actor: Actor = NOBODY,
    ) -> None:
        self._database = database
        self._days = days
        self._chain = chain
        self._default_days = default_days
        self._actor = actor
        self._done: Expiry | None = None

    async def make_ahead(self) -> None:
        """Make room for the days to come: for a gateway, now and then."""
        await self._days.make_ahead()

    async def remove_if_due(self) -> None:
        """Remove what is over, where this role may: for a gateway, now and then. Once is enough for a day."""
        if not await self.may_remove():
            return
        expiry = await self.expiry()
        if expiry != self._done:
            try:
                async for _ in self.remove():
                    pass
            except StoreUnavailable:
                logger.warning("audit rows whose time is over could not all be removed; it is tried again")
                raise
            self._done = expiry

    async def may_remove(self) -> bool:
        return await self._days.may_remove()

    async def expiry(self) -> Expiry:
        """What is over by now."""
        async with self._database.session() as connection:
            today = int(await now_of(connection) // DAY_S)
            kept = {row["id"]: row["audit_retention_days"] for row in await connection.fetch_all(_TENANTS)}
        others = _before(today, self._default_days)
        by_tenant = {
            tenant_id: others if days is None else _before(today, days) for tenant_id, days in kept.items()
        }
        return Expiry(by_tenant, others)

    async def remove(self, page: int = PAGE_ROWS) -> AsyncIterator[Expired]:
        """Remove what is over: after each batch, how much so far. Cut short, the next one goes on."""
        expiry, expired = await self.expiry(), Expired()
        if (before := expiry.of_all) is not None:
            await self._note(Removal(DAYS, "", before, 0.0))
            expired.days += await self._days.drop_before(before)
            async for count in self._delete(_OLD_OF_ALL, {"before_us": before * DAY_US}, page):
                expired.rows += count
                yield expired
            await self._delete_seals(before, page)
        for tenant_id in await self._all_of(expiry):
            own = expiry.of(tenant_id)
            if own is None or not await self._is_over(tenant_id, own):
                continue
            await self._note(Removal(RETENTION, tenant_id, own, 0.0))
            async for count in self._delete(*_old_of(tenant_id, own), page):
                expired.rows += count
                yield expired
            await self._empty_seals(tenant_id, own, page)
        if expired.days or expired.rows:
            await self._note_action(expired)
        yield expired

    async def _all_of(self, expiry: Expiry) -> Sequence[str]:
        """Whose rows there may be: known tenants, those that were deleted, and nobody ("")."""
        former: Sequence[Row] = ()
        if expiry.others is not None:
            values = {"register": REGISTER, "before": expiry.others, "before_us": expiry.others * DAY_US}
            async with self._database.snapshot(patient=True) as connection:
                former = await connection.fetch_all(_FORMER, values)
        return sorted({"", *expiry.by_tenant, *(row["tenant_id"] for row in former)})

    async def _is_over(self, tenant_id: str, before: int) -> bool:
        """Whether anything of a tenant's is older than its time."""
        statement, values = _old_of(tenant_id, before)
        seals = {"register": REGISTER, "before": before, "tenant_id": tenant_id, "page": 1}
        async with self._database.session() as connection:
            if await connection.fetch_one(statement, {**values, "page": 1}) is not None:
                return True
            return await connection.fetch_one(_SEALS, seals) is not None

    async def _delete(self, statement: str, values: dict[str, Any], page: int) -> AsyncIterator[int]:
        while True:
            async with self._database.transaction(_LOCK) as connection, opened(connection):
                rows = await connection.fetch_all(statement, {**values, "page": page})
                ids = [row["request_id"] for row in rows]
                await connection.execute(_DELETE, {"ids": ids})
            if not ids:
                return
            yield len(ids)

    async def _empty_seals(self, tenant_id: str, before: int, page: int) -> None:
        """The links stay, for those of other tenants hang on them; whose rows they were of goes."""
        values = {"register": REGISTER, "before": before, "page": page, "tenant_id": tenant_id}
        while await self._change_seals(_SEALS, values, _EMPTY, {"nothing": b""}):
            pass

    async def _delete_seals(self, before: int, page: int) -> None:
        values = {"register": REGISTER, "before": before, "page": page}
        while await self._change_seals(_OLD_SEALS, values, _DELETE_SEAL, {}):
            pass
        async with self._database.session() as connection:
            heads = await connection.fetch_all(_OLD_HEADS, {"register": REGISTER, "before": before})
        for head in heads:
            while await self._close(head["day"], page):
                pass

    async def _close(self, day: int, page: int) -> bool:
        """Delete a day's head once it has no seals: a batch that came late may just have added some.

        Such a seal without its head would be in the way of the next batch. False when the head is gone.
        """
        async with self._database.transaction(_LOCK) as connection, opened(connection):
            await connection.execute(_HOLD_HEAD, {"day": day})
            seals = await connection.fetch_all(_SEALS_LEFT, {"day": day, "page": page})
            await connection.execute_many(_DELETE_SEAL, seal_keys(seals))
            if not seals:
                await connection.execute(_DELETE_HEAD, {"day": day})
        return bool(seals)

    async def _change_seals(
        self, find: str, values: dict[str, Any], change: str, beside: dict[str, Any]
    ) -> bool:
        """One batch; False when there are none left."""
        async with self._database.transaction(_LOCK) as connection, opened(connection):
            rows = await connection.fetch_all(find, values)
            await connection.execute_many(change, [{**key, **beside} for key in seal_keys(rows)])
        return bool(rows)

    async def _note(self, removal: Removal) -> None:
        async with self._database.transaction(_LOCK) as connection:
            now = await now_of(connection)
            await note_removal(connection, self._chain, evolve(removal, at=now))

    async def _note_action(self, expired: Expired) -> None:
        changes = {"days_removed": (None, expired.days), "rows_removed": (None, expired.rows)}
        async with self._database.transaction(_LOCK) as connection:
            await note(connection, self._actor, "apply_retention", None, changes)


def _old_of(tenant_id: str, before: int) -> tuple[str, dict[str, Any]]:
    values: dict[str, Any] = {"before_us": before * DAY_US}
    return (_OLD, {**values, "tenant_id": tenant_id}) if tenant_id else (_OLD_OF_NOBODY, values)


def _before(today: int, days: int | None) -> int | None:
    """Whole days go, and the day on which a time is over is kept: late by less than a day, never early."""
    return None if days is None else max(today - days, 0)
