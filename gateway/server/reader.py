"""Requests out of bytes: llhttp, with the strictness and the bounds that it lacks.

Sans-I/O: no socket, no clock, no task. One request at a time: what comes after it and before
`next_request` is *surplus*, never parsed and never kept.
"""

from __future__ import annotations

from typing import Protocol

from httptools import HttpParserCallbackError, HttpParserError, HttpParserUpgrade, HttpRequestParser

from gateway.server.asgi import Headers
from gateway.server.head import (
    FRAMING_TOO_LARGE,
    HEAD_TOO_LARGE,
    MAX_FIELDS,
    MAX_HEAD_BYTES,
    MAX_TARGET_BYTES,
    TARGET_TOO_LONG,
    TOO_MANY_FIELDS,
    Head,
    Malformed,
    flaw_behind,
    flaw_of,
    start_line_of,
)

MAX_BARREN_BYTES = 32 * 1024  # chunk extensions and trailers between two pieces of body


class Listener(Protocol):
    """Who is told about the request, in this order, from within `feed`."""

    def head_arrived(self, head: Head) -> None: ...
    def body_arrived(self, piece: bytes) -> None: ...
    def body_ended(self) -> None: ...


class _Halt(Exception):
    """Ends a run of llhttp from within one of its callbacks."""


class RequestReader:
    """Feed it bytes; it tells its listener, or returns why it stopped.

    After a `Malformed` or with `surplus` set the connection is good for one last answer only.
    """

    __slots__ = (
        "_barren",
        "_detached",
        "_flaw",
        "_headers",
        "_in_head",
        "_listener",
        "_parser",
        "_raw",
        "_target",
        "_whole",
        "surplus",
    )

    def __init__(self, listener: Listener) -> None:
        self.surplus = False
        self._listener = listener
        self._parser = HttpRequestParser(self)
        self._flaw: Malformed | None = None
        self._detached = False
        self._raw = b""
        self._target = b""
        self._headers: Headers = []
        self._in_head = True
        self._whole = False
        self._barren = 0

    @property
    def in_head(self) -> bool:
        """True when the bytes of a head have begun to come and its end has not."""
        return self._in_head and bool(self._raw)

    def start_line(self) -> tuple[str, bytes] | None:
        """Method and target of the head that is being read or was refused, as far as they are known."""
        return start_line_of(self._raw)

    def next_request(self) -> None:
        """The last request is answered; the next one may come."""
        if self._detached:
            self._parser = HttpRequestParser(self)
            self._detached = False
        self._expect_head()

    def close(self) -> None:
        """Break the cycle of references with the parser; what is fed from now on is surplus."""
        self._whole = True
        del self._parser

    def feed(self, data: bytes) -> Malformed | None:
        """Read on. `data` must not be empty. Raises what the listener raises."""
        if self._whole:
            self.surplus = True
            return None
        if self._in_head:
            self._raw = self._raw + data if self._raw else data
        else:
            self._barren += len(data)
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade as switch:
            return self._read_on_without_switching(data[switch.args[0] :])
        except HttpParserError as error:
            return self._stopped(error)
        return self._overlong()

    # ── the callbacks of llhttp ──

    def on_message_begin(self) -> None:
        if self._whole:
            raise _Halt

    def on_url(self, piece: bytes) -> None:
        self._target += piece
        if len(self._target) > MAX_TARGET_BYTES:
            self._halt(TARGET_TOO_LONG)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:
            return  # a trailer field: nobody here wants one
        if len(self._headers) == MAX_FIELDS:
            self._halt(TOO_MANY_FIELDS)
        self._headers.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        parser = self._parser
        head = Head(
            parser.get_method().decode("ascii"),
            self._target,
            parser.get_http_version(),
            self._headers,
            dict(self._headers),
            parser.should_keep_alive(),
        )
        flaw = flaw_of(head, self._raw)
        if flaw is not None:
            self._halt(flaw)
        self._detached = parser.should_upgrade()
        self._in_head = False
        self._raw = b""
        self._listener.head_arrived(head)

    def on_body(self, piece: bytes) -> None:
        self._barren = 0
        self._listener.body_arrived(piece)

    def on_message_complete(self) -> None:
        if not self._detached:
            self._end()

    # ── what follows from them ──

    def _expect_head(self) -> None:
        self._raw = b""
        self._target = b""
        self._headers = []
        self._in_head = True
        self._whole = False
        self._barren = 0

    def _end(self) -> None:
        self._whole = True
        self._listener.body_ended()

    def _halt(self, flaw: Malformed) -> None:
        self._flaw = flaw
        raise _Halt

    def _stopped(self, error: HttpParserError) -> Malformed | None:
        if self._whole:
            self.surplus = True
            return None
        if self._flaw is not None:
            return self._flaw
        if isinstance(error, HttpParserCallbackError):
            raise error  # not the client's mistake but ours
        if self._in_head:
            return flaw_behind(str(error), self._raw)
        return Malformed(400, f"The request body is not valid: {error}.")

    def _overlong(self) -> Malformed | None:
        """Bound what llhttp collects without telling: an unfinished field, an endless extension."""
        if self._in_head:
            return HEAD_TOO_LARGE if len(self._raw) > MAX_HEAD_BYTES else None
        return FRAMING_TOO_LARGE if self._barren > MAX_BARREN_BYTES and not self._whole else None

    def _read_on_without_switching(self, rest: bytes) -> Malformed | None:
        """Read the body of a request that asked for an upgrade (RFC 9110 7.8: it may be ignored).

        llhttp takes what follows for another protocol, so a second parser is told the framing
        and nothing else. Java's HttpClient and `curl --http2` send such requests with a body.
        """
        framing = [b"%b: %b\r\n" % field for field in self._headers if field[0] in _FRAMING]
        self._parser = HttpRequestParser(_BodyOnly(self))
        self._parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n" % b"".join(framing))
        return self.feed(rest) if rest else None


_FRAMING = frozenset((b"content-length", b"transfer-encoding"))


class _BodyOnly:
    """The callbacks of a parser that is to read a body and no head."""

    __slots__ = ("on_body", "on_message_begin", "on_message_complete")

    def __init__(self, reader: RequestReader) -> None:
        self.on_message_begin = reader.on_message_begin
        self.on_body = reader.on_body
        self.on_message_complete = reader._end
