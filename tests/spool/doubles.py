"""Stores in memory that can be switched off, and that refuse some records for good."""

import asyncio
from collections.abc import Callable, Sequence

from attrs import define, field

from gateway.accounting import LedgerEntry, Sum
from gateway.errors import StoreUnavailable, Unstorable
from gateway.model import AuditRow


@define
class Stores:
    """Ledger, audit log and quarantine in one. `batches` holds the size of every write that was kept."""

    entries: dict[str, LedgerEntry] = field(factory=dict)
    rows: dict[str, AuditRow] = field(factory=dict)
    quarantine: dict[bytes, tuple[str, str]] = field(factory=dict)
    poison: set[str] = field(factory=set)
    """Ids of what can't be stored."""
    batches: list[int] = field(factory=list)
    failures: int = 0
    """So many calls fail as if the database were away."""
    attempts: int = 0
    beside: Callable[[], object] = lambda: None
    """Happens while they are asked, each time."""
    changed: asyncio.Event = field(factory=asyncio.Event)

    @property
    def ledger(self) -> "_Ledger":
        return _Ledger(self)

    @property
    def audit(self) -> "_Audit":
        return _Audit(self)

    async def keep(self, kind: str, record: bytes, reason: str) -> None:
        await self.answer()
        self.quarantine[record] = kind, reason

    async def answer(self) -> None:
        await asyncio.sleep(0)
        self.attempts += 1
        self.beside()
        self.changed.set()
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Wait until it is so, while the stores are asked."""
        async with asyncio.timeout(10):
            while not is_so():
                self.changed.clear()
                await self.changed.wait()


@define
class _Ledger:
    stores: Stores

    async def write(self, entries: Sequence[LedgerEntry]) -> None:
        await self.stores.answer()
        if self.stores.poison & {entry.reservation_id for entry in entries}:
            raise Unstorable("poisoned")
        for entry in entries:
            kept = self.stores.entries.get(entry.reservation_id)
            if kept is None or entry.evidence.rank > kept.evidence.rank:
                self.stores.entries[entry.reservation_id] = entry
        self.stores.batches.append(len(entries))

    async def sums(self, tenant_id: str, periods: Sequence[str]) -> Sequence[Sum]:
        raise NotImplementedError

    async def open_intents(self, tenant_id: str) -> Sequence[LedgerEntry]:
        raise NotImplementedError

    async def entry(self, reservation_id: str) -> LedgerEntry | None:
        raise NotImplementedError

    async def snapshot(
        self, tenant_id: str, periods: Sequence[str]
    ) -> tuple[Sequence[Sum], Sequence[LedgerEntry]]:
        raise NotImplementedError


@define
class _Audit:
    stores: Stores

    async def write(self, rows: Sequence[AuditRow]) -> None:
        await self.stores.answer()
        if self.stores.poison & {row.request_id for row in rows}:
            raise Unstorable("poisoned")
        for row in rows:
            self.stores.rows.setdefault(row.request_id, row)
        self.stores.batches.append(len(rows))
