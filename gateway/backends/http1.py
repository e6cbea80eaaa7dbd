"""HTTP/1.1 to a backend, on llhttp as strict as it is: one connection, one exchange at a time.

What a backend answers is no more trusted than what a caller sends: every line, header and answer before the
answer has a bound, two lengths are none, and whatever comes unasked ends the connection, so that it can never
be somebody else's answer.
"""

import asyncio
import select
from collections.abc import Callable
from typing import Final, cast

import httptools

from gateway.config import KIB

_MAX_HEADERS: Final = 128
_MAX_HEADER_BYTES: Final = 8 * KIB
# Of all headers and trailers, and of what is read without anything coming of it: an unfinished head, or the
# size of a chunk with what servers may write behind it.
_MAX_HEAD_BYTES: Final = 64 * KIB
# 100 Continue, 103 Early Hints. Nobody asked for one.
_MAX_INTERIM: Final = 8
# Beyond, no more is read from the backend until it is taken. One read brings 256 KiB at most.
_MAX_HELD_BYTES: Final = 64 * KIB
# A larger body is not copied behind its head.
_MAX_JOINED_BYTES: Final = 64 * KIB


class Broken(Exception):
    """The answer has no end, or is none."""


class Connection(asyncio.Protocol):
    """`ask`, wait for `more` until it `has_head`, `take` until it `is_complete`; then ask again, or abort."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._poll = select.poll()
        self._waiter: asyncio.Future[None] | None = None
        self.listener: Callable[[bytes], bool] | None = None
        """While somebody waits for `more`, given what comes of the body; False: who waits is to look."""
        self.error: Exception | None = None
        self.idle_since_s = 0.0
        self._begin()
        self.is_complete = True

    def _begin(self) -> None:
        """As before an answer."""
        self._parser = httptools.HttpResponseParser(self)
        self._pieces: list[bytes] = []
        self._held_bytes = 0
        self._is_paused = False
        self._headers = 0
        self._head_bytes = 0
        self._idle_bytes = 0
        self._interim = 0
        self._is_spent = False
        self._forget_head()

    def _forget_head(self) -> None:
        self._has_length = self._is_chunked = False
        self.is_encoded = False
        """It is compressed, though nobody asked for that."""
        self.has_head = self.is_complete = False
        self.status = 0

    # ── what is done with it ─────────────────────────────────────────────────────────────

    @property
    def is_fresh(self) -> bool:
        """Nothing has come on it since the last answer: no end, and nothing unasked. Also not unread yet."""
        return self.error is None and not self._poll.poll(0)

    @property
    def is_reusable(self) -> bool:
        """Its answer has ended, the request is sent, and both sides mean to go on."""
        return (
            self.is_complete
            and not self._is_spent
            and self.error is None
            and self._transport is not None
            and not self._transport.get_write_buffer_size()
        )

    @property
    def has_piece(self) -> bool:
        return bool(self._pieces)

    def ask(self, head: bytes, body: bytes) -> None:
        if self._transport is None:
            raise Broken("it was never made")
        self._begin()
        if len(body) > _MAX_JOINED_BYTES:
            self._transport.writelines((head, body))
        else:
            self._transport.write(head + body)

    def more(self) -> asyncio.Future[None]:
        """To be awaited: something has come, be it the head, a piece, the end. Raises Broken."""
        if self.error is not None:
            raise Broken from self.error
        waiter = self._waiter = self._loop.create_future()
        return waiter

    def take(self) -> bytes:
        """All that has come of the body and was not taken yet."""
        if not self._pieces:
            return b""
        taken = self._pieces.pop()
        self._held_bytes = 0
        if self._is_paused:
            self._is_paused = False
            if self._transport is not None and not self._transport.is_closing():
                self._transport.resume_reading()
        return taken

    def abort(self, error: Exception | None = None) -> None:
        """Close it at once; what of the request is not sent yet stays here."""
        if self.error is None:
            self.error = error or Broken("let go")
        if self._transport is not None:
            self._transport.abort()
        self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # ── what the transport tells ─────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)

    def data_received(self, data: bytes) -> None:
        was_complete = self.is_complete
        if was_complete:
            self.abort(Broken("it came unasked"))
            return
        self._idle_bytes += len(data)
        error = self._fed(data)
        if len(self._pieces) > 1:
            self._pieces = [b"".join(self._pieces)]  # one byte a chunk would hold forty times its size
        if self.is_complete:
            self._is_spent = self._is_spent or error is not None  # there was more behind the end
        elif error is not None or self._idle_bytes > _MAX_HEAD_BYTES:
            self.abort(error or Broken("a line without an end"))
            return
        if self._is_heard():
            return
        if self._held_bytes > _MAX_HELD_BYTES and not self._is_paused and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()
        self._wake()

    def _is_heard(self) -> bool:
        """The listener has all that came, and wants the next piece too: nobody need wake."""
        if self.listener is None or self._waiter is None or self._waiter.done() or not self._pieces:
            return False
        self._held_bytes = 0
        return self.listener(self._pieces.pop()) and not self.is_complete

    def _fed(self, data: bytes) -> Exception | None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            return error
        return None

    def eof_received(self) -> None:
        self._ended(None)

    def connection_lost(self, error: Exception | None) -> None:
        self._ended(error)

    def _ended(self, error: Exception | None) -> None:
        if self.error is None:
            if error is None and self.has_head and not (self._has_length or self._is_chunked):
                self.is_complete = True  # as servers end what they do not know the length of
            self.error = error or Broken("closed")
        self._wake()

    # ── what the parser tells ────────────────────────────────────────────────────────────

    def on_message_begin(self) -> None:
        if self.is_complete:
            self._is_spent = True  # another answer behind the first: to nothing

    def on_header(self, name: bytes, value: bytes) -> None:
        self._idle_bytes = 0
        self._headers += 1
        size = len(name) + len(value)
        self._head_bytes += size
        if self._headers > _MAX_HEADERS or size > _MAX_HEADER_BYTES or self._head_bytes > _MAX_HEAD_BYTES:
            raise Broken("too many headers")
        if self.has_head or self.is_complete:
            return  # a trailer
        match name.lower():
            case b"content-length":
                self._has_length = True
            case b"transfer-encoding":
                if self._is_chunked or value.strip().lower() != b"chunked":
                    raise Broken("an encoding that was not asked for")
                self._is_chunked = True
            case b"content-encoding":
                self.is_encoded = self.is_encoded or value.strip().lower() not in (b"", b"identity")

    def on_headers_complete(self) -> None:
        self._idle_bytes = 0
        if self.is_complete:
            return
        version = self._parser.get_http_version()
        if version != "1.1" and (version != "1.0" or self._is_chunked):
            raise Broken("no HTTP/1.1")
        self.status = self._parser.get_status_code()
        if 100 <= self.status < 200:
            self._interim += 1
            if self._interim > _MAX_INTERIM or self.status == 101:
                raise Broken("an answer that never comes")
        else:
            self.has_head = True

    def on_chunk_header(self) -> None:
        self._idle_bytes = 0

    def on_body(self, data: bytes) -> None:
        self._idle_bytes = 0
        if not self.is_complete:
            self._pieces.append(data)
            self._held_bytes += len(data)

    def on_message_complete(self) -> None:
        self._idle_bytes = 0
        if not self.has_head:
            self._forget_head()  # an interim answer; the one that was asked for is still to come
        elif not self.is_complete:
            self.is_complete = True
            self._is_spent = self._is_spent or not self._parser.should_keep_alive()
