"""Chores that are done again and again, beside the requests."""

import asyncio
from collections.abc import Awaitable, Callable

from loguru import logger

from gateway.errors import StoreUnavailable

# Something that is done once in each round. Raises StoreUnavailable.
Chore = Callable[[], Awaitable[object]]


class Rounds:
    """Does them in turn, then again after `period_s`. `start` and `stop` inside the event loop."""

    def __init__(self, *chores: Chore, period_s: float) -> None:
        self._period_s = period_s
        self._chores = chores
        self._running: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._running = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])

    async def _run(self) -> None:
        while True:
            for chore in self._chores:
                await self._do(chore)
            await asyncio.sleep(self._period_s)

    async def _do(self, chore: Chore) -> None:
        try:
            await chore()
        except StoreUnavailable:
            pass  # told by others; the next round makes up for it
        except Exception:  # noqa: BLE001 - a defect must not end the rounds for good
            logger.exception("a chore failed; it is tried again")
