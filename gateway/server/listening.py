"""Sockets that listen: bound by hypercorn's rules, served by our connections."""

from __future__ import annotations

import asyncio
import copy
import socket
import ssl
from collections.abc import Callable, Iterable

from attrs import frozen
from hypercorn.config import Config

BoundAddress = tuple[str, int]
ProtocolFactory = Callable[[], asyncio.BaseProtocol]

# How much the kernel takes beyond what the client's window has room for. Without it that is megabytes:
# produced and paid for, not read; and a slow reader would look stalled, because the kernel
# asks for more only when a third of them has gone.
UNSENT_BYTES = 128 * 1024


class CannotListen(Exception):
    """An address could not be bound; the text says which and why."""

    def __init__(self, bind: str, reason: str) -> None:
        super().__init__(f"{bind}: {reason}")
        self.bind = bind


@frozen
class _Bound:
    """A socket with the address that it was asked for and the TLS spoken on it."""

    bind: str
    sock: socket.socket
    tls: ssl.SSLContext | None


async def listen(connections: ProtocolFactory, config: Config) -> list[asyncio.Server]:
    """Bind all addresses, then listen on all; `connections` makes the protocol of each that is accepted.

    Raises CannotListen with nothing left open.
    """
    bound: list[_Bound] = []
    listeners: list[asyncio.Server] = []
    try:
        for bind, tls in _wanted(config):
            bound += [_Bound(bind, sock, tls) for sock in _bind(config, bind)]
        for one in bound:
            listeners.append(await _listener(connections, config, one))
    except CannotListen:
        stop_listening(listeners)
        for one in bound:
            one.sock.close()
        raise
    return listeners


def bound_addresses(listeners: Iterable[asyncio.Server]) -> list[BoundAddress]:
    """The real addresses, where port 0 was asked for; a Unix socket is (path, 0)."""
    names = [sock.getsockname() for listener in listeners for sock in listener.sockets]
    return [(name[0], name[1]) if isinstance(name, tuple) else (str(name), 0) for name in names]


def stop_listening(listeners: Iterable[asyncio.Server]) -> None:
    """Stop accepting. `wait_closed` is not awaited: since 3.12 it waits for the connections too."""
    for listener in listeners:
        listener.close()


def _wanted(config: Config) -> list[tuple[str, ssl.SSLContext | None]]:
    """Each address with its TLS context; with TLS, `insecure_bind` names the plain ones."""
    tls = config.create_ssl_context()
    if tls is None:
        return [(bind, None) for bind in config.bind]
    tls.set_alpn_protocols(["http/1.1"])  # hypercorn offers h2, which is not spoken here
    return [(bind, tls) for bind in config.bind] + [(bind, None) for bind in config.insecure_bind]


def _bind(config: Config, bind: str) -> list[socket.socket]:
    """Bind one address; one at a time, so that a failure has a name."""
    one = copy.copy(config)
    one.certfile = one.keyfile = None  # would only sort the sockets; which speaks TLS is known here
    one.bind = [bind]
    try:
        sockets = one.create_sockets().insecure_sockets
    except (OSError, OverflowError, ValueError) as error:
        raise CannotListen(bind, _reason(error)) from error
    for sock in sockets:
        sock.set_inheritable(False)  # a child process would keep the port after we are gone
        if sock.family != socket.AF_UNIX and hasattr(socket, "TCP_NOTSENT_LOWAT"):
            # Accepted sockets inherit it.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
    return sockets


async def _listener(connections: ProtocolFactory, config: Config, bound: _Bound) -> asyncio.Server:
    try:
        return await asyncio.get_running_loop().create_server(
            connections,
            sock=bound.sock,
            ssl=bound.tls,
            backlog=config.backlog,
            ssl_handshake_timeout=config.ssl_handshake_timeout if bound.tls else None,
        )
    except OSError as error:
        raise CannotListen(bound.bind, _reason(error)) from error


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return text[:1].lower() + text[1:]
