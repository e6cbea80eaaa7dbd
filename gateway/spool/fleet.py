"""What all gateways have spooled is in the ledger: each says so twice a second, and whoever must know waits.

Counters that lost their memory are rebuilt from the ledger. It lacks what other processes have only spooled
so far, which would be allowed a second time.
"""

import asyncio
import os
from typing import Final

from loguru import logger

from gateway.errors import StoreUnavailable
from gateway.ports import Flush, Replicas

REPORT_S: Final = 0.5
_LOOK_S: Final = 0.1


class FleetSpools:
    """The adapter behind `ports.Drainage`. `start` and `stop` inside the event loop."""

    def __init__(self, replicas: Replicas, flush: Flush, *, report_s: float = REPORT_S) -> None:
        self.name = f"{os.uname().nodename}-{os.getpid()}-{os.urandom(6).hex()}"
        self._replicas = replicas
        self._flush = flush
        self._report_s = report_s
        self._reporting: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """From now on, others wait for what this process spools. Raises StoreUnavailable."""
        await self._report()
        self._reporting = asyncio.create_task(self._report_for_ever())

    async def stop(self) -> None:
        """Others need not wait any more, if the ledger has all; else they wait as for one that died."""
        if self._reporting is not None:
            self._reporting.cancel()
            await asyncio.wait([self._reporting])
        try:
            await self._flush()
            await self._replicas.remove(self.name)
        except StoreUnavailable:
            logger.warning("other gateways wait some seconds for what is still spooled here")

    async def drained(self) -> None:
        """Return when the ledger has all that was spooled anywhere before now. Raises StoreUnavailable."""
        since = await self._report()
        while behind := [name for name in await self._replicas.behind(since) if name != self.name]:
            logger.debug(f"waiting for what {', '.join(behind)} spooled")
            await asyncio.sleep(_LOOK_S)

    async def _report(self) -> float:
        began = await self._replicas.now()
        await self._flush()
        await self._replicas.report(self.name, began)
        return began

    async def _report_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._report_s)
            try:
                await self._report()
            except StoreUnavailable:
                continue  # the spool says so
            except Exception:  # noqa: BLE001 - a defect must not end the reports for good: others wait for them
                logger.exception("a report to other gateways failed; it is tried again")
