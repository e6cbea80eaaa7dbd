"""What is ambiguous is refused whole: a status, the end of the connection, and nothing after it runs."""

from __future__ import annotations

import json

import pytest

from gateway.server.head import MAX_FIELDS, MAX_HEAD_BYTES, MAX_TARGET_BYTES
from tests.server.live import Client, Server, read_body, reply, with_lifespan

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"


def post(*fields: bytes, body: bytes = b"", version: bytes = b"1.1") -> bytes:
    lines = b"".join(field + b"\r\n" for field in (b"Host: a", *fields))
    return b"POST /x HTTP/" + version + b"\r\n" + lines + b"\r\n" + body


def get(target: bytes = b"/x", *, method: bytes = b"GET", version: bytes = b"HTTP/1.1") -> bytes:
    return method + b" " + target + b" " + version + b"\r\nHost: a\r\n\r\n"


CHUNKED = b"Transfer-Encoding: chunked"
END = b"0\r\n\r\n"

CASES = {
    # ── framing: RFC 9112 section 6 ──
    "content-length, then transfer-encoding": (400, post(b"Content-Length: 4", CHUNKED, body=END)),
    "transfer-encoding, then content-length": (400, post(CHUNKED, b"Content-Length: 4", body=END)),
    "content-length as a list": (400, post(b"Content-Length: 4, 4", body=b"abcd")),
    "content-length with a plus": (400, post(b"Content-Length: +4", body=b"abcd")),
    "content-length in hex": (400, post(b"Content-Length: 0x4", body=b"abcd")),
    "content-length below zero": (400, post(b"Content-Length: -1")),
    "content-length of 2^64": (400, post(b"Content-Length: 18446744073709551616")),
    "content-length that is empty": (400, post(b"Content-Length:")),
    "content-length with a space inside": (400, post(b"Content-Length: 4 4", body=b"abcd")),
    "content-length with an underscore": (400, post(b"Content-Length: 4_0")),
    "content-length twice, different": (400, post(b"Content-Length: 4", b"Content-Length: 5", body=b"abcd")),
    "content-length twice, equal": (400, post(b"Content-Length: 4", b"Content-Length: 4", body=b"abcd")),
    "unknown coding": (501, post(b"Transfer-Encoding: xchunked", body=END)),
    "a list of codings": (501, post(b"Transfer-Encoding: gzip, chunked", body=END)),
    "identity": (501, post(b"Transfer-Encoding: identity", body=END)),
    "chunked with a parameter": (501, post(b"Transfer-Encoding: chunked;a=b", body=END)),
    "chunked twice in one field": (400, post(b"Transfer-Encoding: chunked, chunked", body=END)),
    "chunked not last": (400, post(b"Transfer-Encoding: chunked, identity", body=END)),
    "chunked in two fields": (400, post(CHUNKED, CHUNKED, body=END)),
    "identity and chunked in two fields": (400, post(b"Transfer-Encoding: identity", CHUNKED, body=END)),
    "coding that is empty": (400, post(b"Transfer-Encoding:", body=END)),
    "coding behind a control byte": (400, post(b"Transfer-Encoding: \x0bchunked", body=END)),
    "transfer-encoding on HTTP/1.0": (400, post(CHUNKED, body=END, version=b"1.0")),
    # ── the chunks themselves, seen before the app is called ──
    "chunk size with a sign": (400, post(CHUNKED, body=b"+5\r\nhello\r\n" + END)),
    "chunk size with 0x": (400, post(CHUNKED, body=b"0x5\r\nhello\r\n" + END)),
    "chunk size that overflows": (400, post(CHUNKED, body=b"fffffffffffffffff\r\n")),
    "chunk ending in bare LF": (400, post(CHUNKED, body=b"5\nhello\n0\n\n")),
    "chunk longer than its size": (400, post(CHUNKED, body=b"5\r\nhelloX\r\n" + END)),
    "content-length in a trailer": (400, post(CHUNKED, body=b"0\r\nContent-Length: 4\r\n\r\n")),
    # ── fields: RFC 9112 section 5 ──
    "space before the colon": (400, post(b"X : y")),
    "space before the colon of the framing": (400, post(b"Transfer-Encoding : chunked", body=END)),
    "continuation line": (400, post(b"X: y\r\n z")),
    "continuation of the start line": (400, b"GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
    "bare LF between fields": (400, post(b"X: y\nZ: z")),
    "bare LF after the start line": (400, b"GET / HTTP/1.1\nHost: a\r\n\r\n"),
    "bare LF at the end": (400, b"GET / HTTP/1.1\r\nHost: a\r\n\n"),
    "bare CR in a value": (400, post(b"X: y\rZ: z")),
    "NUL in a value": (400, post(b"X: y\0z")),
    "escape in a value": (400, post(b"X: \x1b[31m")),
    "DEL in a value": (400, post(b"X: y\x7f")),
    "NUL in a name": (400, post(b"X\0: y")),
    "bracket in a name": (400, post(b"X[: y")),
    "high byte in a name": (400, post(b"X\xe9: y")),
    "field without a name": (400, post(b": y")),
    "field without a colon": (400, post(b"xyz")),
    # ── Host: RFC 9112 section 3.2 ──
    "no host": (400, b"GET / HTTP/1.1\r\n\r\n"),
    "two hosts": (400, post(b"Host: b")),
    "two hosts on HTTP/1.0": (400, post(b"Host: b", version=b"1.0")),
    "host with a user": (400, b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n"),
    "host with a space": (400, b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
    "two hosts in one field": (400, b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n"),
    # ── versions and methods ──
    "HTTP/2 preface": (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "PRI as a method": (400, get(b"*", method=b"PRI")),
    "HTTP/2.0": (505, get(version=b"HTTP/2.0")),
    "HTTP/1.2": (505, get(version=b"HTTP/1.2")),
    "HTTP/3.0": (505, get(version=b"HTTP/3.0")),
    "HTTP/0.9, spelled out": (505, get(version=b"HTTP/0.9")),
    "HTTP/0.9": (505, b"GET /\r\n\r\n"),
    "RTSP": (400, get(version=b"RTSP/1.0")),
    "version without its minor": (505, get(version=b"HTTP/1")),
    "version in lower case": (400, get(version=b"http/1.1")),
    "space after the version": (400, get(version=b"HTTP/1.1 ")),
    "two spaces before the target": (400, get(b" /x")),
    "two spaces after the target": (400, get(b"/x ")),
    "control byte in the target": (400, get(b"/a\x01")),
    "high byte in the target": (400, get(b"/\xc3\xa9")),
    "no target": (400, get(b"")),
    "relative target": (400, get(b"x")),
    "lower-case method": (501, get(method=b"get")),
    "capitalised method": (501, get(method=b"Post")),
    "unknown method": (501, get(method=b"PULL")),
    "long method": (400, get(method=b"M" * 1000)),
    "method that is no token": (400, get(method=b"G\0T")),
    "space before the method": (400, get(method=b" GET")),
    "CONNECT": (501, get(b"a:443", method=b"CONNECT")),
    "TLS on the plain port": (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64) + b"\r\n"),
    # ── sizes ──
    "long path": (414, get(b"/" + b"a" * MAX_TARGET_BYTES)),
    "long query": (414, get(b"/?" + b"a" * 100_000)),
    "one large field": (431, post(b"X: " + b"y" * 64 * 1024)),
    "head one byte too large": (431, post(b"X: " + b"y" * (MAX_HEAD_BYTES - len(post(b"X: ")) + 1))),
    "one field too many": (431, post(*[b"X: y"] * MAX_FIELDS)),
    "many small fields": (431, post(*[b"a:"] * 10_000)),
}


@pytest.fixture(scope="module")
def executed():
    return []


@pytest.fixture(scope="module")
def server(loop_factory, executed):
    async def app(scope, receive, send):
        executed.append(scope["path"])
        await read_body(receive)
        await reply(send, b"ok")

    server = Server(with_lifespan(app), loop_factory)
    yield server
    server.stop()


@pytest.fixture
def client(server, executed):
    executed.clear()
    client = Client(server.port)
    yield client
    client.leave()


@pytest.mark.parametrize(("status", "request_bytes"), CASES.values(), ids=CASES.keys())
def test_malformed_requests_are_refused_and_end_the_connection(client, executed, status, request_bytes):
    """Right status, our error shape, and a request hidden behind it is never executed."""
    client.send(request_bytes + SMUGGLED)

    answered, fields, body = client.answer()
    error = json.loads(body)["error"]

    assert answered == status
    assert fields[b"content-type"] == b"application/json"
    assert fields[b"connection"] == b"close"
    assert fields[b"x-request-id"] == b"req_of_the_server"
    assert {**error, "message": ""} == {
        "message": "",
        "type": "invalid_request_error",
        "param": None,
        "code": "malformed_request",
    }
    assert error["message"].endswith(".")
    assert client.rest() == b""
    assert executed == []


@pytest.mark.parametrize(("status", "request_bytes"), CASES.values(), ids=CASES.keys())
def test_malformed_requests_are_refused_in_any_cut(client, executed, status, request_bytes):
    """A parser that is fed in pieces must not be more lenient."""
    for start in range(0, len(request_bytes), max(1, len(request_bytes) // 7)):
        client.send(request_bytes[start : start + max(1, len(request_bytes) // 7)])

    # An early answer may lack the rest of the line that tells 400 from 501.
    assert client.answer()[0] in {status, 400}
    assert client.send(SMUGGLED).rest() == b""
    assert executed in ([], ["/x"])  # a bad chunk may come after its head was handed over


ACCEPTED = {
    "plain": get(),
    "HTTP/1.0 without host": b"GET /x HTTP/1.0\r\n\r\n",
    "an empty line before": b"\r\n" + get(),
    "chunked in capitals": post(b"Transfer-Encoding: CHUNKED", body=END),
    "chunk extensions": post(CHUNKED, body=b"5;a=b\r\nhello\r\n0\r\n\r\n"),
    "trailers": post(CHUNKED, body=b"5\r\nhello\r\n0\r\nHost: evil\r\nX: y\r\n\r\n"),
    "leading zero": post(b"Content-Length: 04", body=b"abcd"),
    "space around a value": post(b"Content-Length:  4 \t", body=b"abcd"),
    "underscore in a name": post(b"X_Y: z", b"Content-Length: 0"),
    "high bytes in a value": post(b"X: \xc3\xa9", b"Content-Length: 0"),
    "odd but single host": b"GET /x HTTP/1.1\r\nHost: a/x?y=#\\\r\n\r\n",
    "TRACE": get(method=b"TRACE"),
    "OPTIONS": get(method=b"OPTIONS"),
    "the largest head": post(b"Content-Length: 0", b"X: " + b"y" * (MAX_HEAD_BYTES - 62)),
    "all the fields": post(b"Content-Length: 0", *[b"X: y"] * (MAX_FIELDS - 2)),
    "the longest target": get(b"/x?" + b"a" * (MAX_TARGET_BYTES - 3)),
}


@pytest.mark.parametrize("request_bytes", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_unusual_but_clear_requests_are_served(client, executed, request_bytes):
    assert client.send(request_bytes).answer()[0] == 200
    assert executed == ["/x"]


def test_a_field_that_never_ends_is_bounded(client):
    """llhttp collects an unfinished field without telling anybody."""
    client.send(b"GET / HTTP/1.1\r\nX: " + b"y" * MAX_HEAD_BYTES)

    assert client.answer()[0] == 431


@pytest.mark.parametrize(
    "endless", [b"5;" + b"a" * 8000, b"0\r\nX: " + b"a" * 8000], ids=["extension", "trailer"]
)
def test_endless_framing_around_the_body_is_bounded(client, endless):
    """Bytes that are no body are not seen by a cap on the body."""
    client.send(post(CHUNKED) + endless)
    for _ in range(50):  # more than one read of the server takes in
        client.send(b"a" * 8000)

    assert client.answer()[0] == 400
    assert client.rest() == b""


def test_a_body_that_breaks_within_the_answer_ends_it_visibly(serving):
    """Two answers to one request would be worse than half of one."""

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hello", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass

    client = serving(app).connect().send(post(CHUNKED, body=b"5\r\nhello\r\n"))
    client.until(b"\r\n\r\n")
    client.until(b"5\r\nhello\r\n")
    client.send(b"nonsense\r\n")

    assert client.rest() == b""


def test_a_body_that_breaks_later_is_told_and_ends_the_connection(client, executed):
    """The app sees the client leave; the client sees 400."""
    client.send(post(CHUNKED, body=b"5\r\nhello\r\n"))
    client.send(b"nonsense\r\n" + SMUGGLED)

    assert client.answer()[0] == 400
    assert client.rest() == b""
    assert "/smuggled" not in executed
