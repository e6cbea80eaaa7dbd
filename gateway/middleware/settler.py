"""The settler: ends reservations, whatever became of the requests that made them.

A request task owns sockets only: it may be cancelled at any await. What it reserved is ended here, by tasks
of the process, on a normal end, an error, a cancellation and a drain alike.
"""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from attrs import evolve
from loguru import logger

from gateway.accounting import Evidence, LedgerEntry
from gateway.errors import AuditUnavailable, StoreUnavailable
from gateway.model import AuditRow
from gateway.ports import Counters, Spool
from gateway.rules.budgets import Settlement

# Slots of a process that died are free again after the lease (SPEC 6: 15 s); three renewals may be lost.
LEASE_S: Final = 15.0
RENEW_S: Final = 5.0
RETRY_S: Final = 1.0


class Settler:
    """Keeps the leases of running requests, and settles ended ones. `start` and `stop` in the event loop."""

    def __init__(self, counters: Counters, spool: Spool) -> None:
        self._counters = counters
        self._spool = spool
        self._running: dict[str, LedgerEntry] = {}
        self._settling: set[asyncio.Task[None]] = set()
        self._renewing: asyncio.Task[None] | None = None
        self._is_stopping = asyncio.Event()

    async def start(self) -> None:
        self._renewing = asyncio.create_task(self._renew_for_ever())

    async def stop(self) -> None:
        """Settle what has ended. What the store does not take its lease ends, and the spool corrects."""
        self._is_stopping.set()
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.wait([self._renewing])
        if self._settling:
            await asyncio.wait(self._settling, timeout=RETRY_S)
        for task in self._settling:
            task.cancel()

    async def begin(self, intent: LedgerEntry, row: AuditRow) -> None:
        """Write down what is reserved, before anything is sent. Raises AuditUnavailable when it can't.

        `row` is the audit row as far as it is known: what is left if this process dies.
        """
        try:
            self._spool.intent(intent, row)
        except AuditUnavailable:
            # Nothing will be sent, so nothing is owed.
            await self._counters.settle(intent.tenant_id, intent.reservation_id, 0)
            raise
        self._running[intent.reservation_id] = intent

    def running(self) -> Iterable[LedgerEntry]:
        """What is reserved by requests that run."""
        return self._running.values()

    @property
    def settling(self) -> int:
        """How many ended requests the counters do not know of yet."""
        return len(self._settling)

    def end(
        self, intent: LedgerEntry, settlement: Settlement, *, backend: str = "", busy_s: float = 0.0
    ) -> asyncio.Task[None] | None:
        """Write down what it cost, and tell the counters: at once, or in a task of our own. Never raises.

        The task that is returned ends when they know, however long that takes; None: they do. They are told
        after `busy_s`, less than a lease: for so long its backend is still at work, and its place among the
        requests at the same time is taken.
        """
        self._running.pop(intent.reservation_id, None)
        self._spool.settled(
            evolve(
                intent,
                tokens=settlement.tokens,
                prompt_tokens=settlement.prompt_tokens,
                completion_tokens=settlement.completion_tokens,
                estimated=settlement.estimated,
                evidence=Evidence.SETTLED,
                backend=backend,
            )
        )
        if not busy_s and self._counters.settle_at_once(
            intent.tenant_id, intent.reservation_id, settlement.tokens
        ):
            return None
        task = asyncio.get_running_loop().create_task(self._settle(intent, settlement.tokens, busy_s))
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)
        return task

    async def _settle(self, intent: LedgerEntry, tokens: int, busy_s: float) -> None:
        if busy_s:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._is_stopping.wait(), busy_s)
        while True:
            try:
                await self._counters.settle(intent.tenant_id, intent.reservation_id, tokens)
            except StoreUnavailable:
                # Until then its lease runs out and the whole reservation is charged; this corrects it.
                await asyncio.sleep(RETRY_S)
            else:
                return

    async def _renew_for_ever(self) -> None:
        while True:
            await asyncio.sleep(RENEW_S)
            for tenant_id, ids in _by_tenant(self._running.values()).items():
                try:
                    await self._counters.renew(tenant_id, ids, LEASE_S)
                except StoreUnavailable:
                    logger.warning("leases could not be renewed; the store does not answer")


def _by_tenant(intents: Iterable[LedgerEntry]) -> dict[str, list[str]]:
    tenants: dict[str, list[str]] = {}
    for intent in intents:
        tenants.setdefault(intent.tenant_id, []).append(intent.reservation_id)
    return tenants
