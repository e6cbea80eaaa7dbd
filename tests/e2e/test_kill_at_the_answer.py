"""kill -9 in the moment in which a client has the last byte of its answer: the row is there all the same.

Of inference the spool has an intent with the row, since before anything was sent to a backend. Of all else
the row must be in the spool before the answer goes out.
"""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import frozen

from tests.doubles import Double
from tests.effort import times
from tests.gateways import Gateway

# Of each kind, some 0.1 s each; more of them in a nightly run.
KILLS = times(12)

KEY = b"Host: a\r\nAuthorization: Bearer %b\r\n"
CHUNKED = b"POST /api/chat HTTP/1.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n" + KEY
REQUESTS = {
    "served": (b"GET /v1/models HTTP/1.1\r\n" + KEY + b"\r\n", 200),
    "head only": (b"HEAD /api/tags HTTP/1.1\r\n" + KEY + b"\r\n", 200),
    "wrong key": (b"GET /v1/models HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer nope\r\n\r\n", 401),
    "blocked": (b"POST /api/pull HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", 403),
    "unknown model": (
        b"POST /api/chat HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 31\r\n"
        + KEY
        + b'\r\n{"model":"nope","messages":[]} ',
        404,
    ),
    "broken head": (b"GET /x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    "broken body": (CHUNKED + b"\r\n5\r\n", 400),
}


@frozen
class Forking:
    """A gateway that is started anew for each kill."""

    gateway: Gateway
    parent: "subprocess.Popen[bytes]"

    def start(self) -> tuple[int, int]:
        """Pid and port of the next one."""
        assert self.parent.stdin is not None
        assert self.parent.stdout is not None
        self.parent.stdin.write(b"\n")
        self.parent.stdin.flush()
        pid, port = self.parent.stdout.readline().split()
        return int(pid), int(port)


@pytest.fixture
def forking(tmp_path: Path, double: Double) -> Iterator[Forking]:
    gateway = Gateway(tmp_path, OLLAMA_BACKENDS=double.url)
    gateway.make_first_key()
    with (
        gateway.log.open("ab") as log,
        subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.forking_gateway"],
            cwd=gateway.directory,
            env={**gateway.environment, "PYTHONPATH": os.getcwd()},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
        ) as parent,
    ):
        yield Forking(gateway, parent)


def killed_at_the_answer(forking: Forking, sent: bytes, *, is_body_broken: bool) -> tuple[str, int]:
    """Request id and status of an answer whose gateway was killed as soon as it was complete."""
    pid, port = forking.start()
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(sent)
            if is_body_broken:
                connection.sendall(b"nonsense\r\n")
            answered = read_at_once(connection, has_body=not sent.startswith(b"HEAD"))
    finally:
        os.kill(pid, signal.SIGKILL)
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
    found = re.search(rb"content-length: (\d+)", head.lower())
    return bool(end) and (found is None or not has_body or len(body) >= int(found[1]))


def test_an_answer_that_was_read_has_its_row(forking: Forking):
    answered: dict[str, tuple[str, int]] = {}
    for what, (sent, _) in REQUESTS.items():
        request = sent.replace(KEY, KEY % forking.gateway.key.encode())
        for _ in range(KILLS):
            request_id, status = killed_at_the_answer(forking, request, is_body_broken=what == "broken body")
            answered[request_id] = what, status
    forking.gateway.start()
    forking.gateway.stop()

    assert set(answered.values()) == {(what, status) for what, (_, status) in REQUESTS.items()}
    kept = {row["request_id"]: row["status"] for row in forking.gateway.rows()}
    lost = [what for request_id, (what, _) in answered.items() if request_id not in kept]
    assert lost == []
    assert kept == {request_id: status for request_id, (_, status) in answered.items()}
