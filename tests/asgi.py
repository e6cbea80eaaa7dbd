"""Calling an ASGI app without a server, and the values that layers' tests share."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from attrs import define, field, frozen

from gateway.model import AuditRow, Exchange, Principal

App = Callable[..., Awaitable[None]]

PRINCIPAL = Principal(tenant_id="t1", tenant="acme", key_id="k1", key="ci", prefix="nz_abc12345")
HOST = (b"host", b"gateway.example")


@frozen
class Answered:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@define
class FakeClock:
    """Stands still unless it is told to move."""

    wall: float = 1_800_000_000.0
    monotonic: float = 100.0

    def now(self) -> float:
        return self.wall

    def elapsed(self) -> float:
        return self.monotonic


@define
class Rows:
    """A sink that keeps what it is given."""

    rows: list[AuditRow] = field(factory=list)
    is_full: bool = False

    def record(self, row: AuditRow) -> None:
        self.rows.append(row)


@define
class Drained:
    """A fleet of one: all that it spooled is in the ledger."""

    async def drained(self) -> None: ...


@define
class FakeLifecycle:
    draining: bool = False


def scope_of(
    method: str = "GET",
    target: str = "/",
    headers: Iterable[tuple[bytes, bytes]] = (HOST,),
    client: str = "192.0.2.1",
) -> dict[str, Any]:
    path, _, query = target.partition("?")
    return {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode("latin-1"),
        "query_string": query.encode("latin-1"),
        "headers": list(headers),
        "client": (client, 50000),
        "server": ("127.0.0.1", 8080),
        "scheme": "http",
        "root_path": "",
        "state": {},
    }


async def nobody(*_: Any) -> Any:
    """A `receive` or `send` that a test expects to stay unused."""
    raise AssertionError("nobody is there")


async def call(
    app: App,
    method: str = "GET",
    target: str = "/",
    *,
    headers: Iterable[tuple[bytes, bytes]] = (HOST,),
    body: bytes | AsyncIterator[bytes] = b"",
    scope: dict[str, Any] | None = None,
) -> Answered:
    """Send one request and gather the answer. The client stays connected until it is complete."""
    messages: list[MutableMapping[str, Any]] = []
    pieces = _messages(body)
    done = asyncio.Event()

    async def receive() -> dict[str, Any]:
        async for message in pieces:
            return message
        await done.wait()
        return {"type": "http.disconnect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        messages.append(message)

    await app(scope or scope_of(method, target, headers), receive, send)
    start = messages[0]
    return Answered(
        start["status"],
        {name.decode(): value.decode() for name, value in start["headers"]},
        b"".join(message.get("body", b"") for message in messages[1:]),
    )


async def _messages(body: bytes | AsyncIterator[bytes]) -> AsyncIterator[dict[str, Any]]:
    if isinstance(body, bytes):
        yield {"type": "http.request", "body": body, "more_body": False}
        return
    async for piece in body:
        yield {"type": "http.request", "body": piece, "more_body": True}
    yield {"type": "http.request", "body": b"", "more_body": False}


def exchange(**slots: Any) -> Exchange:
    """An Exchange as Audit opens it, with some slots set."""
    from gateway.model import RequestHead, Route
    from gateway.rules.endpoints import route_of, surface_of

    method, path = slots.pop("method", "POST"), slots.pop("path", "/api/chat")
    route = slots.pop("route", None) or route_of(method, path.encode())
    given = Exchange(
        request_id=slots.pop("request_id", "r1"),
        received_at=1_800_000_000.0,
        started=100.0,
        method=method,
        path=path,
        peer="192.0.2.1",
        head=slots.pop("head", RequestHead({})),
        route=route,
        surface=surface_of(path.encode()),
    )
    if isinstance(route, Route):
        given.operation = route.operation
    for name, value in slots.items():
        setattr(given, name, value)
    return given
