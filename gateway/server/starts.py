"""Requests begin in the order in which they came, a few in each turn of the event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final, Protocol

# What a request does before it first waits takes a fraction of a millisecond. Where hundreds come at once,
# who reads a stream would wait for the sum; so the loop reads and writes between these few.
AT_ONCE: Final = 2


class Startable(Protocol):
    """A request that the app has not been called for."""

    def run(self) -> None: ...


class Starts:
    """Runs what is added: at once while this turn has room, else in one of the next turns.

    Nobody waits while there is room: so the order is the one in which they were added.
    """

    __slots__ = ("_loop", "_room", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._room = AT_ONCE
        self._waiting: deque[Startable] = deque()

    def add(self, request: Startable) -> None:
        if self._room == 0:
            self._waiting.append(request)
            return
        if self._room == AT_ONCE:
            self._loop.call_soon(self._next_turn)
        self._room -= 1
        request.run()

    def withdraw(self, request: Startable) -> None:
        """It is not to be run any more. ValueError where it is running already, or was never added."""
        self._waiting.remove(request)

    def run_all(self) -> None:
        """Run all that wait, now."""
        while self._waiting:
            self._waiting.popleft().run()

    def _next_turn(self) -> None:
        self._room = AT_ONCE
        while self._waiting and self._room:
            self.add(self._waiting.popleft())
