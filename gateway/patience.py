"""A deadline that moves with each sign of life, for the price of reading the clock."""

import asyncio
from collections.abc import Callable
from typing import Final

# While held it looks again so often: what is renewed then may last longer than promised by as much.
_HELD_CHECK_S: Final = 1.0


class Patience:
    """Call `on_over` once when nothing was renewed for the last promised time, in seconds.

    A timer per piece of a stream would cost more than the piece; this one sleeps until the deadline that
    stood when it was set, and goes back to sleep if that has moved since.
    """

    __slots__ = ("_deadline", "_handle", "_is_held", "_loop", "_on_over", "is_over")

    def __init__(self, first_s: float, on_over: Callable[[], object]) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_over = on_over
        self._deadline = self._loop.time() + first_s
        self.is_over = False
        self._is_held = False
        self._handle = self._loop.call_at(self._deadline, self._check)

    def hold(self) -> None:
        """Wait for somebody else; until `renew` no time counts."""
        self._is_held = True

    def renew(self, for_s: float) -> None:
        self._is_held = False
        deadline = self._loop.time() + for_s
        if deadline < self._deadline:
            # The new deadline is earlier than the timer: set it anew, once.
            self._handle.cancel()
            self._handle = self._loop.call_at(deadline, self._check)
        self._deadline = deadline

    def end(self) -> None:
        self._handle.cancel()

    def _check(self) -> None:
        now = self._loop.time()
        if self._is_held:
            self._handle = self._loop.call_at(now + _HELD_CHECK_S, self._check)
        elif now < self._deadline:
            self._handle = self._loop.call_at(self._deadline, self._check)
        else:
            self.is_over = True
            self._on_over()
