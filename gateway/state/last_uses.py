"""When keys were last used: noted in memory and written in batches; a write a request would cost too much."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from gateway.errors import StoreUnavailable

FLUSH_S: Final = 5.0

# Key id → seconds since the epoch.
Touch = Callable[[Mapping[str, float]], Awaitable[None]]


class LastUses:
    """`start` and `stop` inside the event loop; `stop` writes the rest, if the database takes it."""

    def __init__(self, touch: Touch, flush_s: float = FLUSH_S) -> None:
        self._touch = touch
        self._flush_s = flush_s
        self._noted: dict[str, float] = {}
        self._flushing: asyncio.Task[None] | None = None

    def note(self, key_id: str, now: float) -> None:
        self._noted[key_id] = now

    async def flush(self) -> None:
        """Write what was noted. What the database does not take waits for the next time."""
        batch, self._noted = self._noted, {}
        if not batch:
            return
        try:
            await self._touch(batch)
        except StoreUnavailable:
            self._noted = {**batch, **self._noted}

    async def start(self) -> None:
        self._flushing = asyncio.create_task(self._flush_for_ever())

    async def stop(self) -> None:
        if self._flushing is not None:
            self._flushing.cancel()
            await asyncio.wait([self._flushing])
        await self.flush()

    async def _flush_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._flush_s)
            await self.flush()
