"""What keeps ledger and counters telling the same, beside the requests: leases end that nobody renewed."""

import asyncio
from typing import Final

from loguru import logger

from gateway.accounting import Evidence, Expired, charged_in_full
from gateway.errors import StoreUnavailable
from gateway.ports import Counters, LedgerStore, Spool

PERIOD_S: Final = 5.0


class Upkeep:
    """`start` and `stop` inside the event loop."""

    def __init__(
        self, counters: Counters, ledger: LedgerStore, spool: Spool, *, period_s: float = PERIOD_S
    ) -> None:
        self._counters = counters
        self._ledger = ledger
        self._spool = spool
        self._period_s = period_s
        # Told by the counters, and not written yet.
        self._expired: list[Expired] = []
        self._running: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._running = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._period_s)
            try:
                await self.write_expired()
            except StoreUnavailable:
                continue  # told by others; the next round makes up for it
            except Exception:  # noqa: BLE001 - a defect must not end the upkeep for good
                logger.exception("the upkeep of the ledger failed; it is tried again")

    async def write_expired(self) -> None:
        """Charge in the ledger what ran out, in whichever process. Raises StoreUnavailable."""
        self._expired += await self._counters.expired()
        while self._expired:
            await self._write(self._expired[0])
            self._expired.pop(0)

    async def _write(self, expired: Expired) -> None:
        entry = await self._ledger.entry(expired.reservation_id)
        if entry is None or entry.evidence is Evidence.EXPIRED:
            return
        if entry.evidence is Evidence.INTENT:
            logger.warning(f"{entry.reservation_id} has no end: its whole reservation is charged for now")
            self._spool.settled(charged_in_full(entry, Evidence.EXPIRED))
        else:
            # The counters lost its end, not the ledger.
            await self._counters.settle(entry.tenant_id, entry.reservation_id, entry.tokens)
