"""What all connections of one server share, and the clock that ends the slow ones."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from attrs import Factory, define, frozen

from gateway.server.asgi import ASGIApp
from gateway.server.lifecycle import Lifecycle
from gateway.server.starts import Starts


@frozen
class Bounds:
    """How long and how much a client may. Times are kept to within a quarter of the shortest."""

    head_s: float = 5.0  # SPEC 12; also for a new connection that sends nothing
    idle_s: float = 75.0  # between requests; nginx's keepalive_timeout
    write_stall_s: float = 30.0  # SPEC 12: without reading a single byte
    linger_s: float = 2.0  # reading on after an early answer, so that no RST overtakes it
    linger_bytes: int = 64 * 1024 * 1024  # three times the largest body that is taken by default
    body_buffer_bytes: int = 64 * 1024  # of a body that the app has not asked for yet
    max_connections: int = 10_000

    @property
    def sweep_s(self) -> float:
        """How often the deadlines are looked at, in seconds."""
        return min(1.0, min(self.head_s, self.idle_s, self.write_stall_s, self.linger_s) / 4)


@frozen
class RefusedRequest:
    """A request that was answered here and never reached the app.

    `target` is what came of it, at most MAX_TARGET_BYTES and possibly nothing; `peer` is the host that is
    connected, "" for a Unix socket; `bytes_out` is the size of the answer's body.
    """

    request_id: str
    method: str
    target: bytes
    peer: str
    status: int
    duration_s: float
    bytes_out: int


class Connection(Protocol):
    """What the server needs of a connection, beyond its being an asyncio protocol."""

    deadline: float
    stall_deadline: float

    def expire(self, now: float) -> None: ...
    def close_if_idle(self) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...


class Cycle(Protocol):
    """A request that the app is at work on, or will be in its turn: then it has a task."""

    task: asyncio.Task[None] | None


@define(eq=False)
class Service:
    """The app with all that its connections share.

    `on_error` is given what the app or `on_refused` raised; `new_id` makes the ids of the answers that
    the app never sees. `on_refused` is given each request that was refused before the app was called,
    save those whose head never ended and noise without a method. One sweep looks at all deadlines: a
    timer for each would cost more than a request.
    """

    app: ASGIApp
    lifecycle: Lifecycle
    new_id: Callable[[], str]
    on_error: Callable[[BaseException], None]
    bounds: Bounds = Bounds()
    on_refused: Callable[[RefusedRequest], None] | None = None
    state: Mapping[str, Any] = Factory(dict)
    root_path: str = ""
    loop: asyncio.AbstractEventLoop = Factory(asyncio.get_running_loop)
    connections: set[Connection] = Factory(set)
    cycles: set[Cycle] = Factory(set)
    starts: Starts = Factory(lambda self: Starts(self.loop), takes_self=True)
    done: asyncio.Future[None] = Factory(lambda self: _done(self.loop), takes_self=True)
    """What has nothing to wait for returns this."""
    _timer: asyncio.TimerHandle | None = None
    _emptied: asyncio.Future[None] | None = None

    def admit(self, connection: Connection) -> bool:
        """Count the connection in, unless there are too many."""
        if len(self.connections) >= self.bounds.max_connections:
            return False
        self.connections.add(connection)
        return True

    def forget(self, connection: Connection) -> None:
        self.connections.discard(connection)
        if self._emptied is not None and not self.connections and not self._emptied.done():
            self._emptied.set_result(None)

    def tell_refused(self, request: RefusedRequest) -> None:
        """Hand it over; what that raises is no matter of the connection's."""
        if self.on_refused is None:
            return
        try:
            self.on_refused(request)
        except Exception as error:  # noqa: BLE001 - the callback is foreign, as the app is
            self.on_error(error)

    def begin(self, cycle: Cycle) -> None:
        self.cycles.add(cycle)
        self.lifecycle.in_flight += 1

    def end(self, cycle: Cycle) -> None:
        self.cycles.discard(cycle)
        self.lifecycle.in_flight -= 1

    def tasks(self) -> set[asyncio.Task[None]]:
        """The requests in flight."""
        return {cycle.task for cycle in self.cycles if cycle.task is not None}

    def sweep(self) -> None:
        """Look at the deadlines now and, from now on, every `sweep_s`."""
        now = self.loop.time()
        for connection in tuple(self.connections):
            if connection.deadline <= now or connection.stall_deadline <= now:
                connection.expire(now)
        self._timer = self.loop.call_later(self.bounds.sweep_s, self.sweep)

    def stop_sweeping(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def close_idle(self) -> None:
        for connection in tuple(self.connections):
            connection.close_if_idle()

    async def close_all(self, within_s: float) -> None:
        """Close every connection after what is written has gone out; after `within_s` regardless."""
        if self.connections:
            self._emptied = self.loop.create_future()
            for connection in tuple(self.connections):
                connection.close()
            await asyncio.wait((self._emptied,), timeout=within_s)
        for connection in tuple(self.connections):
            connection.abort()


def _done(loop: asyncio.AbstractEventLoop) -> asyncio.Future[None]:
    future: asyncio.Future[None] = loop.create_future()
    future.set_result(None)
    return future
