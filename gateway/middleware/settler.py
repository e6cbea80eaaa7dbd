"""The settler: ends reservations, whatever became of the requests that made them.

A request task owns sockets only: it may be cancelled at any await. What it reserved is ended here, on a
normal end, an error, a cancellation and a drain alike: where it can't wait for that, by tasks of the process.
"""

import asyncio
from collections.abc import Coroutine, Iterable
from contextlib import suppress
from typing import Any, Final

from loguru import logger

from gateway.accounting import LedgerEntry
from gateway.errors import AuditUnavailable, StoreUnavailable
from gateway.model import AuditRow
from gateway.ports import Counters, Spool

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
        # Those whose requests wait for it themselves.
        self._waited_for = 0
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

    def begin(self, intent: LedgerEntry, row: AuditRow) -> None:
        """Write down what is reserved, before anything is sent. Raises AuditUnavailable when it can't.

        `row` is the audit row as far as it is known: what is left if this process dies.
        """
        try:
            self._spool.intent(intent, row)
        except AuditUnavailable:
            # Nothing will be sent, so nothing is owed.
            if not self._settle_at_once(intent, 0):
                self._settle_beside(intent, 0, 0.0)
            raise
        self._running[intent.reservation_id] = intent

    def running(self) -> Iterable[LedgerEntry]:
        """What is reserved by requests that run."""
        return self._running.values()

    @property
    def settling(self) -> int:
        """How many ended requests the counters do not know of yet."""
        return len(self._settling) + self._waited_for

    def end(self, entry: LedgerEntry, busy_s: float = 0.0) -> asyncio.Task[None] | None:
        """Write down what it cost, and tell the counters: at once, or in a task of our own. Never raises.

        The task that is returned ends when they know, however long that takes; None: they do. They are told
        after `busy_s`, less than a lease: for so long its backend is still at work, and its place among the
        requests at the same time is taken.
        """
        if self._is_ended_at_once(entry, busy_s):
            return None
        return self._settle_beside(entry, entry.tokens, busy_s)

    def end_within(
        self, seconds: float, entry: LedgerEntry, busy_s: float = 0.0
    ) -> Coroutine[Any, Any, None] | None:
        """As `end`; what is returned waits until the counters know, for as long as they have for an answer.

        What they do not know by then, or when the waiting is cancelled, they are told by a task of our own.
        That is waited for, too, as long as the `seconds` are not over.
        """
        if self._is_ended_at_once(entry, busy_s):
            return None
        return self._settle_within(seconds, entry, busy_s)

    def _is_ended_at_once(self, entry: LedgerEntry, busy_s: float) -> bool:
        """Write it down, and tell the counters where nobody has to wait for that."""
        self._running.pop(entry.reservation_id, None)
        self._spool.settled(entry)
        return not busy_s and self._settle_at_once(entry, entry.tokens)

    def _settle_at_once(self, entry: LedgerEntry, tokens: int) -> bool:
        return self._counters.settle_at_once(entry.tenant_id, entry.reservation_id, tokens)

    async def _settle_within(self, seconds: float, entry: LedgerEntry, busy_s: float) -> None:
        loop = asyncio.get_running_loop()
        until_s = loop.time() + seconds
        if not busy_s and await self._is_settled_now(entry):
            return
        beside = self._settle_beside(entry, entry.tokens, busy_s or RETRY_S)
        await asyncio.wait([beside], timeout=max(0.0, until_s - loop.time()))

    async def _is_settled_now(self, entry: LedgerEntry) -> bool:
        """Tell the counters from the request's task: one of our own costs more than all else of it."""
        self._waited_for += 1
        try:
            await self._counters.settle(entry.tenant_id, entry.reservation_id, entry.tokens)
        except asyncio.CancelledError:
            # Perhaps they were told: to say it again changes nothing.
            self._settle_beside(entry, entry.tokens, 0.0)
            raise
        except StoreUnavailable:
            return False
        finally:
            self._waited_for -= 1
        return True

    def _settle_beside(self, entry: LedgerEntry, tokens: int, after_s: float) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(self._settle(entry, tokens, after_s))
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)
        return task

    async def _settle(self, entry: LedgerEntry, tokens: int, after_s: float) -> None:
        if after_s:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._is_stopping.wait(), after_s)
        while True:
            try:
                await self._counters.settle(entry.tenant_id, entry.reservation_id, tokens)
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
