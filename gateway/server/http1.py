"""One HTTP/1.1 connection: bytes in and out, deadlines, and who may speak when."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from enum import Enum, auto
from math import inf
from typing import cast

from gateway.server.cycle import RequestCycle
from gateway.server.head import SLOW_HEAD, Head, Malformed
from gateway.server.reader import RequestReader
from gateway.server.response import error_answer
from gateway.server.scope import Peers, peers_of, scope_of
from gateway.server.service import RefusedRequest, Service

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # struct linger: on, zero seconds


class Phase(Enum):
    """What the connection is doing; `deadline` belongs to it."""

    WAITING = auto()  # for the first byte of a request
    HEAD = auto()  # for the rest of its head
    BUSY = auto()  # the app has the request
    LINGERING = auto()  # all is said; discarding what still comes, so that no RST overtakes it
    CLOSING = auto()  # flushing
    CLOSED = auto()


class Http1Connection(asyncio.Protocol):
    """Reads one request at a time and never a second before the first is answered.

    Reading goes on while the app works, so that a client that leaves is noticed at once.
    """

    __slots__ = (
        "_began",
        "_cycle",
        "_discarded_bytes",
        "_peers",
        "_phase",
        "_reader",
        "_reading_paused",
        "_transport",
        "_unread_bytes",
        "_waiters",
        "deadline",
        "lost",
        "service",
        "stall_deadline",
        "write",
        "write_blocked",
    )

    def __init__(self, service: Service) -> None:
        self.service = service
        self.write: Callable[[bytes], None]
        self.write_blocked = False
        self.lost = False
        self.deadline = inf
        self.stall_deadline = inf
        self._reader = RequestReader(self)
        self._cycle: RequestCycle | None = None
        self._peers: Peers
        self._phase = Phase.CLOSED
        self._began = 0.0
        self._reading_paused = False
        self._waiters: list[asyncio.Future[None]] = []
        self._unread_bytes = 0
        self._discarded_bytes = 0

    # ── told by the transport ──

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.write = self._transport.write
        if not self.service.admit(self):
            self._transport.abort()
            return
        self._peers = peers_of(self._transport)
        self._enter(Phase.WAITING, self.service.bounds.head_s)

    def data_received(self, data: bytes) -> None:
        if self._phase is Phase.LINGERING or self._phase is Phase.CLOSING:
            self._discard(len(data))
            return
        if self._phase is Phase.WAITING:
            self._began = self.service.loop.time()
        flaw = self._reader.feed(data)
        if flaw is not None:
            self._refuse(flaw)
        elif self._phase is Phase.WAITING:
            self._enter(Phase.HEAD, self.service.bounds.head_s)
        elif self._cycle is not None and not self._cycle.begun:
            # Only now: what is wrong with the body in the same packet is found before the app runs.
            self._cycle.start()

    def eof_received(self) -> None:
        """A client that closes its half has left; returning None closes ours, after a flush."""
        self._lose_client()
        self._enter(Phase.CLOSING, inf)
        self._watch_stall()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._enter(Phase.CLOSED, inf)
        self.stall_deadline = inf
        self.write_blocked = False
        self.lost = True
        self._lose_client()
        self.changed()
        self._reader.close()
        self.service.forget(self)

    def pause_writing(self) -> None:
        self.write_blocked = True
        self._watch_stall()

    def resume_writing(self) -> None:
        self.write_blocked = False
        self.stall_deadline = inf
        self.changed()

    # ── told by the reader ──

    def head_arrived(self, head: Head) -> None:
        self._enter(Phase.BUSY, inf)
        modern = head.version == "1.1"
        self._cycle = RequestCycle(
            self,
            scope_of(head, self._peers, self.service),
            keep_alive=modern and head.keep_alive,
            wants_continue=modern and head.fields.get(b"expect", b"").lower() == b"100-continue",
        )

    def body_arrived(self, piece: bytes) -> None:
        cycle = self._cycle
        if cycle is None:
            return
        cycle.took(piece)
        if cycle.buffered_bytes > self.service.bounds.body_buffer_bytes and not self._reading_paused:
            self._reading_paused = True
            self._transport.pause_reading()

    def body_ended(self) -> None:
        if self._cycle is not None:
            self._cycle.ended()
            self.resume_reading()  # what follows is discarded, and an EOF has to be seen

    # ── asked by the request ──

    def resume_reading(self) -> None:
        if self._reading_paused and self._phase is not Phase.CLOSED:
            self._reading_paused = False
            self._transport.resume_reading()

    def must_close(self) -> bool:
        """Whether the answer that begins now is the last one here."""
        return self._reader.surplus or self.service.lifecycle.draining

    def answered(self, *, close: bool, body_ended: bool) -> None:
        """The answer is complete: close, or wait for the next request."""
        self._cycle = None
        self.changed()
        if not body_ended or self._reader.surplus:
            self._linger()
        elif close or self.service.lifecycle.draining:
            self.close()
        else:
            self._reader.next_request()
            self._enter(Phase.WAITING, self.service.bounds.idle_s)
            self.resume_reading()

    def truncate(self, *, visibly: bool) -> None:
        """End an answer that is not complete; `visibly` when its framing shows that alone."""
        self._cycle = None
        if visibly:
            self.close()
        else:
            self.abort()

    async def change(self) -> None:
        """Wait until something has changed for the request; look again what."""
        waiter = self.service.loop.create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def changed(self) -> None:
        if self._waiters:
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    # ── asked by the server ──

    def expire(self, now: float) -> None:
        """A deadline has passed."""
        if self.stall_deadline <= now:
            self._abort_unless_moving()
        elif self._phase is Phase.HEAD:
            self._say(_answer_to(SLOW_HEAD, "request_timeout", self.service.new_id()))
        else:
            self.close()

    def close_if_idle(self) -> None:
        if self._phase is Phase.WAITING:
            self.close()

    def close(self) -> None:
        """Close after what has been written is out; a client that does not read it is cut."""
        if self._phase in (Phase.CLOSING, Phase.CLOSED):
            return
        self._lose_client()
        self._enter(Phase.CLOSING, inf)
        self._watch_stall()
        self._transport.close()

    def abort(self) -> None:
        """Reset the connection: the client sees a failure, and the kernel keeps nothing for it."""
        sock = self._transport.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX and self._phase is not Phase.CLOSED:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._lose_client()
        self._transport.abort()

    # ── inside ──

    def _enter(self, phase: Phase, within_s: float) -> None:
        self._phase = phase
        self.deadline = inf if within_s is inf else self.service.loop.time() + within_s

    def _lose_client(self) -> None:
        cycle, self._cycle = self._cycle, None
        if cycle is not None:
            cycle.leave()

    def _refuse(self, flaw: Malformed) -> None:
        """Answer what cannot be read and let nothing that follows be executed."""
        cycle = self._cycle
        self._lose_client()
        if cycle is None:
            self._refuse_unheard(flaw, self._reader.start_line())
        elif cycle.task is None:
            cycle.call_off()
            self._refuse_unheard(flaw, (cycle.scope["method"], cycle.scope["raw_path"]))
        elif cycle.answer_begun:
            self.close()
        else:
            self._say(_answer_to(flaw, "malformed_request", cycle.refused(flaw.status)))

    def _refuse_unheard(self, flaw: Malformed, start_line: tuple[str, bytes] | None) -> None:
        """Answer a request that the app knows nothing of, once who else wants to know was told."""
        request_id = self.service.new_id()
        answer = _answer_to(flaw, "malformed_request", request_id)
        if start_line is not None:  # else it is noise, such as TLS on the plain port
            self._tell_refused(flaw, start_line, request_id, bytes_out=len(answer.partition(b"\r\n\r\n")[2]))
        self._say(answer)

    def _tell_refused(
        self, flaw: Malformed, start_line: tuple[str, bytes], request_id: str, bytes_out: int
    ) -> None:
        peer = self._peers.client
        self.service.tell_refused(
            RefusedRequest(
                request_id=request_id,
                method=start_line[0],
                target=start_line[1],
                peer=peer[0] if peer else "",
                status=flaw.status,
                duration_s=self.service.loop.time() - self._began,
                bytes_out=bytes_out,
            )
        )

    def _say(self, answer: bytes) -> None:
        """Write the last answer here."""
        self.write(answer)
        self._linger()

    def _linger(self) -> None:
        """Half-close, then read on for a while.

        Closing a socket with unread input sends an RST, and that may destroy the answer before
        the client has read it (RFC 9112 section 9.6).
        """
        self._enter(Phase.LINGERING, self.service.bounds.linger_s)
        self.resume_reading()
        if self._transport.can_write_eof():
            self._transport.write_eof()

    def _discard(self, count: int) -> None:
        self._discarded_bytes += count
        if self._discarded_bytes > self.service.bounds.linger_bytes:
            self.close()

    def _watch_stall(self) -> None:
        self._unread_bytes = self._transport.get_write_buffer_size()
        self.stall_deadline = self.service.loop.time() + self.service.bounds.write_stall_s

    def _abort_unless_moving(self) -> None:
        if self._transport.get_write_buffer_size() < self._unread_bytes:
            self._watch_stall()
        else:
            self.abort()


def _answer_to(flaw: Malformed, code: str, request_id: str) -> bytes:
    return error_answer(
        flaw.status, flaw.sentence, kind="invalid_request_error", code=code, request_id=request_id
    )
