"""Audit: opens the Exchange, and records every request whose headers were read, however it ends."""

from collections.abc import Awaitable, Generator, Sequence
from functools import partial
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.errors import ClientLeft, MalformedRequest
from gateway.middleware.context import is_done, open_exchange, raising
from gateway.model import Exchange, Network, Outcome, Route, Surface
from gateway.ports import Clock, NewId, Sink
from gateway.rules.audit import row_of
from gateway.rules.endpoints import route_of, surface_of
from gateway.rules.request_head import head_of, peer_of, refusal_of


class Audit:
    """Classify the request once, watch what is answered, and hand one row to each sink.

    Before the last byte goes out, so that nobody has an answer of which a kill leaves no row. Where an
    admitted request has a slow reader, once it is known whether that stayed: its intent stands in until then.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        clock: Clock,
        new_id: NewId,
        sinks: Sequence[Sink],
        trusted_proxies: tuple[Network, ...] = (),
        allowed_hosts: frozenset[str] = frozenset(),
    ) -> None:
        self.app = app
        self.clock = clock
        self.new_id = new_id
        self.sinks = sinks
        self.trusted_proxies = trusted_proxies
        self.allowed_hosts = allowed_hosts

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        exchange = self._opened(scope)
        open_exchange(scope, exchange)
        # The server answers by this id when it has to speak for us, and calls before an answer's last bytes.
        extensions: dict[str, Any] = scope.setdefault("extensions", {})
        extensions["gateway.request_id"] = exchange.request_id
        extensions["gateway.before_end"] = partial(self._before_end, exchange, extensions)
        try:
            below = self.app(scope, receive, _Watched(send, exchange))
        except Exception as error:  # noqa: BLE001 - told below, as what is raised later
            below = raising(error)
        if not is_done(below):
            return self._watched(below, exchange, extensions)
        # Refused, and told so: nobody needs a task for that.
        self._end(exchange, extensions)
        _forget_frames(exchange.error)
        return below

    async def _watched(self, below: Awaitable[None], exchange: Exchange, extensions: dict[str, Any]) -> None:
        try:
            await below
        except ClientLeft:
            # Who leaves at the frame that tells of a failure has seen it fail.
            exchange.outcome = exchange.outcome or Outcome.CLIENT_LEFT
        finally:
            self._end(exchange, extensions)
        _forget_frames(exchange.error)

    def _end(self, exchange: Exchange, extensions: dict[str, Any]) -> None:
        """Awaits nothing: a cancellation must not lose the row."""
        if not exchange.is_recorded:
            self._record(exchange, extensions)
        # What is told of the end knows the exchange, and so the body: both go with their request.
        # They must not gather until the collector comes.
        del extensions["gateway.before_end"]

    def _before_end(self, exchange: Exchange, extensions: dict[str, Any], is_at_once: bool) -> None:
        if not exchange.is_recorded and (is_at_once or not exchange.is_admitted):
            self._record(exchange, extensions)

    def _record(self, exchange: Exchange, extensions: dict[str, Any]) -> None:
        """Once a request."""
        exchange.is_recorded = True
        if "gateway.refused_status" in extensions:
            _refused_by_the_server(exchange, extensions["gateway.refused_status"])
        row = row_of(exchange, self.clock.elapsed())
        for sink in self.sinks:
            sink.record(row)

    def _opened(self, scope: Scope) -> Exchange:
        path: bytes = scope["raw_path"]
        head = head_of(scope["headers"])
        route = route_of(scope["method"], path, scope["query_string"])
        if isinstance(route, Route):
            surface = route.surface
            route = refusal_of(head, scope["http_version"], self.allowed_hosts) or route
        else:
            surface = surface_of(path)
        connected = scope["client"][0] if scope["client"] else ""
        return Exchange(
            request_id=self.new_id(),
            received_at=self.clock.now(),
            started=self.clock.elapsed(),
            method=scope["method"],
            path=path.decode("latin-1"),
            peer=peer_of(connected, head.text(b"x-forwarded-for"), self.trusted_proxies),
            head=head,
            route=route,
            surface=surface,
            client_request_id=head.text(b"x-request-id"),
            user_agent=head.text(b"user-agent"),
        )


def _forget_frames(error: BaseException | None) -> None:
    """Of an error that was answered: its frames know the exchange, which knows it."""
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def _refused_by_the_server(exchange: Exchange, status: int) -> None:
    """The body broke under way, and the server has told the client, which to us looks like one that left."""
    exchange.status = status
    exchange.error = MalformedRequest("The request body broke.")
    exchange.outcome = Outcome.REFUSED


class _Watched:
    """The `send` of one request: notes status and bytes, adds the request id, raises ClientLeft."""

    __slots__ = ("exchange", "send")

    def __init__(self, send: Send, exchange: Exchange) -> None:
        self.send = send
        self.exchange = exchange

    def __call__(self, message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.body":
            self.exchange.bytes_out += len(message.get("body", b""))
        elif message["type"] == "http.response.start":
            self._begin(message)
        try:
            sent = self.send(message)
        except OSError:
            # ASGI 2.4: send raises OSError once the client is gone.
            raise ClientLeft from None
        return sent if is_done(sent) else _UnlessLeft(sent)

    def _begin(self, message: Message) -> None:
        self.exchange.status = message["status"]
        headers: list[Any] = message["headers"]
        request_id = self.exchange.request_id.encode("ascii")
        headers.append((b"x-request-id", request_id))
        if self.exchange.surface is Surface.ANTHROPIC:
            # Under this name Anthropic's clients look for it.
            headers.append((b"request-id", request_id))


class _UnlessLeft:
    """Awaits what a server's `send` gave back; of one that nobody awaits no coroutine is left."""

    __slots__ = ("sent",)

    def __init__(self, sent: Awaitable[None]) -> None:
        self.sent = sent

    def __await__(self) -> Generator[Any]:
        try:
            yield from self.sent.__await__()
        except OSError:
            raise ClientLeft from None
