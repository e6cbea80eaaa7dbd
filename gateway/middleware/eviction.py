"""Eviction: what runs for a caller that would not be let in any more is ended, within seconds.

A request is let in once and may then run for an hour. Its key may be revoked meanwhile, its tenant suspended
or deleted, its address not allowed any more. One look a second: only where the revision of tenants and keys
has grown since a request was last judged, its key is read again, once for all that it runs. While the
database is away nobody is judged: what runs goes on.
"""

import asyncio
from collections.abc import Awaitable
from typing import Final

from attrs import define
from loguru import logger
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.errors import GatewayError, Overloaded, StoreUnavailable, Unauthenticated
from gateway.middleware.context import exchange_of
from gateway.model import Exchange, Principal
from gateway.ports import KnownCallers
from gateway.rules.entry import refusal_of

LOOK_S: Final = 1.0


@define(eq=False)
class Run:
    """A request under way. `judged_at` is the revision that its caller was last judged at."""

    exchange: Exchange
    principal: Principal
    task: asyncio.Task[object]
    judged_at: int


class Running:
    """All requests under way that were let in by a key. `start` and `stop` inside the event loop."""

    def __init__(self, callers: KnownCallers, *, look_s: float = LOOK_S) -> None:
        self._callers = callers
        self._look_s = look_s
        self._runs: set[Run] = set()
        self._looking: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._looking = asyncio.create_task(self._look_for_ever())

    async def stop(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait([self._looking])

    def begin(self, exchange: Exchange, principal: Principal) -> Run:
        """From here on the current task may be cancelled, with the reason in `exchange.evicted`."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a request runs outside of a task")
        run = Run(exchange, principal, task, principal.epoch)
        self._runs.add(run)
        return run

    def end(self, run: Run) -> None:
        self._runs.discard(run)

    async def look(self) -> None:
        """Judge those anew that were judged before the last change."""
        revision = self._callers.revision
        for run in [run for run in self._runs if run.judged_at != revision]:
            try:
                refusal, judged_at = await self._judged(run)
            except (StoreUnavailable, Overloaded):
                return  # nobody knows: the next look may
            if run not in self._runs:
                continue
            if refusal is None:
                run.judged_at = judged_at
            else:
                self._end(run, refusal)

    async def _judged(self, run: Run) -> tuple[GatewayError | None, int]:
        renewed = await self._callers.renewed(run.principal)
        if renewed is None:
            return Unauthenticated(), 0
        return refusal_of(renewed, run.exchange.peer), renewed.epoch

    def _end(self, run: Run, refusal: GatewayError) -> None:
        """Cancel what it waits for. Again with the next look, should a slow reader hold the last words up."""
        if run.exchange.evicted is None:
            logger.bind(request_id=run.exchange.request_id).info(f"a request was ended: {refusal.code}")
        run.exchange.evicted = refusal
        run.task.cancel()

    async def _look_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._look_s)
            try:
                await self.look()
            except Exception:  # noqa: BLE001 - a defect must not end this for good
                logger.exception("running requests could not be judged; it is tried again")


class Eviction:
    """Guard what asks a model: all else is over in a moment."""

    def __init__(self, app: ASGIApp, *, running: Running) -> None:
        self.app = app
        self.running = running

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        exchange = exchange_of(scope)
        if exchange.plan is None or exchange.principal is None:
            return self.app(scope, receive, send)
        return self._guarded(exchange.principal, scope, receive, send)

    async def _guarded(self, principal: Principal, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = exchange_of(scope)
        run = self.running.begin(exchange, principal)
        try:
            await self.app(scope, receive, send)
        except asyncio.CancelledError:
            # Where an answer is under way the relay has told the caller, and this is not reached.
            if exchange.evicted is None:
                raise
            run.task.uncancel()
            raise exchange.evicted from None
        finally:
            self.running.end(run)
