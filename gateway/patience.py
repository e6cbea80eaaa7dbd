"""A deadline that moves with each sign of life, for the price of reading the clock."""

import asyncio
from collections.abc import Callable


class Patience:
    """Call `on_over` once when nothing was renewed for the last promised time, in seconds.

    A timer per piece of a stream would cost more than the piece; this one sleeps until the deadline that
    stood when it was set, and goes back to sleep if that has moved since.
    """

    __slots__ = ("_deadline", "_handle", "_loop", "_on_over", "is_over")

    def __init__(self, first_s: float, on_over: Callable[[], object]) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_over = on_over
        self._deadline = self._loop.time() + first_s
        self.is_over = False
        self._handle = self._loop.call_at(self._deadline, self._check)

    def renew(self, for_s: float) -> None:
        deadline = self._loop.time() + for_s
        if deadline < self._deadline:
            # The new deadline is earlier than the timer: set it anew, once.
            self._handle.cancel()
            self._handle = self._loop.call_at(deadline, self._check)
        self._deadline = deadline

    def end(self) -> None:
        self._handle.cancel()

    def _check(self) -> None:
        if self._loop.time() < self._deadline:
            self._handle = self._loop.call_at(self._deadline, self._check)
        else:
            self.is_over = True
            self._on_over()
