"""kill -9 in the moment in which a client has the last byte of its answer: its row tells of that answer."""

import contextlib
import json
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

from tests.effort import times
from tests.engines import wait_until
from tests.fleet.counted_model import MODEL, CountedModel, Order
from tests.fleet.victims import Launcher, Victim, all_listen
from tests.gateways import Gateway

# Of each kind, some 0.2 s each.
KILLS = times(12)

KEY = b"Host: a\r\nAuthorization: Bearer %b\r\n"
JSON = b"Content-Type: application/json\r\n" + KEY


def chat(**changes: Any) -> bytes:
    body = {"model": MODEL, "messages": [{"role": "user", "content": Order().prompt}], **changes}
    data = json.dumps(body).encode()
    return b"POST /api/chat HTTP/1.1\r\nContent-Length: %d\r\n%b\r\n%b" % (len(data), JSON, data)


REQUESTS = {
    "chat": (chat(stream=False), 200),
    "stream": (chat(), 200),
    "list": (b"GET /v1/models HTTP/1.1\r\n" + KEY + b"\r\n", 200),
    "head only": (b"HEAD /api/tags HTTP/1.1\r\n" + KEY + b"\r\n", 200),
    "wrong key": (b"GET /v1/models HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer nope\r\n\r\n", 401),
    "blocked": (b"POST /api/pull HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", 403),
    "unknown model": (chat(model="nope"), 404),
    "broken head": (b"GET /x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    "broken body": (
        b"POST /api/chat HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" + JSON + b"\r\n5\r\n",
        400,
    ),
}


@frozen
class Killing:
    """One gateway that is started anew for each kill."""

    gateway: Gateway
    launcher: Launcher

    def start(self) -> Victim:
        victim = self.launcher.launch(self.gateway.directory)
        all_listen([victim])
        return victim


@pytest.fixture
def killing(tmp_path: Path, model: CountedModel) -> Iterator[Killing]:
    settings = {"OLLAMA_BACKENDS": model.url}
    gateway = Gateway(tmp_path, **settings)
    gateway.make_first_key()
    with Launcher.start(settings) as launcher:
        yield Killing(gateway, launcher)


def killed_at_the_answer(killing: Killing, sent: bytes, *, is_body_broken: bool) -> tuple[str, int]:
    """Request id and status of an answer whose gateway was killed as soon as it was complete."""
    victim = killing.start()
    host, _, port = victim.url.removeprefix("http://").rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(sent)
            if is_body_broken:
                connection.sendall(b"nonsense\r\n")
            answered = read_at_once(connection, has_body=not sent.startswith(b"HEAD"))
    finally:
        victim.kill()
    assert wait_until(lambda: victim.is_dead, 10)
    found = re.search(rb"x-request-id: (\S+)", answered)
    assert found, answered
    return found[1].decode(), int(answered.split(b" ")[1])


def read_at_once(connection: socket.socket, *, has_body: bool) -> bytes:
    """One answer, without a wait in which the gateway would get on."""
    connection.setblocking(False)
    deadline = time.monotonic() + 10
    answered = b""
    while not is_complete(answered, has_body=has_body):
        assert time.monotonic() < deadline, answered
        with contextlib.suppress(BlockingIOError):
            answered += connection.recv(65536)
    return answered


def is_complete(answered: bytes, *, has_body: bool) -> bool:
    head, end, body = answered.partition(b"\r\n\r\n")
    if not end or not has_body:
        return bool(end)
    length = re.search(rb"content-length: (\d+)", head.lower())
    return len(body) >= int(length[1]) if length else body.endswith(b"0\r\n\r\n")


def test_an_answer_that_was_read_has_its_row(killing: Killing):
    answered: dict[str, tuple[str, int]] = {}
    for what, (sent, _) in REQUESTS.items():
        request = sent.replace(KEY, KEY % killing.gateway.key.encode())
        for _ in range(KILLS):
            request_id, status = killed_at_the_answer(killing, request, is_body_broken=what == "broken body")
            answered[request_id] = what, status
    killing.gateway.start()
    killing.gateway.stop()

    assert set(answered.values()) == {(what, status) for what, (_, status) in REQUESTS.items()}
    kept = {row["request_id"]: row["status"] for row in killing.gateway.rows()}
    assert [what for request_id, (what, _) in answered.items() if request_id not in kept] == []
    assert kept == {request_id: status for request_id, (_, status) in answered.items()}
    assert {row["outcome"] for row in killing.gateway.rows()} == {"served", "refused"}
