"""The connections to one backend: made where none is free, kept for a moment after their answer."""

import asyncio
import socket
import ssl
from collections import deque
from typing import Any, Final

import aiohappyeyeballs

from gateway.backends.http1 import Connection
from gateway.errors import BackendUnreachable, ConnectTimeout

# More that are free are closed: after a burst they would only be open.
_MAX_FREE: Final = 256
# How long the addresses of a name are believed.
_RESOLVED_S: Final = 30.0
# A host of two kinds of addresses, of which one leads nowhere, costs no more than this.
_NEXT_ADDRESS_S: Final = 0.25


class Connections:
    """To one host. Without a bound: who may have how many requests there is decided before."""

    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None, *, keep_alive_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._host = host
        self._port = port
        self._tls = tls
        self._keep_alive_s = keep_alive_s
        # Those that were used last are at the end: they are taken first, and the others grow old.
        self._free: deque[Connection] = deque()
        self._used: set[Connection] = set()
        self._sweeping: asyncio.TimerHandle | None = None
        self._is_closed = False
        self._resolved: tuple[float, list[Any]] | None = None

    def free(self) -> Connection | None:
        """One that can be asked at once: nothing came on it unasked, and no end, up to this moment."""
        until_s = self._loop.time() - self._keep_alive_s
        while self._free:
            connection = self._free.pop()
            if connection.idle_since_s > until_s and connection.is_fresh:
                self._used.add(connection)
                return connection
            connection.abort()
        return None

    async def made(self, within_s: float) -> Connection:
        """A new one. Raises BackendUnreachable or ConnectTimeout: nothing was sent."""
        try:
            async with asyncio.timeout(within_s):
                connection = await self._connected()
        except TimeoutError:
            self._resolved = None
            raise ConnectTimeout("The model backend could not be reached in time.") from None
        except (OSError, ValueError):
            self._resolved = None
            raise BackendUnreachable("The model backend could not be reached.") from None
        self._used.add(connection)
        return connection

    def give_back(self, connection: Connection) -> None:
        """Keep it, when it can be used again; else it is closed, and the backend's work with it."""
        self._used.discard(connection)
        if self._is_closed or not connection.is_reusable or len(self._free) >= _MAX_FREE:
            connection.abort()
            return
        connection.take()  # what nobody wanted to read
        connection.idle_since_s = self._loop.time()
        self._free.append(connection)
        if self._sweeping is None:
            self._sweeping = self._loop.call_later(self._keep_alive_s, self._sweep)

    def close(self) -> None:
        self._is_closed = True
        if self._sweeping is not None:
            self._sweeping.cancel()
        for connection in (*self._free, *self._used):
            connection.abort()
        self._free.clear()

    def _sweep(self) -> None:
        """Close what was not used in time."""
        self._sweeping = None
        until_s = self._loop.time() - self._keep_alive_s
        while self._free and self._free[0].idle_since_s <= until_s:
            self._free.popleft().abort()
        if self._free:
            due_s = self._free[0].idle_since_s + self._keep_alive_s
            self._sweeping = self._loop.call_at(due_s, self._sweep)

    async def _connected(self) -> Connection:
        sock = await aiohappyeyeballs.start_connection(
            await self._addresses(), happy_eyeballs_delay=_NEXT_ADDRESS_S, interleave=1, loop=self._loop
        )
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            name = self._host if self._tls is not None else None
            _, connection = await self._loop.create_connection(
                Connection, sock=sock, ssl=self._tls, server_hostname=name
            )
        except BaseException:
            sock.close()
            raise
        return connection

    async def _addresses(self) -> list[Any]:
        if self._resolved is not None and self._resolved[0] > self._loop.time():
            return self._resolved[1]
        found = await self._loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        self._resolved = self._loop.time() + _RESOLVED_S, list(found)
        return self._resolved[1]
