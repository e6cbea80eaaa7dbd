"""One request and its answer, as the app sees them."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Final, Protocol

from gateway.server.asgi import Message, Scope
from gateway.server.response import (
    CONTINUE,
    FAILED,
    LAST_CHUNK,
    RETRY_AFTER_S,
    SHUTTING_DOWN,
    AnswerHead,
    BadAnswer,
    Failure,
    Framing,
    answer_head,
    chunk,
    error_answer,
)
from gateway.server.service import Service

# An event loop takes so much more from a writer before it holds it up.
AT_ONCE_BYTES: Final = 64 * 1024


class ClientLeft(ConnectionError):
    """Raised by `send` once the client is gone, as ASGI 2.4 wants it: an OSError."""


class Wire(Protocol):
    """What a request needs of its connection."""

    service: Service
    write_blocked: bool
    lost: bool

    def write(self, data: bytes) -> None: ...
    def resume_reading(self) -> None: ...
    def must_close(self) -> bool: ...
    def answered(self, *, close: bool, body_ended: bool) -> None: ...
    def truncate(self, *, visibly: bool) -> None: ...
    async def change(self) -> None: ...
    def changed(self) -> None: ...


class RequestCycle:
    """Runs the app for one request. The connection tells it `took`, `ended` and `leave`."""

    __slots__ = (
        "_answered",
        "_end_told",
        "_head",
        "_is_out",
        "_keep_alive",
        "_on_leave",
        "_on_the_wire",
        "_pieces",
        "_unsent_bytes",
        "_wants_continue",
        "begun",
        "body_ended",
        "buffered_bytes",
        "left",
        "scope",
        "task",
        "wire",
    )

    def __init__(self, wire: Wire, scope: Scope, *, keep_alive: bool, wants_continue: bool) -> None:
        self.wire = wire
        self.scope = scope
        self.begun = False
        self.task: asyncio.Task[None] | None = None  # once it was its turn
        self.left = False
        self.buffered_bytes = 0
        self.body_ended = False
        self._keep_alive = keep_alive
        self._pieces: list[bytes] = []
        self._end_told = False
        self._wants_continue = wants_continue
        self._head: AnswerHead | None = None
        self._on_the_wire = False
        self._answered = False  # all of it is written
        self._is_out = False  # and the client has read on, so that nothing more is waited for
        self._unsent_bytes = 0  # of the length that the app declared
        self._on_leave: Callable[[], None] | None = None
        scope["extensions"]["gateway.on_leave"] = self.tell_leaving
        scope["extensions"]["gateway.rest_of_body"] = self.rest_of_body

    @property
    def answer_begun(self) -> bool:
        return self._on_the_wire

    # ── told by the connection ──

    def start(self) -> None:
        """Have the app called, when it is this request's turn; also if the client leaves meanwhile."""
        self.begun = True
        service = self.wire.service
        service.begin(self)
        service.starts.add(self)

    def call_off(self) -> None:
        """The app is not to hear of it. Only before its turn."""
        if self.begun:
            service = self.wire.service
            service.starts.withdraw(self)
            service.end(self)

    def run(self) -> None:
        """Call the app. What it did not do at once goes on in a task of its own."""
        service = self.wire.service
        try:
            answering = service.app(self.scope, self.receive, self.send)
        except Exception as error:  # noqa: BLE001 - told in the task, as what is raised later
            answering = _raising(error)
        if answering is service.done and self._answered:
            self._end()
        else:
            self.task = service.loop.create_task(self._run(answering))

    def took(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self.buffered_bytes += len(piece)
        self.wire.changed()

    def ended(self) -> None:
        self.body_ended = True
        self.wire.changed()

    def refused(self, status: int) -> str:
        """Its body broke, and the connection will answer `status` in the app's stead; the id for that."""
        self.scope["extensions"]["gateway.refused_status"] = status
        self._tell_end(is_at_once=True)
        return self._request_id()

    def leave(self) -> None:
        """The client is gone, or nothing it sends can be trusted any more."""
        self.left = True
        self._pieces.clear()
        self.wire.changed()
        if self._on_leave is not None:
            self._on_leave()

    # ── called by the app ──

    async def receive(self) -> Message:
        """The body in pieces as large as they came; then, when the client leaves, `http.disconnect`.

        Also once the answer is out; not while the client is still reading it.
        """
        if self._wants_continue and not self._on_the_wire:
            self._tell_to_continue()
        while not (self.left or self._is_out or self.wire.lost):
            if self._pieces or (self.body_ended and not self._end_told):
                return {"type": "http.request", "body": self._taken(), "more_body": not self.body_ended}
            await self.wire.change()
        return {"type": "http.disconnect"}

    def send(self, message: Message) -> Awaitable[None]:
        """Write at once; what is returned waits while the client has too much unread.

        Mostly there is nothing to wait for: then it is a future that is done, the same for all, so that a
        piece of a stream needs no coroutine. Raises ClientLeft when nobody listens any more, BadAnswer for
        what must not be sent.
        """
        if self.left:
            raise ClientLeft("the client closed the connection")
        kind = message["type"]
        if kind == "http.response.body":
            self._send_body(message.get("body", b""), message.get("more_body", False))
            if self.wire.write_blocked:
                return _ReadByClient(self)
            self._note_out()
        elif kind == "http.response.start":
            self._hold_head(message)
        else:
            raise BadAnswer(f"unexpected message {kind!r}")
        return self.wire.service.done

    def rest_of_body(self) -> bytes | None:
        """What `receive` would bring of the body, where all of it has come; else None: `receive` says why.

        As good as asking it until there is no more, without anything to wait for.
        """
        if not self.body_ended or self._end_told or self.left or self.wire.lost:
            return None
        return self._taken()

    def tell_leaving(self, on_leave: Callable[[], None] | None) -> None:
        """Call this when the client leaves, also when it has left already; None: no more.

        As good as a task that waits for `http.disconnect`, without the task.
        """
        self._on_leave = on_leave
        if on_leave is not None and (self.left or self.wire.lost):
            on_leave()

    # ── inside ──

    async def _run(self, answering: Awaitable[None]) -> None:
        try:
            await answering
            if not self._answered and not self.left:
                raise BadAnswer("the app returned before its answer was complete")
        except ClientLeft:
            pass
        except asyncio.CancelledError:
            # The drain is over. An app that wants to say more has said it before it lets this pass.
            self._fail(SHUTTING_DOWN, retry_after_s=secrets.choice(RETRY_AFTER_S))
            raise
        except Exception as error:  # noqa: BLE001 - the app is foreign: whatever it raises is its failure
            try:
                self.wire.service.on_error(error)
            finally:
                self._fail(FAILED)
        finally:
            self._end()

    def _end(self) -> None:
        # By it the request knows itself, and would wait for the garbage collector.
        extensions = self.scope["extensions"]
        extensions.pop("gateway.on_leave", None)
        extensions.pop("gateway.rest_of_body", None)
        self.wire.service.end(self)

    def _request_id(self) -> str:
        """The id that the app has given the request, so that its row is found by our answer."""
        given: str | None = self.scope["extensions"].get("gateway.request_id")
        return given or self.wire.service.new_id()

    def _tell_end(self, *, is_at_once: bool) -> None:
        """Call what the app has left to be called before the last bytes of an answer are written.

        `is_at_once`: the client need not read anything before they are out, so `send` won't find it gone.
        """
        before_end: Callable[[bool], None] | None = self.scope["extensions"].get("gateway.before_end")
        if before_end is not None:
            before_end(is_at_once)

    def _tell_to_continue(self) -> None:
        self._wants_continue = False
        if not (self.left or self._answered or self.body_ended or self._pieces):
            self.wire.write(CONTINUE)

    def _taken(self) -> bytes:
        """The body so far, as far as it was not taken yet."""
        pieces = self._pieces
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self.buffered_bytes = 0
        self._end_told = self.body_ended
        self.wire.resume_reading()
        return body

    def _hold_head(self, message: Message) -> None:
        """The head waits for the first piece of body, so that both go out in one write."""
        if self._head is not None:
            raise BadAnswer("the answer has begun already")
        self._head = answer_head(
            message["status"],
            message.get("headers", ()),
            method=self.scope["method"],
            version=self.scope["http_version"],
            close=self._must_close(),
        )
        self._unsent_bytes = self._head.length

    def _must_close(self) -> bool:
        """A body that has not come in full would be taken for the next request."""
        return not self._keep_alive or not self.body_ended or self.wire.must_close()

    def _send_body(self, piece: bytes, more: bool) -> None:
        head = self._head
        if head is None or self._answered:
            raise BadAnswer("a body needs a head before it and nothing after its end")
        data = self._framed(head, piece, more)
        if not more:
            self._tell_end(is_at_once=len(data) <= AT_ONCE_BYTES and not self.wire.write_blocked)
        if not self._on_the_wire:
            self._on_the_wire = True
            data = head.data + data
        if data:
            self.wire.write(data)
        if not more:
            self._answered = True
            self.wire.answered(close=head.close, body_ended=self.body_ended)

    def _framed(self, head: AnswerHead, piece: bytes, more: bool) -> bytes:
        framing = head.framing
        if framing is Framing.CHUNKED:
            return chunk(piece) if more else chunk(piece) + LAST_CHUNK
        if framing is Framing.NONE:
            return b""
        if framing is Framing.LENGTH:
            self._unsent_bytes -= len(piece)
            if self._unsent_bytes < 0 or (self._unsent_bytes and not more):
                raise BadAnswer("the body is not as long as its content-length")
        return piece

    async def read_by_client(self) -> None:
        """Return once the client has read enough of what was written. Raises ClientLeft."""
        while self.wire.write_blocked:
            await self.wire.change()
            if self.left or self.wire.lost:
                raise ClientLeft("the client closed the connection or stopped reading")
        self._note_out()

    def _note_out(self) -> None:
        """What was written is with the client, save a little: the whole answer, where that was its end."""
        if self._answered:
            self._is_out = True
            self.wire.changed()

    def _fail(self, failure: Failure, retry_after_s: int | None = None) -> None:
        """Say so if nothing has been said yet; else never let the answer look complete."""
        if self.left or self._answered:
            return
        head = self._head
        if head is not None and self._on_the_wire:
            self.left = True
            self.wire.truncate(visibly=head.framing is not Framing.UNTIL_CLOSE)
            return
        self._answered = True
        self.wire.write(
            error_answer(
                failure.status,
                failure.sentence,
                kind="server_error",
                code=failure.code,
                request_id=self._request_id(),
                with_body=self.scope["method"] != "HEAD",
                retry_after_s=retry_after_s,
            )
        )
        self.wire.answered(close=True, body_ended=self.body_ended)


async def _raising(error: Exception) -> None:
    raise error


class _ReadByClient:
    """What `send` gives back where something is to be waited for; nothing waits before it is awaited."""

    __slots__ = ("_cycle",)

    def __init__(self, cycle: RequestCycle) -> None:
        self._cycle = cycle

    def __await__(self) -> Generator[Any]:
        return self._cycle.read_by_client().__await__()
