"""What the manager of services is told of this process, by systemd's protocol (sd_notify(3)).

A line or two for each fact, as a datagram to the socket that the manager names. Where none is named, as on a
terminal or in a container, nobody is told. A manager that can't be reached keeps nothing from running.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Final

# Beats of a process that is not watched: they only ask for more time to start and to stop.
BEAT_S: Final = 5.0
# How much more time a beat asks for; a manager's own time-outs count from its last one.
_EXTENSION_US: Final = 30_000_000


class ServiceManager:
    """Tells when the process serves, reads its settings again and stops; and, in between, that it lives.

    `beating` inside the event loop: a loop that hangs beats no more, and who watches it (WatchdogSec=)
    kills it and starts it again. While the process starts (the spool of a killed one may be drained for
    minutes) or stops (streams are waited for), each beat asks for more time.
    """

    def __init__(self, address: str | None = None, watchdog_s: float | None = None) -> None:
        self._address = address
        self._beat_s = min(BEAT_S, watchdog_s / 3) if watchdog_s else BEAT_S
        self._is_ready = self._is_stopping = False

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> ServiceManager:
        """The one that NOTIFY_SOCKET names; it watches where WATCHDOG_USEC is meant for this process."""
        watchdog_us = environment.get("WATCHDOG_USEC", "")
        is_for_us = environment.get("WATCHDOG_PID") in (None, "", str(os.getpid()))
        watchdog_s = int(watchdog_us) / 1e6 if is_for_us and watchdog_us.isdecimal() else None
        return cls(environment.get("NOTIFY_SOCKET") or None, watchdog_s)

    @asynccontextmanager
    async def beating(self) -> AsyncIterator[None]:
        """From before the start until after the stop."""
        if self._address is None:
            yield
            return
        beats = asyncio.create_task(self._beat())
        try:
            yield
        finally:
            beats.cancel()
            await asyncio.wait((beats,))

    def ready(self) -> None:
        self._is_ready = True
        self._tell("READY=1", "STATUS=Serving.")

    def stopping(self, in_flight: int) -> None:
        self._is_stopping = True
        self._tell("STOPPING=1", f"STATUS=Draining: {in_flight} requests run, new ones are refused.")

    @contextmanager
    def reloading(self) -> Iterator[None]:
        """Around reading the settings again."""
        if self._is_ready and not self._is_stopping:
            self._tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            yield
        finally:
            if self._is_ready and not self._is_stopping:
                self.ready()

    async def _beat(self) -> None:
        while True:
            beat = ["WATCHDOG=1"]
            if self._is_stopping or not self._is_ready:
                beat.append(f"EXTEND_TIMEOUT_USEC={_EXTENSION_US}")
            self._tell(*beat)
            await asyncio.sleep(self._beat_s)

    def _tell(self, *lines: str) -> None:
        if self._address is None:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        # Not waited for: a manager that does not read must not hold up a stream.
        flags = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to_manager:
            to_manager.sendto("\n".join(lines).encode(), flags, address)
