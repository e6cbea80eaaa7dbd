"""The checks of the head, as rules over values."""

from __future__ import annotations

import pytest

from gateway.server.head import (
    BAD_HOST,
    BAD_METHOD,
    BAD_START_LINE,
    CODED_1_0,
    HEAD_TOO_LARGE,
    MAX_HEAD_BYTES,
    NO_HOST,
    NO_TUNNELS,
    TWO_CODINGS,
    TWO_HOSTS,
    UNKNOWN_CODING,
    UNKNOWN_METHOD,
    WRONG_VERSION,
    Head,
    Malformed,
    flaw_behind,
    flaw_of,
)

HOST = (b"host", b"a")
CODED = (b"transfer-encoding", b"chunked")


def head(*headers: tuple[bytes, bytes], method: str = "GET", version: str = "1.1") -> Head:
    return Head(method, b"/x", version, list(headers), dict(headers), True)


def flaw(a_head: Head, line: bytes | None = None) -> Malformed | None:
    start = line or b"%b /x HTTP/%b\r\n" % (a_head.method.encode(), a_head.version.encode())
    return flaw_of(a_head, start + b"rest of the head\r\n\r\n")


@pytest.mark.parametrize(
    ("a_head", "verdict"),
    [
        pytest.param(head(HOST), None, id="plain"),
        pytest.param(head(version="1.0"), None, id="1.0 without host"),
        pytest.param(head(), NO_HOST, id="no host"),
        pytest.param(head(HOST, HOST), TWO_HOSTS, id="the same host twice"),
        pytest.param(head(HOST, (b"cookie", b"a"), (b"cookie", b"b")), None, id="other field twice"),
        pytest.param(head((b"host", b"u@a")), BAD_HOST, id="user in host"),
        pytest.param(head((b"host", b"")), None, id="empty host"),
        pytest.param(head(HOST, CODED), None, id="chunked"),
        pytest.param(head(HOST, CODED, CODED), TWO_CODINGS, id="chunked twice"),
        pytest.param(head(HOST, (b"transfer-encoding", b"gzip, chunked")), UNKNOWN_CODING, id="list"),
        pytest.param(head(HOST, (b"transfer-encoding", b"")), UNKNOWN_CODING, id="empty coding"),
        pytest.param(head(HOST, CODED, version="1.0"), CODED_1_0, id="chunked on 1.0"),
        pytest.param(head(HOST, version="2.0"), WRONG_VERSION, id="2.0"),
        pytest.param(head(HOST, version="0.9"), WRONG_VERSION, id="0.9"),
        pytest.param(head(HOST, method="CONNECT"), NO_TUNNELS, id="CONNECT"),
    ],
)
def test_a_head_is_judged(a_head, verdict):
    assert flaw(a_head) == verdict


@pytest.mark.parametrize(
    ("line", "verdict"),
    [
        (b"GET /x HTTP/1.1\r\n", None),
        (b"\r\nGET /x HTTP/1.1\r\n", None),
        (b"\r\n\r\nGET /x HTTP/1.1\r\n", BAD_START_LINE),
        (b"\nGET /x HTTP/1.1\r\n", BAD_START_LINE),
        (b"GET  /x HTTP/1.1\r\n", BAD_START_LINE),
        (b"GET /x  HTTP/1.1\r\n", BAD_START_LINE),
        (b"GET /x RTSP/1.1\r\n", BAD_START_LINE),
    ],
)
def test_the_start_line_has_one_spelling(line, verdict):
    assert flaw(head(HOST), line) == verdict


def test_only_the_head_counts_for_its_size():
    """A body in the same packet is no part of it."""
    line = b"GET /x HTTP/1.1\r\n"

    assert flaw_of(head(HOST), line + b"\r\n" + bytes(MAX_HEAD_BYTES)) is None
    assert flaw_of(head(HOST), line + bytes(MAX_HEAD_BYTES) + b"\r\n\r\n") == HEAD_TOO_LARGE


@pytest.mark.parametrize(
    ("raw", "verdict"),
    [
        (b"get / HTTP/1.1\r\n", UNKNOWN_METHOD),
        (b"get", BAD_METHOD),
        (b"\x16\x03\x01", BAD_METHOD),
        (b"PRI * HTTP/2.0\r\n", WRONG_VERSION),
    ],
)
def test_a_complaint_of_the_parser_becomes_an_answer(raw, verdict):
    assert flaw_behind("Invalid method encountered", raw) == verdict


def test_other_complaints_are_passed_on_in_words():
    assert flaw_behind("Missing expected CR", b"GET / HTTP/1.1\n") == Malformed(
        400, "The request is not valid HTTP/1.1: Missing expected CR."
    )
