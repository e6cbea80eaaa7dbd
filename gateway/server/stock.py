"""Connections on which hypercorn speaks HTTP itself, for who prefers that to ours (docs/OPERATIONS.md).

Start, drain and all that is counted stay as they are. What only our connections can tell the app
(`gateway.on_leave`, `gateway.before_end`, `gateway.rest_of_body`) is missing: it then asks for each piece
of a body and for `http.disconnect`, and what it would have done before the last bytes of an answer it does
after them.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from functools import partial
from math import inf
from typing import Any, cast

from attrs import Factory, define
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.config import Config
from hypercorn.utils import wrap_app

from gateway.server.asgi import Message, Receive, Scope, Send
from gateway.server.response import FAILED, RETRY_AFTER_S, SHUTTING_DOWN, Failure, error_body
from gateway.server.service import Service


def stock_connections(service: Service, config: Config) -> Callable[[], asyncio.BaseProtocol]:
    """What makes the protocol of a connection that was accepted."""
    serve = partial(_serve, service, config)

    def protocol() -> asyncio.BaseProtocol:
        return asyncio.StreamReaderProtocol(asyncio.StreamReader(loop=service.loop), serve, loop=service.loop)

    return protocol


@define(eq=False)
class _StockConnection:
    """One of hypercorn's, which keeps its own deadlines; `context` is of it alone, to end it alone."""

    service: Service
    writer: asyncio.StreamWriter
    context: WorkerContext = Factory(lambda: WorkerContext(None))
    deadline: float = inf
    stall_deadline: float = inf
    _closing: asyncio.Task[None] | None = None

    def expire(self, now: float) -> None: ...

    def close_if_idle(self) -> None:
        """Left open: hypercorn may have read a request already that the app was not called for yet."""

    def close(self) -> None:
        """Once what is written has gone out. Hypercorn's own timer would go on for seconds, unless told."""
        self._closing = self.service.loop.create_task(self.context.terminated.set())
        self.writer.close()

    def abort(self) -> None:
        self.writer.transport.abort()

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the app, and count the request in for so long."""
        if scope["type"] != "http":
            await self.service.app(scope, receive, send)
            return
        request = _Request(self.service, scope, send, asyncio.current_task())
        self.service.begin(request)
        try:
            await request.run(receive)
        finally:
            self.service.end(request)
            if self.service.lifecycle.draining:
                self.close()


@define(eq=False)
class _Request:
    """A request that the app is at work on."""

    service: Service
    scope: Scope
    send: Send
    task: asyncio.Task[None] | None
    has_begun: bool = False

    async def run(self, receive: Receive) -> None:
        try:
            await self.service.app(self.scope, receive, self._told)
        except asyncio.CancelledError:
            # The drain is over. An app that wants to say more has said it before it lets this pass.
            await self._fail(SHUTTING_DOWN, (b"retry-after", b"%d" % secrets.choice(RETRY_AFTER_S)))
            raise
        except Exception as error:  # noqa: BLE001 - the app is foreign: whatever it raises is its failure
            self.service.on_error(error)
            await self._fail(FAILED)

    async def _told(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.has_begun = True
            if self.service.lifecycle.draining:
                message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
        await self.send(message)

    async def _fail(self, failure: Failure, *headers: tuple[bytes, bytes]) -> None:
        """Say so if nothing has been said yet; else hypercorn cuts the answer short."""
        if self.has_begun:
            return
        body = error_body(failure.sentence, "server_error", failure.code)
        request_id: str = self.scope["extensions"].get("gateway.request_id") or self.service.new_id()
        fields = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"x-request-id", request_id.encode("ascii")),
            (b"connection", b"close"),
            *headers,
        ]
        await self.send({"type": "http.response.start", "status": failure.status, "headers": fields})
        await self.send({"type": "http.response.body", "body": body})


async def _serve(
    service: Service,
    config: Config,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    connection = _StockConnection(service, writer)
    if not service.admit(connection):
        connection.abort()
        return
    app = wrap_app(cast(Any, connection.serve), config.wsgi_max_body_size, "asgi")
    try:
        await TCPServer(app, service.loop, config, connection.context, dict(service.state), reader, writer)
    except Exception as error:  # noqa: BLE001 - what hypercorn did not expect ends one connection
        service.on_error(error)
    finally:
        service.forget(connection)
