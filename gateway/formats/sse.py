"""Server-sent events: bytes in any cut → the `data` of each event, and back.

Only `data` matters to the protocols spoken here; `event:`, `id:`, `retry:` and comments are read and
left out. What is written is `data:`, named by `event:` only for Anthropic's clients, who go by the name:
an `id:` line or an event without data makes OpenAI's clients raise.
"""

from typing import Final

from gateway.errors import BackendFailed

MIB: Final = 1024 * 1024
# One event carries one token, or one tool call at its longest; whole answers do not come as events.
MAX_EVENT_BYTES: Final = 8 * MIB

CONTENT_TYPE: Final = b"text/event-stream"
# What nearly all events begin with, and all end with.
_PREFIX: Final = b"data: "
_END: Final = b"\n\n"
_BETWEEN: Final = _END + _PREFIX
_INNER: Final = slice(len(_PREFIX), -len(_END))
# Clients skip comments; sent while the backend is silent, so that proxies and clients do not give up.
COMMENT: Final = b": waiting for the model\n\n"


def queued(position: int) -> bytes:
    """The same, for who waits in line; 1 is next."""
    return b": waiting in the queue at position %d\n\n" % position


DONE_DATA: Final = b"[DONE]"
DONE: Final = b"data: [DONE]\n\n"


def frame(data: bytes) -> bytes:
    """One event with this data; a line feed in it begins another `data` line."""
    return b"data: " + data.replace(b"\n", b"\ndata: ") + b"\n\n"


def named(name: str, data: bytes) -> bytes:
    """One event with this name and this data."""
    return b"event: " + name.encode("ascii") + b"\n" + frame(data)


class EventSplitter:
    """Collect the data of events from bytes that come in any cut.

    Lines end with LF, CRLF or CR. An event is measured by its `data` lines and the line not yet
    ended; one of more than `max_event_bytes` is a BackendFailed, and nothing may be fed after it.
    """

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_event_bytes = max_event_bytes
        # The line not yet ended, as it came: joined only when it ends, so that the cost stays linear.
        self._pieces: list[bytes] = []
        self._pieces_bytes = 0
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._after_cr = False

    def feed(self, data: bytes) -> list[bytes]:
        """The data of each event that these bytes complete, in order; lines of one event joined by LF."""
        if self._after_cr and data:
            # The second half of a CRLF belongs to a line that its first half has ended.
            data = data.removeprefix(b"\n")
            self._after_cr = False
        if not data:
            return []
        if not self._pieces and not self._data and (payloads := self._of_whole_events(data)):
            return payloads
        self._after_cr = data.endswith(b"\r")
        # bytes.splitlines knows LF, CRLF and CR, and nothing else.
        lines = data.splitlines()
        tail = b"" if data.endswith((b"\n", b"\r")) else lines.pop()
        payloads = []
        for line in lines:
            self._end_line(line, payloads)
        if tail:
            self._keep(tail)
        return payloads

    def end(self) -> list[bytes]:
        """The bytes are over: the data of a last event that lacks its blank line, if there is one.

        A cut event is given out too: half a JSON object never parses, so it can't pass for a whole one.
        """
        payloads: list[bytes] = []
        if self._pieces:
            self._end_line(b"", payloads)
        self._end_event(payloads)
        return payloads

    def _of_whole_events(self, data: bytes) -> list[bytes] | None:
        """The data of events of one line each, as servers send most; None where there is anything else.

        For a third of the cost of taking them line by line.
        """
        if not data.startswith(_PREFIX) or not data.endswith(_END) or b"\r" in data:
            return None
        payloads = data[_INNER].split(_BETWEEN)
        # Two line feeds for each: so there are no others.
        is_plain = data.count(b"\n") == 2 * len(payloads) and b"" not in payloads
        return payloads if is_plain and len(data) <= self._max_event_bytes else None

    def _keep(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._pieces_bytes += len(piece)
        self._check_size(self._pieces_bytes)

    def _end_line(self, rest: bytes, payloads: list[bytes]) -> None:
        line = self._joined(rest) if self._pieces else rest
        if not line:
            self._end_event(payloads)
            return
        self._check_size(len(line))
        if line.startswith(b"data:"):
            self._data.append(line[5:].removeprefix(b" "))
            self._data_bytes += len(line)

    def _joined(self, rest: bytes) -> bytes:
        self._pieces.append(rest)
        line = b"".join(self._pieces)
        self._pieces.clear()
        self._pieces_bytes = 0
        return line

    def _end_event(self, payloads: list[bytes]) -> None:
        # As the standard has it, an event without data is no event.
        if data := b"\n".join(self._data):
            payloads.append(data)
        self._data.clear()
        self._data_bytes = 0

    def _check_size(self, line_bytes: int) -> None:
        if self._data_bytes + line_bytes > self._max_event_bytes:
            raise BackendFailed("The model's server sent an event that is too large to be one.")
