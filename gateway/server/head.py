"""What makes the head of a request unacceptable. Pure: no socket, no clock, no parser.

llhttp already refuses bare LF and CR, obs-fold, control bytes, odd names, odd or repeated
Content-Length and Content-Length beside Transfer-Encoding (its `dangerous leniencies` stay off);
tests/server pins that. Here is only what it lets pass.
"""

from __future__ import annotations

import re

from attrs import define, frozen

from gateway.server.asgi import Headers

MAX_HEAD_BYTES = 32 * 1024  # start line and fields together; nginx: 4 x 8 KiB
MAX_FIELDS = 100  # the default of Apache's LimitRequestFields
MAX_TARGET_BYTES = 8 * 1024  # RFC 9112 section 3 asks for 8,000 at least
MAX_METHOD_BYTES = 32  # the longest registered one has 17 (IANA, UPDATEREDIRECTREF)

_START_LINE = re.compile(
    rb"([!#$%%&'*+\-.^_`|~0-9A-Za-z]{1,%d}) +([^ \t\r\n]{0,%d})" % (MAX_METHOD_BYTES, MAX_TARGET_BYTES)
)
_METHOD = re.compile(rb"[!#$%%&'*+\-.^_`|~0-9A-Za-z]{1,%d} " % MAX_METHOD_BYTES)
_OTHER_VERSION = re.compile(rb"[^\r\n]* HTTP/(?!1\.[01]\r)\d+(\.\d+)?\r\n")
# Two readings of one Host: whose user, which of two names? Other odd hosts are harmless because
# nobody here reads them, and they are answered as a clean one would be.
_AMBIGUOUS_HOST = re.compile(rb"[\s,@]")


@frozen
class Malformed:
    """Why a request is not read any further: the status for it and a sentence for the caller."""

    status: int
    sentence: str


@define
class Head:
    """A request head as received. Names are lower case; values have no space around them."""

    method: str
    target: bytes
    version: str
    headers: Headers
    fields: dict[bytes, bytes]  # the last value of each name
    keep_alive: bool

    def repeats(self, name: bytes) -> bool:
        """Whether the field comes more than once."""
        if len(self.fields) == len(self.headers):
            return False
        return sum(1 for other, _ in self.headers if other == name) > 1


TARGET_TOO_LONG = Malformed(414, f"The request target is longer than {MAX_TARGET_BYTES} bytes; shorten it.")
HEAD_TOO_LARGE = Malformed(
    431, f"The request head is larger than {MAX_HEAD_BYTES} bytes; send fewer headers."
)
TOO_MANY_FIELDS = Malformed(431, f"The request has more than {MAX_FIELDS} header fields; send fewer.")
FRAMING_TOO_LARGE = Malformed(400, "The chunk extensions or trailers of the request body are too large.")
SLOW_HEAD = Malformed(408, "The request head did not arrive in time; send it at once.")
BAD_START_LINE = Malformed(400, "The start line must be 'METHOD target HTTP/1.1' with single spaces.")
WRONG_VERSION = Malformed(505, "Only HTTP/1.1 and HTTP/1.0 are spoken here.")
NO_TUNNELS = Malformed(501, "CONNECT is not supported: this server opens no tunnels.")
UNKNOWN_METHOD = Malformed(501, "The request method is not supported; methods are written in capitals.")
BAD_METHOD = Malformed(400, "The request does not start with a method; only HTTP/1.1 is spoken on this port.")
NO_HOST = Malformed(400, "HTTP/1.1 requests need a Host header.")
TWO_HOSTS = Malformed(400, "The request has more than one Host header; send exactly one.")
BAD_HOST = Malformed(400, "The Host header must hold one host name, without user or spaces.")
CODED_1_0 = Malformed(400, "HTTP/1.0 has no Transfer-Encoding; send Content-Length or use HTTP/1.1.")
TWO_CODINGS = Malformed(400, "The request has more than one Transfer-Encoding; send 'chunked' once.")
UNKNOWN_CODING = Malformed(501, "The only Transfer-Encoding understood is 'chunked'.")


def start_line_of(raw: bytes) -> tuple[str, bytes] | None:
    """Method and target of a head that was refused, as far as they came, or None before a method's end."""
    line = _START_LINE.match(raw.lstrip(b"\r\n"))
    return (line[1].decode("ascii"), line[2]) if line else None


def flaw_of(head: Head, raw: bytes) -> Malformed | None:
    """Say what is wrong with a head that llhttp accepted, or None.

    `raw` holds the bytes of the head from the first one on, perhaps with some of the body.
    """
    return _start_line_flaw(head, raw) or _size_flaw(raw) or _host_flaw(head) or _coding_flaw(head)


def flaw_behind(parser_says: str, raw: bytes) -> Malformed:
    """Turn a complaint of llhttp into an answer; `raw` is what has come of the head."""
    raw = raw.lstrip(b"\r\n")
    if not _METHOD.match(raw):
        return BAD_METHOD
    if _OTHER_VERSION.match(raw):
        return WRONG_VERSION
    if "method" in parser_says:
        return UNKNOWN_METHOD
    return Malformed(400, f"The request is not valid HTTP/1.1: {parser_says}.")


def _start_line_flaw(head: Head, raw: bytes) -> Malformed | None:
    """llhttp also takes RTSP/1.0, ICE/1.0, HTTP/0.9, HTTP/2.0, tabs and several spaces."""
    if head.version not in ("1.1", "1.0"):
        return WRONG_VERSION
    line = b"%b %b HTTP/%b\r\n" % (head.method.encode(), head.target, head.version.encode())
    # RFC 9112 section 2.2: one empty line before the start line is to be ignored.
    if not raw.startswith(line) and not raw.startswith(b"\r\n" + line):
        return BAD_START_LINE
    return NO_TUNNELS if head.method == "CONNECT" else None


def _size_flaw(raw: bytes) -> Malformed | None:
    if len(raw) > MAX_HEAD_BYTES and raw.find(b"\r\n\r\n") + 4 > MAX_HEAD_BYTES:
        return HEAD_TOO_LARGE
    return None


def _host_flaw(head: Head) -> Malformed | None:
    """RFC 9112 section 3.2: exactly one on HTTP/1.1, at most one before."""
    host = head.fields.get(b"host")
    if host is None:
        return NO_HOST if head.version == "1.1" else None
    if head.repeats(b"host"):
        return TWO_HOSTS
    return BAD_HOST if _AMBIGUOUS_HOST.search(host) else None


def _coding_flaw(head: Head) -> Malformed | None:
    """RFC 9112 section 6.1; a coding list is where two parsers disagree most easily."""
    coding = head.fields.get(b"transfer-encoding")
    if coding is None:
        return None
    if head.version == "1.0":
        return CODED_1_0
    if head.repeats(b"transfer-encoding"):
        return TWO_CODINGS
    return None if coding.lower() == b"chunked" else UNKNOWN_CODING
