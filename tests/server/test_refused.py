"""Who wants to know of requests that the app never saw is told of each of them once."""

from __future__ import annotations

import pytest
from attrs import evolve

from gateway.server.head import MAX_TARGET_BYTES
from gateway.server.service import RefusedRequest
from tests.server.live import Server, read_body, reply, with_lifespan
from tests.server.test_malformed import CASES, CHUNKED, END, SMUGGLED, get, post

# What never got as far as a method and a space: port scans, not requests.
NOISE = {
    "long method",
    "method that is no token",
    "space before the method",
    "TLS on the plain port",
}


@pytest.fixture(scope="module")
def told():
    return []


@pytest.fixture(scope="module")
def server(loop_factory, told):
    async def app(scope, receive, send):
        await read_body(receive)
        await reply(send, b"ok")

    server = Server(with_lifespan(app), loop_factory, on_refused=told.append)
    yield server
    server.stop()


@pytest.fixture
def refusing(server, told):
    """refusing(pieces of a request) → its answer's status and body; `told` is complete then."""
    told.clear()

    def send(*pieces):
        client = server.connect()
        for piece in pieces:
            client.send(piece)
        status, _, body = client.answer()
        client.rest()
        # The loop does one thing after another: who is answered now was served after the telling.
        assert server.connect().send(get()).answer()[0] == 200
        return status, body

    return send


@pytest.mark.parametrize("case", CASES)
def test_each_refusal_is_told_once(refusing, told, case):
    """With the status and the id of the answer; a request hidden behind it is none."""
    status, body = refusing(CASES[case][1] + SMUGGLED)

    expected = [] if case in NOISE else [("req_of_the_server", "127.0.0.1", status, len(body))]
    assert [(one.request_id, one.peer, one.status, one.bytes_out) for one in told] == expected
    assert all(0 <= one.duration_s < 5 for one in told)


@pytest.mark.parametrize(
    ("request_bytes", "method", "target"),
    [
        pytest.param(post(b"Host: b"), "POST", b"/x", id="two hosts"),
        pytest.param(b"\r\n" + post(b"Host: b"), "POST", b"/x", id="after an empty line"),
        pytest.param(get(b"/x?y=z", version=b"HTTP/1.2"), "GET", b"/x?y=z", id="with its query"),
        pytest.param(get(b"a:443", method=b"CONNECT"), "CONNECT", b"a:443", id="CONNECT"),
        pytest.param(get(method=b"PULL"), "PULL", b"/x", id="unknown method"),
        pytest.param(get(b"/a\x01"), "GET", b"/a\x01", id="control byte"),
        pytest.param(get(b""), "GET", b"HTTP/1.1", id="no target"),
        pytest.param(b"GET \r\nHost: a\r\n\r\n", "GET", b"", id="nothing after the method"),
        pytest.param(
            get(b"/" + b"a" * 100_000), "GET", b"/" + b"a" * (MAX_TARGET_BYTES - 1), id="too long a target"
        ),
        pytest.param(post(CHUNKED, body=b"+5\r\nhello\r\n" + END), "POST", b"/x", id="bad chunk"),
    ],
)
def test_what_is_told_is_the_first_line(refusing, told, request_bytes, method, target):
    """As far as it came and never longer than a target may be."""
    refusing(request_bytes)

    assert [(one.method, one.target) for one in told] == [(method, target)]


def test_the_duration_counts_from_the_first_byte(server, told):
    """Not from the connection, nor from the packet that was refused."""
    told.clear()
    client = server.connect()
    client.send(get()).answer()
    client.send(b"POST /x HTTP/1.1\r\n")
    assert server.connect().send(get()).answer()[0] == 200  # the first bytes have been read
    client.send(b"Host: a\r\nHost: b\r\n\r\n").answer()
    assert server.connect().send(get()).answer()[0] == 200

    (one,) = told
    assert evolve(one, duration_s=0.0, bytes_out=0) == RefusedRequest(
        request_id="req_of_the_server",
        method="POST",
        target=b"/x",
        peer="127.0.0.1",
        status=400,
        duration_s=0.0,
        bytes_out=0,
    )
    assert one.duration_s > 0


def test_a_head_that_never_ends_is_no_request(serving):
    told: list[RefusedRequest] = []

    async def app(scope, receive, send):
        await reply(send)

    server = serving(app, on_refused=told.append, bounds={"head_s": 0.2})

    assert server.connect().send(b"GET /x HTTP/1.1\r\nHost").answer()[0] == 408
    assert server.connect().send(get()).answer()[0] == 200
    assert told == []


def test_what_breaks_in_the_app_is_told_to_the_app(serving):
    """It has the request, and learns what is answered for it, under its id, before that goes out."""
    told: list[RefusedRequest] = []
    before_end = []

    async def app(scope, receive, send):
        extensions = scope["extensions"]
        extensions["gateway.request_id"] = "req_of_the_app"
        extensions["gateway.before_end"] = lambda _: before_end.append(extensions["gateway.refused_status"])
        while (await receive())["type"] != "http.disconnect":
            pass

    server = serving(app, on_refused=told.append)
    client = server.connect().send(post(b"Expect: 100-continue", CHUNKED))
    client.until(b"100 Continue\r\n\r\n")  # the app is reading
    status, fields, _ = client.send(b"nonsense\r\n").answer()

    assert (status, fields[b"x-request-id"]) == (400, b"req_of_the_app")
    assert before_end == [400]
    assert told == []


def test_a_failing_callback_does_not_touch_the_connection(serving):
    """Its failure is reported as the app's are."""

    def fail(refused):
        raise RuntimeError(refused.method)

    async def app(scope, receive, send):
        await reply(send)

    server = serving(app, on_refused=fail)

    client = server.connect().send(get(method=b"PULL"))
    assert client.answer()[0] == 501
    assert client.rest() == b""
    assert server.connect().send(get()).answer()[0] == 200
    assert [str(error) for error in server.errors] == ["PULL"]
