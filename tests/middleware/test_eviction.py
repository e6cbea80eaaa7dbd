"""What runs for a caller that would not be let in any more is ended: told in its own words, and once."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from attrs import define, evolve, field

from gateway.accounting import Plan
from gateway.errors import AddressNotAllowed, GatewayError, StoreUnavailable, TenantSuspended, Unauthenticated
from gateway.middleware.context import open_exchange
from gateway.middleware.eviction import Eviction, Running
from gateway.model import Exchange, Principal
from gateway.rules.addresses import networks_of
from tests.asgi import PRINCIPAL, exchange, nobody, scope_of

PLAN = Plan("t1", "r1", (), 0, 0, 0.0, 1)


@define
class Callers:
    """What is known of the one caller: None when its key was revoked. `fault` is raised instead."""

    now: Principal | None = PRINCIPAL
    revision: int | None = 1
    fault: Exception | None = None
    asked: int = 0
    was_asked: asyncio.Event = field(factory=asyncio.Event)

    async def renewed(self, _: Principal) -> Principal | None:
        self.asked += 1
        self.was_asked.set()
        if self.fault is not None:
            raise self.fault
        return self.now and evolve(self.now, epoch=self.revision or 0)

    def change(self, now: Principal | None) -> None:
        self.now, self.revision = now, (self.revision or 0) + 1


@define
class Endless:
    """An app that never ends by itself, unless somebody says so."""

    began: asyncio.Event = field(factory=asyncio.Event)
    ends: asyncio.Event = field(factory=asyncio.Event)

    async def __call__(self, *_: Any) -> None:
        self.began.set()
        await self.ends.wait()


async def run(
    running: Running, app: Callable[..., Any], **slots: Any
) -> tuple[Exchange, "asyncio.Task[None]"]:
    """Begin a request of PRINCIPAL's that asks a model."""
    given = exchange(**{"principal": evolve(PRINCIPAL, epoch=1), "plan": PLAN, **slots})
    scope = scope_of()
    open_exchange(scope, given)

    async def request() -> None:
        await Eviction(app, running=running)(scope, nobody, nobody)

    task = asyncio.create_task(request())
    if isinstance(app, Endless):
        await app.began.wait()
    return given, task


@pytest.mark.parametrize(
    ("now", "reason"),
    [
        (None, Unauthenticated),
        (evolve(PRINCIPAL, is_suspended=True), TenantSuspended),
        (evolve(PRINCIPAL, allow_ip=networks_of("10.0.0.0/8")), AddressNotAllowed),
    ],
    ids=["revoked", "suspended", "address"],
)
async def test_a_request_ends_with_the_reason(now: Principal | None, reason: type[GatewayError]):
    """The same that a new one would be refused with."""
    callers = Callers()
    running = Running(callers)
    given, task = await run(running, Endless())

    callers.change(now)
    await running.look()

    with pytest.raises(reason):
        await task
    assert isinstance(given.evicted, reason)
    assert task.cancelling() == 0


async def test_what_has_not_changed_is_not_asked_for():
    """One look costs a comparison; after a change one reading."""
    callers, app = Callers(), Endless()
    running = Running(callers)
    _, task = await run(running, app)

    await running.look()
    before = callers.asked
    callers.change(PRINCIPAL)
    await running.look()
    await running.look()
    app.ends.set()
    await task

    assert (before, callers.asked) == (0, 1)


async def test_while_the_database_is_away_nobody_is_judged():
    """Running streams go on; the next look that gets an answer ends them."""
    callers = Callers()
    running = Running(callers)
    given, task = await run(running, Endless())

    callers.change(None)
    callers.fault = StoreUnavailable()
    await running.look()
    meanwhile = given.evicted
    callers.fault = None
    await running.look()

    assert meanwhile is None
    with pytest.raises(Unauthenticated):
        await task


async def test_a_request_that_is_told_by_its_relay_ends_normally():
    """The last frame went out; the cancellation was taken back there."""
    callers = Callers()
    running = Running(callers)

    class Relaying(Endless):
        async def __call__(self, *_: Any) -> None:
            try:
                await super().__call__()
            except asyncio.CancelledError:
                task = asyncio.current_task()
                assert task is not None
                task.uncancel()

    given, task = await run(running, Relaying())
    callers.change(None)
    await running.look()
    await task

    assert isinstance(given.evicted, Unauthenticated)


async def test_who_is_held_up_by_a_slow_reader_is_ended_again():
    """The last words may wait for somebody who does not read: with the next look nobody waits any more."""
    callers = Callers()
    running = Running(callers)
    stuck = asyncio.Event()

    class Stuck(Endless):
        async def __call__(self, *_: Any) -> None:
            try:
                await super().__call__()
            except asyncio.CancelledError:
                task = asyncio.current_task()
                assert task is not None
                task.uncancel()
                stuck.set()
                await asyncio.Event().wait()

    _, task = await run(running, Stuck())
    callers.change(None)
    await running.look()
    await stuck.wait()
    await running.look()

    with pytest.raises(Unauthenticated):
        await task


async def test_any_other_cancellation_stays_one():
    """A client that leaves, a drain that is over."""
    _, task = await run(Running(Callers()), Endless())

    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_asks_no_model_is_not_watched():
    """It is over in a moment."""
    callers, app = Callers(), Endless()
    running = Running(callers)
    _, task = await run(running, app, plan=None)

    callers.change(None)
    await running.look()
    app.ends.set()
    await task

    assert callers.asked == 0


async def test_it_looks_by_itself_and_survives_a_defect():
    """Once a second, for as long as the process serves."""
    callers = Callers(fault=RuntimeError("a defect"))
    running = Running(callers, look_s=0.001)
    await running.start()
    try:
        _, task = await run(running, Endless())
        callers.change(None)
        await callers.was_asked.wait()
        callers.fault = None
        with pytest.raises(Unauthenticated):
            await asyncio.wait_for(task, 60)
    finally:
        await running.stop()
