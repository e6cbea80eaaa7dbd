"""Metrics as somebody reads them: what is now, and what happened since."""

import socket
import threading

import pytest

from gateway.config import Address
from gateway.ops.reading import Change, Unreadable, fetch, read
from tests.servers import free_port

TEXT = """\
# TYPE gateway_ready gauge
gateway_ready 1
# TYPE gateway_requests_total counter
gateway_requests_total{operation="chat",outcome="served"} 10
gateway_requests_total{operation="chat",outcome="refused"} 2
gateway_requests_total{operation="tags",outcome="served"} 5
"""


def later(text: str) -> str:
    return text.replace("} 10", "} 30")


def test_sums_are_by_what_is_asked_for():
    reading = read(TEXT, 0.0)

    assert reading.total("gateway_requests_total") == 17
    assert reading.total("gateway_requests_total", outcome="served") == 15
    assert reading.by("gateway_requests_total", "operation") == {("chat",): 12, ("tags",): 5}
    assert reading.total("gateway_unknown") == 0


def test_counters_become_rates():
    """By the time between two readings; of one alone nothing is known."""
    before, now = read(TEXT, 100.0), read(later(TEXT), 110.0)

    assert Change(before, now).rate("gateway_requests_total") == 2.0
    assert Change(before, now).rates("gateway_requests_total", "operation") == {
        ("chat",): 2.0,
        ("tags",): 0.0,
    }
    assert Change(None, now).rate("gateway_requests_total") == 0.0


def test_a_process_that_began_anew_began_at_nothing():
    before, now = read(later(TEXT), 100.0), read(TEXT, 110.0)

    assert Change(before, now).rates("gateway_requests_total", "operation")[("chat",)] == 1.2


@pytest.mark.parametrize("text", ["<html>", "", "# TYPE up gauge\nup 1\n", "gateway_ready x\n"])
def test_what_is_no_gateway_is_told(text: str):
    with pytest.raises(Unreadable):
        read(text, 0.0)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "404 is answered there"),
        (b"SSH-2.0\r\n", "nobody answers there"),
    ],
)
def test_who_answers_something_else_is_told(answer: bytes, told: str):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(Unreadable, match=told):
            fetch(Address("127.0.0.1", listener.getsockname()[1]))
        thread.join(30)


def test_nobody_there():
    with pytest.raises(Unreadable, match="nobody answers there"):
        fetch(Address("127.0.0.1", free_port()))
