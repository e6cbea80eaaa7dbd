"""Answers as bytes. Pure, save the clock of the Date header."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from email.utils import formatdate
from enum import Enum, auto
from http import HTTPStatus

from attrs import define, frozen

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"

# Where a shutdown ends requests: all of them are told so in one moment, and should not come back in one.
RETRY_AFTER_S = range(1, 6)

_STATUS_LINES = {s.value: b"HTTP/1.1 %d %b" % (s.value, s.phrase.encode()) for s in HTTPStatus}
_NO_BODY = frozenset((204, 304))  # RFC 9110 sections 15.3.5 and 15.4.5
# The framing and the connection are the server's; the date is one.
_OURS = frozenset(
    (b"content-length", b"transfer-encoding", b"connection", b"keep-alive", b"upgrade", b"trailer", b"date")
)
# Names that were sent and are none of these, as they were written.
_plain: set[bytes] = set()
_MAX_REMEMBERED = 256
_LENGTH_DIGITS = 18


class BadAnswer(RuntimeError):
    """The app broke the rules of ASGI or HTTP; raised into it by `send`."""


@frozen
class Failure:
    """What is answered in the stead of an app that did not answer."""

    status: int
    sentence: str
    code: str


SHUTTING_DOWN = Failure(503, "The gateway is shutting down; send the request again.", "shutting_down")
FAILED = Failure(500, "The gateway failed on this request; it has been recorded.", "internal_error")


class Framing(Enum):
    """How the end of an answer's body is marked."""

    NONE = auto()  # there is no body, whatever the app sends (HEAD, 204, 304)
    LENGTH = auto()
    CHUNKED = auto()
    UNTIL_CLOSE = auto()  # HTTP/1.0 without a length


@define
class AnswerHead:
    """The head as bytes; `length` is what the app declared, 0 where it declared nothing."""

    data: bytes
    framing: Framing
    length: int
    close: bool


class _Date:
    """The Date header, made once a second."""

    __slots__ = ("_line", "_second")

    def __init__(self) -> None:
        self._second = 0
        self._line = b""

    def line(self) -> bytes:
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._line = b"date: " + formatdate(second, usegmt=True).encode("ascii")
        return self._line


_date = _Date()


def answer_head(
    status: int, headers: Iterable[tuple[bytes, bytes]], *, method: str, version: str, close: bool
) -> AnswerHead:
    """Serialise the head of an answer to a request of `method` and `version`.

    `close` asks for the end of the connection; the head may add it (HTTP/1.0, or the app's own
    `connection: close`). Raises BadAnswer for a status that ends no request, a length that is no
    number, or a header that would split the head.
    """
    if not 200 <= status <= 999:
        raise BadAnswer(f"status {status} does not end a request")
    lines = [_STATUS_LINES.get(status) or b"HTTP/1.1 %d " % status]
    length = None
    for name, value in headers:
        if name in _plain:
            lines.append(b"%b: %b" % (name, value))
            continue
        known_as = name.lower()
        if known_as == b"content-length":
            length = _length_of(value, length)
        elif known_as == b"connection":
            close = close or b"close" in value.lower()
        elif known_as not in _OURS:
            lines.append(b"%b: %b" % (name, value))
            _remember_plain(name)
    framing = _framing(status, length, method, version)
    close = close or framing is Framing.UNTIL_CLOSE
    if length is not None and status != HTTPStatus.NO_CONTENT:
        lines.append(b"content-length: %d" % length)
    elif framing is Framing.CHUNKED:
        lines.append(b"transfer-encoding: chunked")
    if close:
        lines.append(b"connection: close")
    lines.append(_date.line())
    return AnswerHead(_joined(lines), framing, length or 0, close)


def error_answer(
    status: int,
    sentence: str,
    *,
    kind: str,
    code: str,
    request_id: str,
    with_body: bool = True,
    retry_after_s: int | None = None,
) -> bytes:
    """A whole answer in OpenAI's error shape that ends the connection; `with_body` is False for HEAD."""
    body = error_body(sentence, kind, code)
    lines = [
        _STATUS_LINES[status],
        b"content-type: application/json",
        b"content-length: %d" % len(body),
        b"x-request-id: " + request_id.encode("ascii"),
        b"connection: close",
        _date.line(),
    ]
    if retry_after_s is not None:
        lines.append(b"retry-after: %d" % retry_after_s)
    return _joined(lines) + (body if with_body else b"")


def error_body(sentence: str, kind: str, code: str) -> bytes:
    """OpenAI's error shape."""
    error = {"message": sentence, "type": kind, "param": None, "code": code}
    return json.dumps({"error": error}).encode("ascii")


def chunk(piece: bytes) -> bytes:
    """One chunk; nothing for nothing, because an empty chunk would be the last."""
    return b"%x\r\n%b\r\n" % (len(piece), piece) if piece else b""


def _length_of(value: bytes, before: int | None) -> int:
    if before is not None or not value.isdigit() or len(value) > _LENGTH_DIGITS:
        raise BadAnswer("content-length must be one number")
    return int(value)


def _framing(status: int, length: int | None, method: str, version: str) -> Framing:
    if method == "HEAD" or status in _NO_BODY:
        return Framing.NONE
    if length is not None:
        return Framing.LENGTH
    return Framing.CHUNKED if version == "1.1" else Framing.UNTIL_CLOSE


def _remember_plain(name: bytes) -> None:
    """That it is none of ours, in this spelling. An app writes few names; they need no second look."""
    if len(_plain) < _MAX_REMEMBERED:
        _plain.add(name)


def _joined(lines: list[bytes]) -> bytes:
    """Join the lines; a CR, LF or NUL inside of one would let a value forge another header."""
    head = b"\r\n".join(lines)
    breaks = len(lines) - 1
    if head.count(b"\r") != breaks or head.count(b"\n") != breaks or b"\0" in head:
        raise BadAnswer("a response header holds CR, LF or NUL")
    return head + b"\r\n\r\n"
