"""Intake: the body is read for known callers only, bounded in size and time, parsed once, strictly."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, ParamSpec, TypeVar

from attrs import frozen
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.errors import (
    AuditUnavailable,
    BodyTooLarge,
    BodyTooSlow,
    ClientLeft,
    Draining,
    MalformedRequest,
    Overloaded,
    UnsupportedMediaType,
)
from gateway.formats.strict_json import is_light, parse_object, proven, read_at_once
from gateway.middleware.context import exchange_of
from gateway.model import Exchange, JsonObject, RequestHead
from gateway.ports import Lifecycle, Sink

# Beyond it, the event loop's other requests notice what is done value by value. Long texts are the work of a
# few calls of C, which hold the interpreter in whatever thread they are made.
_LARGE_BYTES: Final = 256 * 1024

_P = ParamSpec("_P")
_T = TypeVar("_T")

# `curl -d` sends the form type unless told otherwise, and Ollama's own documentation relies on it. Keys
# travel in a header that no web page can set unasked, so a lenient type opens no door.
# LiteLLM's asynchronous client sends JSON to Ollama as a stream of octets.
_TYPES: Final = frozenset(
    {"", "application/json", "application/octet-stream", "application/x-www-form-urlencoded", "text/plain"}
)


@frozen
class BodyLimits:
    """Bounds of request bodies: sizes in bytes, times in seconds. See GATEWAY_BODY_* in README."""

    one_bytes: int
    all_bytes: int
    grace_s: float
    min_bytes_per_s: int
    deadline_s: float

    def wait_s(self, received_bytes: int) -> float:
        """How long after its start a body may still be incomplete with so many bytes received."""
        return min(self.grace_s + received_bytes / self.min_bytes_per_s, self.deadline_s)


class Intake:
    """Read, bound and parse the body of inference requests; refuse new work that could not be finished."""

    def __init__(
        self, app: ASGIApp, *, limits: BodyLimits, lifecycle: Lifecycle, sinks: tuple[Sink, ...]
    ) -> None:
        self.app = app
        self.limits = limits
        self.lifecycle = lifecycle
        self.sinks = sinks
        self.held_bytes = 0
        self._turn = asyncio.Lock()

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        operation = exchange_of(scope).operation
        reads = operation is not None and operation.reads_body
        return (self._with_body if reads else self.app)(scope, receive, send)

    async def _with_body(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = exchange_of(scope)
        self._refuse_new_work()
        declared = _declared_bytes(exchange.head, self.limits.one_bytes)
        if self.held_bytes + declared > self.limits.all_bytes:
            raise _too_many_bodies()
        try:
            data = self._at_hand(exchange, scope)
            if data is None:
                data = await self._read(exchange, receive)
            if is_large(len(data)):
                await self._next_turn()
                exchange.body, exchange.is_heavy = await _parsed(data)
            else:
                exchange.body = parse_object(data)
            # The answer may take minutes.
            del data
            await self.app(scope, receive, send)
        finally:
            self.held_bytes -= exchange.bytes_in

    async def _next_turn(self) -> None:
        """Wait for a turn of the event loop in which no other large body is read: others go between."""
        await self._turn.acquire()
        asyncio.get_running_loop().call_soon(self._turn.release)

    def _refuse_new_work(self) -> None:
        if self.lifecycle.draining:
            raise Draining
        for sink in self.sinks:
            if sink.is_full:
                raise AuditUnavailable

    def _at_hand(self, exchange: Exchange, scope: Scope) -> bytes | None:
        """The body, where the server has all of it already, as mostly: then there is no time to bound."""
        rest_of_body: Callable[[], bytes | None] | None = scope.get("extensions", {}).get(
            "gateway.rest_of_body"
        )
        data = None if rest_of_body is None else rest_of_body()
        if data is not None:
            self._hold(exchange, len(data))
        return data

    async def _read(self, exchange: Exchange, receive: Receive) -> bytes:
        started = asyncio.get_running_loop().time()
        pieces: list[bytes] = []
        try:
            async with asyncio.timeout_at(started + self.limits.wait_s(0)) as patience:
                while await self._took_piece(exchange, receive, pieces):
                    patience.reschedule(started + self.limits.wait_s(exchange.bytes_in))
        except TimeoutError:
            raise BodyTooSlow from None
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def _took_piece(self, exchange: Exchange, receive: Receive, pieces: list[bytes]) -> bool:
        """Whether there is more to come. Raises ClientLeft."""
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeft
        piece: bytes = message.get("body", b"")
        pieces.append(piece)
        self._hold(exchange, len(piece))
        return bool(message.get("more_body", False))

    def _hold(self, exchange: Exchange, size: int) -> None:
        exchange.bytes_in += size
        self.held_bytes += size
        if exchange.bytes_in > self.limits.one_bytes:
            raise BodyTooLarge(self.limits.one_bytes)
        if self.held_bytes > self.limits.all_bytes:
            raise _too_many_bodies()


async def _parsed(data: bytes) -> tuple[JsonObject, bool]:
    """What a large body holds, and whether that is heavy; in a thread, as far as that takes long."""
    value = read_at_once(data)
    if is_light(value):
        return value, False
    value = await asyncio.to_thread(proven, value, data)
    return value, not is_light(value)


def is_large(size: int) -> bool:
    """Whether a body of so many bytes may be heavy."""
    return size > _LARGE_BYTES


async def worked_on(is_heavy: bool, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """The result of pure work on a body: of a heavy one in a thread, so that others get turns.

    20 MB of tool calls take seconds to read and as long to write.
    """
    if is_heavy:
        return await asyncio.to_thread(work, *args, **kwargs)
    return work(*args, **kwargs)


def _declared_bytes(head: RequestHead, limit: int) -> int:
    """The declared length, 0 if there is none. Refuses by the head alone what need not be read."""
    if head.fields.get(b"content-encoding", b"identity") != b"identity":
        raise UnsupportedMediaType
    content_type = head.text(b"content-type") or ""
    if content_type not in _TYPES and not _is_read(content_type):
        raise UnsupportedMediaType
    length = head.fields.get(b"content-length") or b"0"
    if not length.isdigit():  # of bytes: the ASCII ones alone
        raise MalformedRequest("Content-Length is not a number.")
    declared = int(length)
    if declared > limit:
        raise BodyTooLarge(limit)
    return declared


def _is_read(content_type: str) -> bool:
    """Whether it says JSON in UTF-8, or what senders of that call it, with whatever parameters."""
    media_type, _, parameters = content_type.partition(";")
    media_type = media_type.strip().lower()
    if media_type not in _TYPES and not media_type.endswith("+json"):
        return False
    charset = parameters.lower().replace(" ", "").replace('"', "")
    return "charset=" not in charset or "charset=utf-8" in charset


def _too_many_bodies() -> Overloaded:
    return Overloaded("The gateway holds as many request bodies as it can at the moment; try again shortly.")
