"""What the server and the app know together about the end of the process."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from attrs import define


@define
class Lifecycle:
    """Shared with the app, which answers 503 to new work while `draining`.

    `in_flight` counts the requests whose app call has not returned yet. Only the server writes.
    """

    draining: bool = False
    in_flight: int = 0


class Shutdown:
    """A wish to stop: the first `ask` starts the drain, the second cuts it short."""

    __slots__ = ("asked", "hurried")

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.hurried = asyncio.Event()

    def ask(self) -> None:
        """Callable from a signal handler of the loop, any number of times."""
        if self.asked.is_set():
            self.hurried.set()
        self.asked.set()


@contextmanager
def on_signals(shutdown: Shutdown, on_hangup: Callable[[], None] | None = None) -> Iterator[None]:
    """Let SIGTERM and SIGINT ask for the shutdown, and SIGHUP call `on_hangup`; needs the main thread.

    Without `on_hangup`, SIGHUP ends the process, as for every program whose terminal goes.
    """
    loop = asyncio.get_running_loop()
    handlers = {signal.SIGTERM: shutdown.ask, signal.SIGINT: shutdown.ask}
    if on_hangup is not None:
        handlers[signal.SIGHUP] = on_hangup
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
    try:
        yield
    finally:
        for number in handlers:
            loop.remove_signal_handler(number)
