"""The ASGI scope of a request."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import unquote

from attrs import frozen

from gateway.server.asgi import Scope
from gateway.server.head import Head
from gateway.server.service import Service

ASGI = {"version": "3.0", "spec_version": "2.4"}  # 2.4: send raises OSError after a disconnect

Address = tuple[str, int | None] | None


@frozen
class Peers:
    """The two ends of a connection and the scheme spoken on it, as a scope names them."""

    client: Address
    server: Address
    scheme: str


def peers_of(transport: asyncio.BaseTransport) -> Peers:
    secure = transport.get_extra_info("sslcontext") is not None
    return Peers(
        _address(transport.get_extra_info("peername")),
        _address(transport.get_extra_info("sockname")),
        "https" if secure else "http",
    )


def scope_of(head: Head, peers: Peers, service: Service) -> Scope:
    """Describe the request; `raw_path` is exactly what was received before the `?`.

    `path` is decoded leniently and never raises: decisions belong on `raw_path`.
    """
    raw_path, _, query = head.target.partition(b"?")
    path = raw_path.decode("latin-1")
    return {
        "type": "http",
        "asgi": ASGI,
        "http_version": head.version,
        "method": head.method,
        "scheme": peers.scheme,
        "path": unquote(path, errors="replace") if "%" in path else path,
        "raw_path": raw_path,
        "query_string": query,
        "root_path": service.root_path,
        "headers": head.headers,
        "client": peers.client,
        "server": peers.server,
        "extensions": {},
        "state": dict(service.state),
    }


def _address(name: Any) -> Address:
    """A socket's name as (host, port). A Unix socket has a path and no port; its client has nothing."""
    if isinstance(name, tuple):
        return name[0], name[1]
    return (str(name), None) if name else None
