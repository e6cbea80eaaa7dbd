"""Serve an app until a signal comes; then drain, within a bound, and return."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

from attrs import frozen
from hypercorn.config import Config

from gateway.server.asgi import ASGIApp
from gateway.server.http1 import Http1Connection
from gateway.server.lifecycle import Lifecycle, Shutdown, on_signals
from gateway.server.lifespan import AppLifespan
from gateway.server.listening import (
    BoundAddress,
    ProtocolFactory,
    bound_addresses,
    listen,
    stop_listening,
)
from gateway.server.service import Bounds, RefusedRequest, Service
from gateway.server.service_manager import ServiceManager
from gateway.server.stock import stock_connections

try:
    import uvloop

    _new_event_loop: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
except ImportError:  # no wheel for the platform: the same behaviour, slower
    _new_event_loop = asyncio.new_event_loop

DRAIN_S = 120.0  # SPEC 12; shorter than the 150 s that the orchestrator is told to wait
LATE_GRACE_S = 1.0  # for requests that came during the drain: probes and refusals, milliseconds each
ACCEPTED_GRACE_S = 0.05  # for connections that the loop has accepted and not handed over yet
FINAL_GRACE_S = 5.0  # for a cancelled request to write its last frame, and for that to be flushed

DEFAULT_BOUNDS = Bounds()
# Of those who look after the process: a few probes and scrapers, and nobody whose connection has to be kept.
_BESIDE_BOUNDS = Bounds(max_connections=64, write_stall_s=10.0)
_BESIDE_GRACE_S = 1.0


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run `serve(…)` to its end, on uvloop where there is one."""
    with asyncio.Runner(loop_factory=_new_event_loop) as runner:
        runner.run(main)


def _ignore(_: object) -> None:
    return None


@frozen
class Beside:
    """A second app on addresses of its own, served for as long as the process lives.

    From before the first app starts until it has stopped, its drain included: whoever looks after the process
    can always ask. It has no lifespan. Of `config` count bind and backlog; `on_listening` is as for `serve`.
    """

    app: ASGIApp
    config: Config
    on_listening: Callable[[list[BoundAddress]], None] = _ignore


async def serve(
    app: ASGIApp,
    config: Config,
    *,
    lifecycle: Lifecycle,
    new_id: Callable[[], str],
    on_error: Callable[[BaseException], None],
    drain_s: float = DRAIN_S,
    bounds: Bounds = DEFAULT_BOUNDS,
    on_listening: Callable[[list[BoundAddress]], None] = _ignore,
    on_refused: Callable[[RefusedRequest], None] | None = None,
    shutdown: Shutdown | None = None,
    beside: Beside | None = None,
    on_hangup: Callable[[], None] | None = None,
    service_manager: ServiceManager | None = None,
    by_hypercorn: bool = False,
) -> None:
    """Start the app, serve it, and stop it; returns after a drain.

    Of `config` count: bind, insecure_bind, backlog, root_path, the TLS settings, startup_timeout and
    shutdown_timeout. `on_error` is given what the app raised, `on_refused` what
    the app never saw (see Service). `on_listening` is told the real
    addresses; a Unix socket has port 0. Without `shutdown`, SIGTERM and SIGINT ask for one, and SIGHUP calls
    `on_hangup`. `service_manager` is told of it all. `by_hypercorn`: hypercorn speaks HTTP; of `bounds`
    counts `max_connections` alone then, and `on_refused` is never called. Raises StartFailed, CannotListen
    (after the app has stopped again) or StopFailed.
    """
    stop = shutdown or Shutdown()
    manager = service_manager or ServiceManager()
    async with AsyncExitStack() as around:
        await around.enter_async_context(manager.beating())
        if shutdown is None:
            around.enter_context(on_signals(stop, on_hangup))
        if beside is not None:
            await around.enter_async_context(_served_beside(beside, new_id, on_error))
        lifespan = AppLifespan(app, config)
        if not await _started(lifespan, stop):
            return
        try:
            service = Service(
                app,
                lifecycle,
                new_id,
                on_error,
                bounds,
                on_refused,
                state=lifespan.state,
                root_path=config.root_path,
            )
            listeners = await listen(_connections(service, config, by_hypercorn=by_hypercorn), config)
            await _serve_until_drained(service, listeners, stop, on_listening, manager, drain_s=drain_s)
        finally:
            await lifespan.stop()


@asynccontextmanager
async def _served_beside(
    beside: Beside, new_id: Callable[[], str], on_error: Callable[[BaseException], None]
) -> AsyncIterator[None]:
    """Raises CannotListen."""
    service = Service(beside.app, Lifecycle(), new_id, on_error, _BESIDE_BOUNDS)
    listeners = await listen(partial(Http1Connection, service), beside.config)
    service.sweep()
    try:
        beside.on_listening(bound_addresses(listeners))
        yield
    finally:
        stop_listening(listeners)
        await service.close_all(_BESIDE_GRACE_S)
        service.stop_sweeping()


async def _started(lifespan: AppLifespan, stop: Shutdown) -> bool:
    """Start the app, unless the shutdown is asked for before it has started."""
    starting = asyncio.create_task(lifespan.start())
    asked = asyncio.create_task(stop.asked.wait())
    await asyncio.wait((starting, asked), return_when=asyncio.FIRST_COMPLETED)
    asked.cancel()
    if starting.done():
        starting.result()
        return True
    starting.cancel()
    await asyncio.wait((starting,))
    return False


def _connections(service: Service, config: Config, *, by_hypercorn: bool) -> ProtocolFactory:
    return stock_connections(service, config) if by_hypercorn else partial(Http1Connection, service)


async def _serve_until_drained(
    service: Service,
    listeners: list[asyncio.Server],
    stop: Shutdown,
    on_listening: Callable[[list[BoundAddress]], None],
    manager: ServiceManager,
    *,
    drain_s: float,
) -> None:
    service.sweep()
    try:
        on_listening(bound_addresses(listeners))
        manager.ready()
        await stop.asked.wait()
        manager.stopping(service.lifecycle.in_flight)
        await _drain(service, listeners, stop.hurried, drain_s)
    finally:
        stop_listening(listeners)
        await service.close_all(FINAL_GRACE_S)
        service.stop_sweeping()


async def _drain(
    service: Service, listeners: Iterable[asyncio.Server], hurried: asyncio.Event, drain_s: float
) -> None:
    """Wait for the requests that are in flight now, then for late ones a little, then cancel.

    The listener stays open meanwhile: a probe has to be told 503, and not find the port closed.
    """
    service.starts.run_all()
    await asyncio.sleep(0)  # what came before the signal is let in
    service.lifecycle.draining = True
    service.close_idle()
    until = service.loop.time() + drain_s
    await _ended(service.tasks(), hurried, drain_s)
    stop_listening(listeners)
    if not hurried.is_set():
        await asyncio.sleep(ACCEPTED_GRACE_S)
    await _ended(service.tasks(), hurried, min(LATE_GRACE_S, max(0.0, until - service.loop.time())))
    cancelled = service.tasks()
    for task in cancelled:
        task.cancel()
    if cancelled:
        await asyncio.wait(cancelled, timeout=FINAL_GRACE_S)


async def _ended(tasks: set[asyncio.Task[None]], hurried: asyncio.Event, within_s: float) -> None:
    """Return when all have ended, the time is over, or somebody is in a hurry."""
    if not tasks:
        return
    all_ended = asyncio.create_task(asyncio.wait(tasks))
    hurry = asyncio.create_task(hurried.wait())
    await asyncio.wait((all_ended, hurry), timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
    all_ended.cancel()
    hurry.cancel()
