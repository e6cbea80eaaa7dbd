"""The end: what is in flight is finished, within a bound, and the process exits with 0."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import threading
import time

import pytest

from gateway.server.lifecycle import Lifecycle
from gateway.server.response import RETRY_AFTER_S
from tests.server.live import Client, finish, happens, line_from, reply

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def get(path: bytes) -> bytes:
    return GET.replace(b"/ ", path + b" ", 1)


class Worker:
    """An app whose /stream lasts until `go_on`, and that refuses new work while draining."""

    def __init__(self) -> None:
        self.at_work = threading.Event()
        self.go_on = threading.Event()
        self.lifecycle = Lifecycle()  # replaced by the server's

    async def __call__(self, scope, receive, send):
        if scope["path"] != "/stream":
            draining = self.lifecycle.draining
            return await reply(send, b"%d" % self.lifecycle.in_flight, status=503 if draining else 200)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        self.at_work.set()
        try:
            while not await asyncio.to_thread(self.go_on.wait, 0.02):
                pass
        except asyncio.CancelledError:
            await send({"type": "http.response.body", "body": b"cut short"})
            raise
        await send({"type": "http.response.body", "body": b"finished"})
        return None


def working(serving, **options):
    app = Worker()
    server = serving(app, **options)
    app.lifecycle = server.lifecycle
    client = server.connect().send(get(b"/stream"))
    assert happens(app.at_work)
    return app, server, client


def wait_for(condition) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_requests_in_flight_are_counted(serving):
    app, server, client = working(serving)

    assert server.lifecycle.in_flight == 1
    assert server.connect().send(GET).answer()[2] == b"2"
    app.go_on.set()
    client.answer()
    wait_for(lambda: server.lifecycle.in_flight == 0)


def test_a_drain_finishes_what_is_in_flight_and_answers_meanwhile(serving):
    """The port stays open, so that a probe is told 503 instead of finding nobody."""
    app, server, client = working(serving)
    idle = server.connect().send(GET)
    idle.answer()
    server.ask_to_stop()
    wait_for(lambda: server.lifecycle.draining)

    assert idle.rest() == b""
    probe = server.connect().send(get(b"/readyz"))
    status, fields, _ = probe.answer()
    assert (status, fields[b"connection"]) == (503, b"close")
    assert probe.rest() == b""
    app.go_on.set()
    assert client.answer()[2] == b"begunfinished"
    assert client.rest() == b""
    assert server.ended()
    assert server.failure is None
    with pytest.raises(ConnectionRefusedError):
        Client(server.port)


def test_an_idle_server_stops_at_once(serving):
    app = Worker()
    server = serving(app)
    app.lifecycle = server.lifecycle
    client = server.connect().send(GET)
    client.answer()
    server.ask_to_stop()

    assert server.ended(1)
    assert client.rest() == b""


def test_after_drain_s_requests_are_cancelled_and_may_say_so(serving):
    """The app's last frame still gets out."""
    _, server, client = working(serving, drain_s=0.2)
    server.ask_to_stop()

    assert client.answer()[2] == b"beguncut short"
    assert server.ended()
    assert server.failure is None


def test_a_second_signal_cuts_the_drain_short(serving):
    _, server, client = working(serving, drain_s=60)
    server.ask_to_stop()
    wait_for(lambda: server.lifecycle.draining)
    server.ask_to_stop()

    assert client.answer()[2] == b"beguncut short"
    assert server.ended()


def test_probes_do_not_prolong_a_drain(serving):
    """Only what was in flight at the signal is waited for."""
    app, server, client = working(serving, drain_s=60)
    server.ask_to_stop()
    wait_for(lambda: server.lifecycle.draining)
    ended = threading.Event()

    def probe_for_ever():
        while not ended.is_set():
            try:
                probe = Client(server.port)
            except OSError:
                return  # the listener is closed
            with contextlib.suppress(OSError, AssertionError):
                probe.send(GET).answer()
            probe.leave()

    prober = threading.Thread(target=probe_for_ever)
    prober.start()
    app.go_on.set()

    assert client.answer()[2] == b"begunfinished"
    assert server.ended()
    ended.set()
    prober.join()


def cancelled_before_its_answer(serving):
    """The fields that such a request is told, once it was looked whether they are right."""
    at_work = threading.Event()

    async def app(scope, receive, send):
        at_work.set()
        await asyncio.sleep(60)

    server = serving(app, drain_s=0.05)
    client = server.connect().send(GET)
    assert happens(at_work)
    server.ask_to_stop()

    status, fields, body = client.answer()
    assert status == 503
    assert int(fields[b"retry-after"]) in RETRY_AFTER_S
    assert json.loads(body)["error"]["code"] == "shutting_down"
    assert server.ended()
    return fields


def test_a_request_that_is_cancelled_before_its_answer_is_told_503(serving):
    cancelled_before_its_answer(serving)


def test_a_drain_flushes_what_the_client_has_not_read_yet(serving):
    """The task has ended, but its last bytes are still ours."""
    sent = threading.Event()

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        sent.set()
        await send({"type": "http.response.body", "body": bytes(10_000_000)})

    server = serving(app)
    client = server.connect().send(GET)
    assert happens(sent)
    server.ask_to_stop()

    assert len(client.answer()[2]) == 10_000_000
    assert server.ended()


CHILD = """
import asyncio, sys
from hypercorn.config import Config
from gateway.server.lifecycle import Lifecycle
from gateway.server.worker import run, serve
import gateway.server.worker as worker
if sys.argv[1] == "asyncio":
    worker._new_event_loop = asyncio.new_event_loop

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        print("stopped", flush=True)
        return await send({"type": "lifespan.shutdown.complete"})
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(30):
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await asyncio.sleep(0.01)
    await send({"type": "http.response.body", "body": b"end"})

config = Config()
config.bind = ["127.0.0.1:0"]
run(serve(app, config, lifecycle=Lifecycle(), new_id=str, on_error=print,
          on_listening=lambda addresses: print(addresses[0][1], flush=True)))
print("returned", flush=True)
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_drains_a_real_process(loop, number):
    """The stream completes, the lifespan is shut down, the exit code is 0, stderr is empty."""
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, loop], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        client = Client(int(line_from(child))).send(GET)
        client.until(b"x\r\n")
        child.send_signal(number)
        client.unread = b"HTTP/1.1 200 \r\ntransfer-encoding: chunked\r\n\r\n" + client.unread

        assert client.answer()[2] == b"x" * 29 + b"end"
        out, err = child.communicate(timeout=5)
        assert (child.returncode, out, err) == (0, "stopped\nreturned\n", "")
        client.leave()
    finally:
        finish(child)
