"""What hostile callers send, as bytes, and what may come back: confused paths, ambiguous framing."""

from collections.abc import Iterator
from typing import Final

CLOSE: Final = "Host: localhost\r\nConnection: close\r\n"
_BODY: Final = b'{"model":"greeting"}'


def _plain(line: str, *headers: str, body: bytes = b"") -> bytes:
    lines = [line, *CLOSE.strip().split("\r\n"), *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def _mutations() -> Iterator[tuple[str, bytes, set[int]]]:
    for path in ("pull", "push", "create", "copy", "delete", "blobs/sha256:" + "0" * 64):
        for method in ("POST", "DELETE", "GET"):
            yield f"{method} {path}", _plain(f"{method} /api/{path} HTTP/1.1", body=_BODY), {403}
    spelled = {
        "upper case": "/API/PULL",
        "capitals": "/Api/Pull",
        "encoded letter": "/api/%70ull",
        "encoded first letter": "/%61pi/pull",
        "encoded slash": "/api%2fpull",
        "encoded twice": "/api/%2570ull",
        "two slashes": "//api/pull",
        "slashes within": "/api//pull",
        "three slashes": "///api/pull",
        "slash at the end": "/api/pull/",
        "dot at the end": "/api/pull.",
        "slash and dot": "/api/pull/.",
        "dot segments": "/v1/models/../../api/pull",
        "encoded dots": "/v1/models/%2e%2e/%2e%2e/api/pull",
        "a dot between": "/api/./pull",
        "a backslash": "/api\\pull",
        "absolute form": "http://localhost/api/pull",
        "a fragment": "/api/chat#/../pull",
        "a semicolon": "/api/pull;x=1",
    }
    for name, target in spelled.items():
        yield name, _plain(f"POST {target} HTTP/1.1", body=_BODY), {400, 403, 404, 405}


def _methods() -> Iterator[tuple[str, bytes, set[int]]]:
    for name in ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"):
        yield name, _plain("GET /v1/models HTTP/1.1", f"{name}: DELETE"), {401}
    for name in ("X-Original-URL", "X-Rewrite-URL", "X-Forwarded-Prefix", "X-Forwarded-Path"):
        yield name, _plain("GET /v1/models HTTP/1.1", f"{name}: /api/pull"), {401}
    yield "CONNECT", _plain("CONNECT ollama:11434 HTTP/1.1"), {400, 403, 404, 405, 421}
    yield "TRACE", _plain("TRACE /v1/models HTTP/1.1"), {400, 405}
    yield "OPTIONS *", _plain("OPTIONS * HTTP/1.1"), {200, 400, 404, 405}
    yield "an unknown method", _plain("PULL /api/tags HTTP/1.1"), {400, 405, 501}
    yield "a long method", _plain(f"{'A' * 1024} /api/tags HTTP/1.1"), {400, 405, 501}
    for path in ("/api/me", "/api/signout", "/api/experimental/web_search", "/v1/audio/speech", "/metrics"):
        yield path, _plain(f"POST {path} HTTP/1.1", body=_BODY), {403, 404}
    yield "the operators' metrics", _plain("GET /metrics HTTP/1.1"), {404}


def _upgrades() -> Iterator[tuple[str, bytes, set[int]]]:
    websocket = (
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    )
    h2c = ("Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA")
    for name, headers in {"websocket": websocket, "h2c": h2c}.items():
        lines = (
            "GET /api/chat HTTP/1.1",
            "Host: localhost",
            "Connection: Upgrade, HTTP2-Settings, close",
            *headers,
        )
        yield name, ("\r\n".join(lines) + "\r\n\r\n").encode(), {400, 401, 403, 404, 405, 426}
    yield "HTTP/2 without having agreed", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {0, 400, 404, 405, 421, 505}


def _framing() -> Iterator[tuple[str, bytes, set[int]]]:
    smuggled = b"POST /api/pull HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
    chat = "POST /v1/chat/completions HTTP/1.1"
    yield (
        "length and chunks",
        _plain(chat, "Content-Length: 5", "Transfer-Encoding: chunked") + b"0\r\n\r\n" + smuggled,
        {0, 400, 401},
    )
    lengths = {
        "a list": "4, 4",
        "a sign": "+4",
        "hexadecimal": "0x4",
        "negative": "-1",
        "too large": str(2**64),
    }
    for name, value in lengths.items():
        yield (
            f"a length that is {name}",
            _plain(chat, f"Content-Length: {value}") + b"abcd",
            {0, 400, 401, 413},
        )
    yield "two lengths", _plain(chat, "Content-Length: 4", "Content-Length: 5") + b"abcde", {0, 400}
    for value in ("xchunked", "gzip, chunked", "identity", "chunked, chunked"):
        yield (
            f"Transfer-Encoding: {value}",
            _plain(chat, f"Transfer-Encoding: {value}") + b"0\r\n\r\n" + smuggled,
            {0, 400, 401, 501},
        )
    yield "a space before the colon", _plain(chat, "Transfer-Encoding : chunked") + b"0\r\n\r\n", {0, 400}
    yield "a folded header", _plain("GET /v1/models HTTP/1.1", "X-A: b\r\n c"), {0, 400, 401}
    yield "no Host", b"GET /v1/models HTTP/1.1\r\nConnection: close\r\n\r\n", {0, 400}
    yield "two Hosts", _plain("GET /v1/models HTTP/1.1", "Host: other"), {0, 400}
    yield (
        "a Host that is a path",
        b"GET /api/pull HTTP/1.1\r\nHost: a/x?y=\r\nConnection: close\r\n\r\n",
        {0, 400, 403, 421},
    )
    yield (
        "another Host",
        b"GET /v1/models HTTP/1.1\r\nHost: ollama:11434\r\nConnection: close\r\n\r\n",
        {0, 308, 400, 404, 421},
    )
    yield "a long header", _plain("GET /v1/models HTTP/1.1", f"X-A: {'a' * 200_000}"), {0, 400, 414, 431}
    yield (
        "many headers",
        _plain("GET /v1/models HTTP/1.1", *(f"X-{n}: a" for n in range(20_000))),
        {0, 400, 431},
    )
    yield "a long target", _plain(f"GET /v1/models?{'a' * 200_000} HTTP/1.1"), {0, 400, 414, 431}
    yield (
        "Connection names our headers",
        _plain("GET /v1/models HTTP/1.1", "Connection: Authorization, X-Request-Id, X-Forwarded-For"),
        {400, 401},
    )


TRICKS: Final[tuple[tuple[str, bytes, set[int]], ...]] = (
    *_mutations(), *_methods(), *_upgrades(), *_framing(),
)  # fmt: skip


def _h2(*headers: tuple[str, str], method: str = "POST", path: str = "/api/pull") -> list[tuple[str, str]]:
    named = [(":method", method), (":scheme", "https"), (":authority", "localhost"), (":path", path)]
    return [*named, *headers]


H2_TRICKS: Final[dict[str, tuple[list[tuple[str, str]], set[int]]]] = {
    "a mutation": (_h2(), {403}),
    "a path without a slash": (_h2(path="api/pull"), {0, 400}),
    "two paths": (_h2((":path", "/v1/models")), {0, 400}),
    "dot segments": (_h2(path="/v1/models/../../api/pull"), {0, 400, 403}),
    "another host": (_h2(("host", "ollama:11434"), method="GET", path="/v1/models"), {0, 400, 401, 421}),
    "an upper-case name": (_h2(("X-A", "b"), method="GET", path="/v1/models"), {0, 400}),
    "a header of the connection": (
        _h2(("connection", "upgrade"), method="GET", path="/v1/models"),
        {0, 400, 401},
    ),
    "a length in chunks": (
        _h2(("transfer-encoding", "chunked"), method="GET", path="/v1/models"),
        {0, 400, 401},
    ),
    "a websocket": (
        _h2((":protocol", "websocket"), method="CONNECT", path="/api/chat"),
        {0, 400, 403, 404, 405, 501},
    ),
}
