"""Lines for a file descriptor that may take them slowly, or never: who writes does not wait.

A log that goes into a pipe which nobody reads would stop the event loop, and with it every stream.
"""

import os
import queue
import threading
import time
from collections.abc import Callable
from typing import Final

# About 1 KB each; what comes beyond it is lost, and counted.
MAX_LINES: Final = 10_000
# At the end of a process: for what is written, not for a reader that has gone.
CLOSING_S: Final = 2.0
_BATCH_BYTES: Final = 64 * 1024
# What comes meanwhile shares a write. A thread that woke for each line would take the interpreter from the
# event loop several times a request.
_GATHERING_S: Final = 0.02


class LineWriter:
    """A thread writes; `put` costs a microsecond. `lost` makes the line that tells how many did not fit."""

    def __init__(self, descriptor: int, lost: Callable[[int], bytes], *, max_lines: int = MAX_LINES) -> None:
        self._descriptor = descriptor
        self._told_lost = lost
        self._max_lines = max_lines
        self._lost = 0
        self._is_closing = False
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        # A daemon: a reader that never reads must not keep the process from ending. The descriptor is written
        # to, not sys.stderr, whose lock would be held then, which ends an interpreter with SIGABRT.
        self._thread = threading.Thread(target=self._write_for_ever, name="log", daemon=True)
        self._thread.start()

    def put(self, line: bytes) -> None:
        """Never blocks, never raises."""
        if self._lines.qsize() >= self._max_lines:
            self._lost += 1
            return
        self._lines.put(line)

    def close(self, within_s: float = CLOSING_S) -> None:
        """Return when all is written, or the time is over."""
        self._is_closing = True
        self._lines.put(None)
        self._thread.join(within_s)

    def _write_for_ever(self) -> None:
        is_open = True
        while is_open:
            batch, is_open = self._next()
            if self._lost:
                batch, self._lost = batch + self._told_lost(self._lost), 0
            try:
                _write(self._descriptor, batch)
            except OSError:
                continue  # nobody is there to be told

    def _next(self) -> tuple[bytes, bool]:
        """What waits, up to a bound, and whether more may come."""
        lines: list[bytes] = []
        size = 0
        line = self._lines.get()
        if not self._is_closing:
            time.sleep(_GATHERING_S)
        while line is not None:
            lines.append(line)
            size += len(line)
            if size >= _BATCH_BYTES or self._lines.empty():
                return b"".join(lines), True
            line = self._lines.get()
        return b"".join(lines), False


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
