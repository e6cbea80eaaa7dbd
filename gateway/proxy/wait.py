"""One request's wait: in line at every backend that could serve it, it has the first slot that comes.

In one line it has its place; in the others it is a guest. Whoever gives it a slot takes it out of all other
lines in the same step, so that it never has two.
"""

import asyncio
from types import TracebackType
from typing import Self

from gateway.proxy.queue import BackendQueue
from gateway.rules.fair_queue import Ticket


class Wait:
    """`with` leaves all lines at the end, and gives back a slot that came and that nobody took."""

    def __init__(self, ticket: Ticket) -> None:
        self._ticket = ticket
        self._lines: list[BackendQueue] = []
        self._slot: asyncio.Future[BackendQueue] = asyncio.get_running_loop().create_future()
        self._is_taken = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._slot.done():
            self._slot.cancel()
            self._quit()
        elif self._slot.exception() is None and not self._is_taken:
            # It came in the very moment in which its caller left.
            self._slot.result().leave(self._ticket, is_served=False)

    @property
    def is_over(self) -> bool:
        """It has its slot, or was refused; `slot` tells."""
        return self._slot.done()

    def stands_at(self, queue: BackendQueue) -> bool:
        return queue in self._lines

    def position(self) -> int:
        """About where it stands, in the line where that is best; 1 is next."""
        return min((queue.position(self._ticket) for queue in self._lines), default=1)

    def join(self, queue: BackendQueue, *, is_guest: bool) -> None:
        """Stand in line there, too. Raises QueueFull, save of guests, and Closed."""
        self._lines.append(queue)
        try:
            queue.join(self._ticket, self, is_guest=is_guest)
        except BaseException:
            self._lines.remove(queue)
            raise

    async def slot(self, for_s: float) -> BackendQueue | None:
        """Where it has its slot now; None when none came in this time. Raises why it waits no longer."""
        await asyncio.wait((self._slot,), timeout=max(0.0, for_s))
        if not self._slot.done():
            return None
        queue = self._slot.result()
        self._is_taken = True
        return queue

    # ── what queues say ──────────────────────────────────────────────────────────────────

    def take(self, queue: BackendQueue) -> None:
        """There is a slot for it."""
        self._lines.remove(queue)
        self._slot.set_result(queue)
        self._quit()

    def lose(self, queue: BackendQueue, error: Exception) -> None:
        """It waits there no longer; nor anywhere, if that was its last line."""
        if queue in self._lines:
            self._lines.remove(queue)
            if not self._lines:
                self._slot.set_exception(error)

    def _quit(self) -> None:
        lines, self._lines = self._lines, []
        for queue in lines:
            queue.quit(self._ticket)
