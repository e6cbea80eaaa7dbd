"""Clients that take their time, and clients that are too many."""

from __future__ import annotations

import asyncio
import resource
import subprocess
import sys
import time

import pytest

from gateway.server.service import Bounds
from tests.server.live import Client, finish, line_from, reply

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


async def ok(scope, receive, send):
    await reply(send, b"ok")


def test_a_new_connection_that_says_nothing_is_closed(serving):
    client = serving(ok, bounds={"head_s": 0.2, "idle_s": 60}).connect()

    assert client.rest() == b""


def test_an_idle_connection_is_closed(serving):
    client = serving(ok, bounds={"head_s": 60, "idle_s": 0.2}).connect().send(GET)
    client.answer()

    assert client.rest() == b""


@pytest.mark.parametrize("reused", [False, True], ids=["first request", "later request"])
def test_a_head_that_drips_is_refused(serving, reused):
    """The bound is on the whole head: each byte must not buy more time."""
    client = serving(ok, bounds={"head_s": 0.3}).connect()
    if reused:
        client.send(GET).answer()
    begun = time.monotonic()
    client.sock.settimeout(0.02)
    for byte in b"GET / HTTP/1.1\r\nHost: " + b"a" * 400:
        client.send(bytes([byte]))
        try:
            client.more()
            break
        except TimeoutError:
            continue
    client.sock.settimeout(5)

    status, fields, body = client.answer()
    assert (status, fields[b"connection"]) == (408, b"close")
    assert b"request_timeout" in body
    assert time.monotonic() - begun < 2


def test_a_request_at_work_has_no_deadline_here(serving):
    """How long an app may take is the app's to say."""

    async def slow(scope, receive, send):
        await asyncio.sleep(0.4)
        await reply(send, b"late")

    bounds = dict.fromkeys(("head_s", "idle_s", "write_stall_s", "linger_s"), 0.1)

    assert serving(slow, bounds=bounds).connect().send(GET).answer()[2] == b"late"


def test_connections_over_the_bound_are_closed_and_the_others_served(serving):
    server = serving(ok, bounds={"max_connections": 3})
    kept = [server.connect() for _ in range(3)]
    for client in kept:
        assert client.send(GET).answer()[0] == 200

    assert not answers(server.port)
    assert [client.send(GET).answer()[0] for client in kept] == [200, 200, 200]
    kept[0].leave()
    deadline = time.monotonic() + 5
    while not answers(server.port):  # until the server has seen it leave
        assert time.monotonic() < deadline, "no place was given back"


def answers(port: int) -> bool:
    """Whether a new connection is served."""
    client = Client(port)
    try:
        return client.send(GET).answer()[0] == 200
    except (AssertionError, ConnectionError):
        return False
    finally:
        client.leave()


CHILD = """
import asyncio, sys
from hypercorn.config import Config
from gateway.server.lifecycle import Lifecycle
from gateway.server.worker import run, serve
from tests.server.live import Client, finish, line_from, reply, with_lifespan
import gateway.server.worker as worker
if sys.argv[1] == "asyncio":
    worker._new_event_loop = asyncio.new_event_loop

async def ok(scope, receive, send):
    await reply(send, b"ok")

config = Config()
config.bind = ["127.0.0.1:0"]
run(serve(with_lifespan(ok), config, lifecycle=Lifecycle(), new_id=str, on_error=print,
          on_listening=lambda addresses: print(addresses[0][1], flush=True)))
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_server_without_file_descriptors_recovers(loop):
    """EMFILE on accept must neither kill the server nor stop it from accepting later."""
    limit = 64

    def few_descriptors():
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))

    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, loop],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        preexec_fn=few_descriptors,  # noqa: PLW1509 - nothing else runs in this process yet
    )
    try:
        port = int(line_from(child))
        crowd = [Client(port) for _ in range(limit + 20)]
        assert crowd[0].send(GET).answer()[0] == 200
        for client in crowd:
            client.leave()
        deadline = time.monotonic() + 5
        while not answers(port):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        child.terminate()
        assert child.wait(5) == 0
    finally:
        finish(child)


def test_deadlines_are_looked_at_often_enough():
    assert Bounds().sweep_s == 0.5
    assert Bounds(head_s=60, linger_s=60).sweep_s == 1.0
