"""Deadlines of many waits by one timer, fair to what comes late because this event loop does."""

import asyncio
from collections import deque
from typing import Final, Protocol

# This event loop is busy, or was blocked, when its timer is so late. That is no outage: what is waited for
# may lie in the socket already. An answer of Redis needs some ten turns of the loop, or twenty with a new
# connection.
LATE_S: Final = 0.01
TURNS: Final = 25
TURN_S: Final = 0.001


class Wait(Protocol):
    @property
    def is_over(self) -> bool: ...

    def give_up(self) -> None: ...


class Deadlines:
    """`add` waits in the order of their deadlines; each that is not over by then is told to give up.

    A timer for each would cost more than most of what is waited for.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waits: deque[tuple[float, Wait]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        # How many more turns what is due has; None while the loop was not late.
        self._turns_left: int | None = None

    def add(self, wait: Wait, for_s: float) -> None:
        self._waits.append((self._loop.time() + for_s, wait))
        if self._timer is None:
            self._set()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._waits.clear()

    def _set(self) -> None:
        due_s = self._waits[0][0]
        self._timer = self._loop.call_at(due_s, self._look, due_s)

    def _look(self, due_s: float) -> None:
        self._timer = None
        now_s = self._loop.time()
        if self._turns_left is None and now_s > due_s + LATE_S:
            self._turns_left = TURNS
        while self._waits and (self._waits[0][1].is_over or self._waits[0][0] <= now_s):
            wait = self._waits[0][1]
            if not wait.is_over:
                if self._turns_left:
                    self._turns_left -= 1
                    self._timer = self._loop.call_later(TURN_S, self._look, due_s)
                    return
                wait.give_up()
            self._waits.popleft()
        self._turns_left = None
        if self._waits:
            self._set()
