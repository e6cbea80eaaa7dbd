"""NDJSON: bytes in any cut → lines, and objects → lines that every client splits alike.

What is written is ASCII: clients that split like Python's `str.splitlines` break a line at a raw
U+2028 or U+0085. And there are no blank lines: ollama-python fails on the first one.
"""

import json
from typing import Any, Final

import orjson

from gateway.errors import BackendFailed

MIB: Final = 1024 * 1024
# What Ollama's own client reads at most; a whole answer that comes as one line fits too.
MAX_LINE_BYTES: Final = 8 * MIB

CONTENT_TYPE: Final = b"application/x-ndjson"


class LineSplitter:
    """Collect lines from bytes that come in any cut.

    Lines end with LF or CRLF; blank ones are left out. A line of more than `max_line_bytes` is a
    BackendFailed, and nothing may be fed after it.
    """

    def __init__(self, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self._max_line_bytes = max_line_bytes
        # The line not yet ended, as it came: joined only when it ends, so that the cost stays linear.
        self._pieces: list[bytes] = []
        self._pieces_bytes = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that these bytes complete, in order, without their ends."""
        is_long = self._pieces_bytes + len(data) > self._max_line_bytes
        *lines, rest = data.split(b"\n")
        if lines and self._pieces:
            self._keep(lines[0])
            lines[0] = self._joined()
        self._keep(rest)
        if is_long and lines and max(map(len, lines)) > self._max_line_bytes:
            raise _too_long()
        return [text for line in lines if (text := line.strip())]

    def end(self) -> list[bytes]:
        """The bytes are over: the last line, if it lacks its end."""
        line = self._joined().strip() if self._pieces else b""
        return [line] if line else []

    def _keep(self, piece: bytes) -> None:
        if piece:
            self._pieces.append(piece)
            self._pieces_bytes += len(piece)
            if self._pieces_bytes > self._max_line_bytes:
                raise _too_long()

    def _joined(self) -> bytes:
        line = b"".join(self._pieces)
        self._pieces.clear()
        self._pieces_bytes = 0
        return line


def ascii_json(value: Any) -> bytes:
    """Compact JSON on one line, with everything beyond ASCII escaped. `value` came from JSON, or fits it."""
    text = orjson.dumps(value)
    if text.isascii():
        return text
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode("ascii")


def _too_long() -> BackendFailed:
    return BackendFailed("The model's server sent a line that is too long to be one.")
