"""How late the event loop is: what it was busy with, every stream waited for."""

import asyncio
from collections.abc import Callable
from typing import Final

EVERY_S: Final = 0.25


class LoopLag:
    """Sleeps, and tells `observe` how many seconds late it woke. `start` and `stop` in the event loop."""

    def __init__(self, observe: Callable[[float], None], every_s: float = EVERY_S) -> None:
        self._observe = observe
        self._every_s = every_s
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._watching = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due_s = loop.time() + self._every_s
            await asyncio.sleep(self._every_s)
            self._observe(max(0.0, loop.time() - due_s))
