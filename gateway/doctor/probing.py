"""Asking an address over HTTP, without a key and without following anything."""

import asyncio
import http.client
import socket
import ssl
from contextlib import suppress
from typing import Final
from urllib.parse import urlsplit

from attrs import frozen

_WAIT_S: Final = 2.0
_MAX_BYTES: Final = 1024 * 1024


@frozen
class Told:
    status: int
    server: str
    body: bytes


async def get(url: str, headers: dict[str, str] | None = None) -> Told | None:
    """What is answered there; None where nobody answers."""
    return await asyncio.to_thread(_get, url, headers or {})


def _get(url: str, headers: dict[str, str]) -> Told | None:
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        connection = http.client.HTTPSConnection(
            host, port, timeout=_WAIT_S, context=ssl.create_default_context()
        )
    else:
        connection = http.client.HTTPConnection(host, port, timeout=_WAIT_S)
    try:
        connection.request("GET", parts.path or "/", headers=headers)
        answer = connection.getresponse()
        return Told(answer.status, answer.getheader("server", ""), answer.read(_MAX_BYTES))
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


async def is_open(host: str, port: int) -> bool:
    """Whether somebody takes connections there."""
    try:
        async with asyncio.timeout(_WAIT_S):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return True


def own_addresses() -> list[str]:
    """This machine's addresses that others may reach, as far as it tells: IPv4, and no loopback."""
    found = set()
    with suppress(OSError):
        found = {str(one[4][0]) for one in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    # The address that the way to anybody begins at; nothing is sent.
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        found.add(str(probe.getsockname()[0]))
    return sorted(one for one in found if not one.startswith("127."))
