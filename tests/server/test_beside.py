"""A second app on an address of its own, for as long as the process lives."""

from __future__ import annotations

import asyncio
import socket
import threading

from hypercorn.config import Config

from gateway.server.worker import Beside
from tests.server.live import Client, happens, reply, with_lifespan
from tests.server.test_lifespan import failure_to_listen

GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"


def beside(bind: str = "127.0.0.1:0"):
    """The second app, and the ports that it listens on."""
    ports: list[int] = []

    async def app(scope, receive, send):
        await reply(send, b"beside")

    config = Config()
    config.bind = [bind]
    return Beside(app, config, lambda addresses: ports.extend(port for _, port in addresses)), ports


def asked(port: int, request: bytes = GET) -> tuple[int, bytes]:
    """Status and body of what is answered there."""
    client = Client(port).send(request)
    try:
        status, _, body = client.answer()
    finally:
        client.leave()
    return status, body


async def first(scope, receive, send):
    await reply(send, b"first")


def test_each_has_its_address(serving):
    second, ports = beside()
    server = serving(first, beside=second)

    assert server.connect().send(GET).answer()[2] == b"first"
    assert asked(ports[0]) == (200, b"beside")


def test_it_is_as_strict(serving):
    """The same HTTP/1.1."""
    second, ports = beside()
    serving(first, beside=second)

    status, _ = asked(ports[0], b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n")

    assert status == 400


def test_it_is_there_while_the_first_drains_and_gone_after(serving):
    """Whoever looks after the process is not left without an answer when it matters."""
    begun, go_on = threading.Event(), threading.Event()

    async def slow(scope, receive, send):
        begun.set()
        await asyncio.to_thread(go_on.wait, 30)
        await reply(send, b"late")

    second, ports = beside()
    server = serving(slow, beside=second)
    client = server.connect().send(GET)
    assert happens(begun)
    server.ask_to_stop()

    assert asked(ports[0]) == (200, b"beside")
    go_on.set()
    assert client.answer()[2] == b"late"
    assert server.ended()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", ports[0])) != 0


def test_an_address_that_is_taken_ends_the_start_before_it_began(starting):
    """Nothing was started that would have to be stopped again."""
    scopes: list[str] = []

    async def app(scope, receive, send):
        scopes.append(scope["type"])
        await with_lifespan(first)(scope, receive, send)

    with socket.create_server(("127.0.0.1", 0)) as taken:
        second, _ = beside(f"127.0.0.1:{taken.getsockname()[1]}")
        server = starting(app, beside=second)

    (bind,) = second.config.bind
    assert failure_to_listen(server) == f"{bind}: address already in use"
    assert scopes == []
