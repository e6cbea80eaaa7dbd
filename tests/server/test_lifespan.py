"""Starting and stopping the app, and the addresses that it is served on."""

from __future__ import annotations

import asyncio
import gc
import inspect
import socket
import warnings
from typing import Any

import pytest
from hypercorn.asyncio.lifespan import Lifespan
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.config import Config, Sockets
from hypercorn.utils import LifespanFailureError, LifespanTimeoutError, wrap_app

from gateway.server.lifecycle import Lifecycle, Shutdown
from gateway.server.lifespan import StartFailed, StopFailed
from gateway.server.listening import CannotListen
from gateway.server.worker import serve
from tests.server.live import reply, with_lifespan

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


async def ok(scope, receive, send):
    await reply(send)


def recording(events, startup=None, shutdown=None):
    """An app that notes its stages and may fail at them."""

    async def app(scope, receive, send):
        if scope["type"] == "http":
            return await reply(send)
        for stage, failure in (("startup", startup), ("shutdown", shutdown)):
            await receive()
            events.append(stage)
            if failure is not None:
                raise failure
            await send({"type": f"lifespan.{stage}.complete"})
        return None

    return app


def reporting(stage):
    """An app that reports a failure as Starlette does: the traceback in the message."""

    async def app(scope, receive, send):
        await receive()
        if stage == "shutdown":
            await send({"type": "lifespan.startup.complete"})
            await receive()
        try:
            raise LookupError("secret")
        except LookupError:
            await send({"type": f"lifespan.{stage}.failed", "message": "Traceback: secret"})
            raise

    return app


def test_an_app_is_started_and_stopped_once(starting):
    events: list[str] = []
    server = starting(recording(events))
    server.connect().send(GET).answer()
    assert events == ["startup"]
    server.stop()

    assert events == ["startup", "shutdown"]
    assert server.failure is None


@pytest.mark.parametrize(
    "app", [recording([], startup=LookupError("secret")), reporting("startup")], ids=["raises", "reports"]
)
def test_an_app_that_does_not_start_is_not_served(starting, app):
    """Hypercorn would go on without a lifespan; and no text of ours tells what a driver said."""
    server = starting(app)

    assert server.addresses == []
    assert isinstance(server.failure, StartFailed)
    assert str(server.failure) == "the app did not start (LookupError)"
    assert repr(server.failure.__cause__) == "LookupError('secret')"


def test_an_app_without_a_lifespan_is_not_served(starting):
    async def app(scope, receive, send):
        return None

    assert str(starting(app).failure) == "the app did not start"


def test_an_app_that_never_starts_is_given_up(starting):
    async def app(scope, receive, send):
        await receive()
        await receive()

    server = starting(app, config={"startup_timeout": 0.1})

    assert str(server.failure) == "the app did not start in time"


@pytest.mark.parametrize(
    "app", [recording([], shutdown=LookupError("secret")), reporting("shutdown")], ids=["raises", "reports"]
)
def test_an_app_that_does_not_stop_cleanly_is_told(starting, app):
    server = starting(app)
    server.stop()

    assert isinstance(server.failure, StopFailed)
    assert str(server.failure) == "the app did not stop cleanly (LookupError)"


def test_a_shutdown_during_the_start_cancels_it(loop_factory):
    """A start that waits for its database must not outlast the patience of the orchestrator."""
    shutdown, events = Shutdown(), []

    async def app(scope, receive, send):
        await receive()
        shutdown.ask()
        try:
            await asyncio.sleep(60)
        finally:
            events.append("cleaned up")

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(serve(app, Config(), lifecycle=Lifecycle(), new_id=str, on_error=print, shutdown=shutdown))

    assert events == ["cleaned up"]


# ── listening ──


def failure_to_listen(server) -> str:
    """Its text. Hypercorn leaves the socket that could not be bound to the collector, which warns."""
    assert isinstance(server.failure, CannotListen)
    text, server.failure = str(server.failure), None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
    return text


def test_a_taken_address_is_named_after_the_app_has_stopped_again(starting):
    events: list[str] = []
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        server = starting(recording(events), config={"bind": ["127.0.0.1:0", address]})

    assert failure_to_listen(server) == f"{address}: address already in use"
    assert events == ["startup", "shutdown"]


@pytest.mark.parametrize(
    ("bind", "reason"),
    [
        ("no.such.host.invalid:80", "no.such.host.invalid:80: "),
        ("127.0.0.1:99999", "127.0.0.1:99999: bind(): port must be 0-65535."),
        ("192.0.2.1:80", "192.0.2.1:80: cannot assign requested address"),
    ],
)
def test_an_impossible_address_is_named(starting, bind, reason):
    server = starting(recording([]), config={"bind": [bind]})

    assert failure_to_listen(server).startswith(reason)


def test_several_addresses_are_served(starting, tmp_path):
    path = tmp_path / "socket"
    server = starting(with_lifespan(ok), config={"bind": ["127.0.0.1:0", f"unix:{path}", "127.0.0.1:0"]})

    assert [host for host, _ in server.addresses] == ["127.0.0.1", str(path), "127.0.0.1"]
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        client.sendall(GET)
        assert client.recv(1000).startswith(b"HTTP/1.1 200")


# ── hypercorn ──


def test_hypercorn_still_has_what_we_build_on():
    """Its private workings are not ours to follow, but these places are."""
    parameters: dict[Any, list[str]] = {
        Lifespan: ["app", "config", "loop", "lifespan_state"],
        wrap_app: ["app", "wsgi_max_body_size", "mode"],
        Config.create_sockets: ["self"],
        Config.create_ssl_context: ["self"],
        Lifespan.handle_lifespan: ["self"],
        Lifespan.wait_for_startup: ["self"],
        Lifespan.wait_for_shutdown: ["self"],
        # By these, GATEWAY_SERVER=hypercorn.
        TCPServer: ["app", "loop", "config", "context", "state", "reader", "writer"],
        TCPServer.__await__: ["self"],
        WorkerContext: ["max_requests"],
    }

    assert {it: list(inspect.signature(it).parameters) for it in parameters} == parameters
    assert set(Sockets.__annotations__) == {"secure_sockets", "insecure_sockets", "quic_sockets"}
    assert issubclass(LifespanFailureError, Exception)
    assert issubclass(LifespanTimeoutError, Exception)
    for name in ("backlog", "root_path", "ssl_handshake_timeout", "startup_timeout", "wsgi_max_body_size"):
        assert hasattr(Config(), name)
