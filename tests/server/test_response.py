"""Answers as bytes."""

from __future__ import annotations

import json
import re

import pytest

from gateway.server.response import BadAnswer, Framing, answer_head, chunk, error_answer

JSON = (b"content-type", b"application/json")
LENGTH = (b"content-length", b"5")


def head_of(*headers, status=200, method="GET", version="1.1", close=False):
    return answer_head(status, headers, method=method, version=version, close=close)


def lines_of(data: bytes) -> list[bytes]:
    """The head without its date, which the clock decides."""
    assert data.endswith(b"\r\n\r\n")
    assert len(re.findall(rb"\r\ndate: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT\r\n", data)) == 1
    return [line for line in data[:-4].split(b"\r\n") if not line.startswith(b"date: ")]


@pytest.mark.parametrize(
    ("head", "lines", "framing", "close"),
    [
        pytest.param(
            head_of(JSON, LENGTH),
            [b"HTTP/1.1 200 OK", b"content-type: application/json", b"content-length: 5"],
            Framing.LENGTH,
            False,
            id="length",
        ),
        pytest.param(
            head_of(),
            [b"HTTP/1.1 200 OK", b"transfer-encoding: chunked"],
            Framing.CHUNKED,
            False,
            id="chunked",
        ),
        pytest.param(
            head_of(version="1.0"),
            [b"HTTP/1.1 200 OK", b"connection: close"],
            Framing.UNTIL_CLOSE,
            True,
            id="1.0",
        ),
        pytest.param(
            head_of(LENGTH, method="HEAD"),
            [b"HTTP/1.1 200 OK", b"content-length: 5"],
            Framing.NONE,
            False,
            id="HEAD",
        ),
        pytest.param(
            head_of(LENGTH, status=204), [b"HTTP/1.1 204 No Content"], Framing.NONE, False, id="204"
        ),
        pytest.param(
            head_of(LENGTH, status=304),
            [b"HTTP/1.1 304 Not Modified", b"content-length: 5"],
            Framing.NONE,
            False,
            id="304",
        ),
        pytest.param(
            head_of((b"Connection", b"Close"), LENGTH),
            [b"HTTP/1.1 200 OK", b"content-length: 5", b"connection: close"],
            Framing.LENGTH,
            True,
            id="the app closes",
        ),
        pytest.param(
            head_of((b"transfer-encoding", b"gzip"), (b"date", b"never"), (b"upgrade", b"h2c")),
            [b"HTTP/1.1 200 OK", b"transfer-encoding: chunked"],
            Framing.CHUNKED,
            False,
            id="what is ours is not taken from the app",
        ),
        pytest.param(
            head_of(status=599, close=True),
            [b"HTTP/1.1 599 ", b"transfer-encoding: chunked", b"connection: close"],
            Framing.CHUNKED,
            True,
            id="unknown status",
        ),
    ],
)
def test_a_head_is_serialised(head, lines, framing, close):
    assert lines_of(head.data) == lines
    assert (head.framing, head.close) == (framing, close)


@pytest.mark.parametrize("break_", [b"\r\n", b"\r", b"\n", b"\0"], ids=["CRLF", "CR", "LF", "NUL"])
@pytest.mark.parametrize("where", ["name", "value"])
def test_a_header_can_not_forge_another(break_, where):
    evil = b"x" + break_ + b"set-cookie: a=b"

    with pytest.raises(BadAnswer, match="CR, LF or NUL"):
        head_of((evil, b"y") if where == "name" else (b"y", evil))


@pytest.mark.parametrize("value", [b"-1", b"+1", b"1, 1", b"", b"0x1", "١".encode()])
def test_a_length_is_a_number(value):
    with pytest.raises(BadAnswer, match="content-length"):
        head_of((b"content-length", value))


def test_a_length_comes_once():
    with pytest.raises(BadAnswer, match="content-length"):
        head_of(LENGTH, LENGTH)


@pytest.mark.parametrize("status", [0, 100, 101, 199, 1000])
def test_only_a_final_status_is_an_answer(status):
    with pytest.raises(BadAnswer, match="status"):
        head_of(status=status)


def test_an_empty_piece_is_no_chunk():
    """An empty chunk would say that the body is complete."""
    assert (chunk(b""), chunk(b"hello")) == (b"", b"5\r\nhello\r\n")


def test_an_error_is_a_whole_answer():
    data = error_answer(
        503, "Come back.", kind="server_error", code="shutting_down", request_id="r", retry_after_s=3
    )

    head, body = data.split(b"\r\n\r\n")
    error = {"message": "Come back.", "type": "server_error", "param": None, "code": "shutting_down"}
    assert json.loads(body) == {"error": error}
    assert lines_of(head + b"\r\n\r\n") == [
        b"HTTP/1.1 503 Service Unavailable",
        b"content-type: application/json",
        b"content-length: %d" % len(body),
        b"x-request-id: r",
        b"connection: close",
        b"retry-after: 3",
    ]
