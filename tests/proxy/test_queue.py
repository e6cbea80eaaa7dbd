"""The queue of one backend as requests meet it: they wait, get in, are refused, and leave."""

import asyncio
import math
from typing import Any

import pytest

from gateway.errors import BackendBusy, QueueFull
from gateway.proxy import queue as queue_module
from gateway.proxy.queue import BackendQueue, Closed, QueueBounds
from gateway.rules.fair_queue import Ticket
from tests.asgi import FakeClock
from tests.proxy.doubles import slot_in, ticket

SOON = 30


def queue_of(
    slots: int | None = 1, clock: Any = None, *, waiting: int = 10, wait_s: float = 1000, turn_s: float = 1000
) -> BackendQueue:
    return BackendQueue(slots, QueueBounds(waiting, wait_s, turn_s), clock or FakeClock())


class LoopClock:
    """The event loop's own."""

    def now(self) -> float:
        return 0.0

    def elapsed(self) -> float:
        return asyncio.get_running_loop().time()


async def waiting_in(queue: BackendQueue, one: Ticket) -> "asyncio.Task[BackendQueue]":
    """One that waits by now."""
    task = asyncio.create_task(slot_in(queue, given=one))
    await asyncio.sleep(0)
    return task


async def test_a_free_slot_is_had_at_once():
    queue = queue_of(slots=2)

    assert [queue.enter_at_once(ticket()) for _ in range(3)] == [True, True, False]
    assert (queue.running, queue.waiting) == (2, 0)


async def test_who_waits_gets_the_slot_that_another_leaves():
    queue, first, second = queue_of(), ticket(), ticket("t2")
    queue.enter_at_once(first)
    waits = await waiting_in(queue, second)
    assert queue.position(second) == 1

    queue.leave(first, is_served=True)
    await asyncio.wait_for(waits, SOON)

    assert (queue.running, queue.waiting) == (1, 0)
    assert not queue.enter_at_once(ticket())


async def test_who_leaves_while_waiting_takes_no_slot():
    queue, first, second, third = queue_of(), ticket(), ticket("t2"), ticket("t3")
    queue.enter_at_once(first)
    waits = [await waiting_in(queue, one) for one in (second, third)]

    waits[0].cancel()
    await asyncio.wait(waits[:1])
    queue.leave(first, is_served=True)
    await asyncio.wait_for(waits[1], SOON)

    assert (queue.running, queue.waiting) == (1, 0)


@pytest.mark.parametrize("is_cancelled_first", [True, False])
async def test_who_leaves_as_its_slot_comes_gives_it_back(is_cancelled_first: bool):
    """In one turn of the loop, in either order: no slot is lost."""
    queue, first, second = queue_of(), ticket(), ticket("t2")
    queue.enter_at_once(first)
    waits = await waiting_in(queue, second)

    steps = [waits.cancel, lambda: queue.leave(first, is_served=True)]
    for step in steps if is_cancelled_first else reversed(steps):
        step()  # type: ignore[operator]
    await asyncio.wait([waits])

    assert waits.cancelled()
    assert (queue.running, queue.waiting) == (0, 0)
    assert queue.enter_at_once(ticket())


async def test_who_leaves_as_its_queue_closes_holds_no_slot():
    """In one turn of the loop: it was refused, so there is none that it could give back."""
    queue, first = queue_of(), ticket()
    queue.enter_at_once(first)
    waits = await waiting_in(queue, ticket("t2"))

    queue.close()
    waits.cancel()
    await asyncio.wait([waits], timeout=SOON)

    assert waits.cancelled()
    assert (queue.running, queue.waiting) == (1, 0)


async def test_a_full_queue_refuses():
    queue = queue_of(waiting=1)
    queue.enter_at_once(ticket())
    waits = await waiting_in(queue, ticket())

    with pytest.raises(QueueFull) as caught:
        await slot_in(queue, given=ticket())

    assert (caught.value.status, caught.value.code) == (503, "queue_full")
    assert queue.expected_wait_s(ticket()) == math.inf
    waits.cancel()


async def test_who_fills_the_queue_makes_room_for_another():
    """The newest of the tenant that has most in it is refused instead, with a time to come back."""
    queue, comes = queue_of(waiting=3), ticket("few")
    queue.enter_at_once(ticket("many"))
    many = [await waiting_in(queue, ticket("many")) for _ in range(3)]
    assert queue.expected_wait_s(comes) == 0.0
    assert queue.expected_wait_s(ticket("many")) == math.inf

    few = await waiting_in(queue, comes)
    await asyncio.wait(many[2:], timeout=SOON)

    refused = many[2].exception()
    assert isinstance(refused, QueueFull)
    assert refused.retry_after_s
    assert (queue.running, queue.waiting) == (1, 3)
    assert not any(task.done() for task in (*many[:2], few))
    with pytest.raises(QueueFull):
        await slot_in(queue, given=ticket("many"))
    with pytest.raises(QueueFull):
        await slot_in(queue, given=ticket("few", patience_s=-1))
    assert queue.waiting == 3, "nobody gives way to one that does not stay"
    for task in (*many[:2], few):
        task.cancel()


async def test_a_wait_that_would_be_too_long_is_refused_at_once():
    """With an estimate of when it would not be; the sentence says what is known."""
    clock, queue = FakeClock(), None
    queue = queue_of(clock=clock, wait_s=15)
    served = ticket()
    queue.enter_at_once(served)
    clock.monotonic += 10
    queue.leave(served, is_served=True)
    queue.enter_at_once(ticket())
    waits = await waiting_in(queue, ticket())

    with pytest.raises(QueueFull, match="takes about 20 s") as caught:
        await slot_in(queue, given=ticket())

    assert caught.value.retry_after_s == 5
    assert queue.waiting == 1
    waits.cancel()


async def test_time_alone_lets_a_model_in():
    """Nothing else happens: the turn of the model that is there is over."""
    queue = queue_of(slots=2, clock=LoopClock(), turn_s=0.05)
    first, keeps = ticket(model="x"), ticket(model="x")
    assert queue.enter_at_once(first)
    assert queue.enter_at_once(ticket(model="y")), "nobody waits for x"
    waits = await waiting_in(queue, keeps)

    await asyncio.sleep(0)
    assert not waits.done()
    queue.leave(first, is_served=True)

    await asyncio.wait_for(waits, SOON)


async def test_the_backend_s_word_lets_a_model_in():
    """It was taken for one that has to go for the other, and it has stayed."""
    queue = queue_of(slots=3)
    for model in "xy":
        one = ticket(model=model)
        queue.enter_at_once(one)
        queue.heard(one)
    waits = await waiting_in(queue, ticket(model="x"))
    assert not waits.done()

    queue.seen_loaded(frozenset("xy"))

    await asyncio.wait_for(waits, SOON)


@pytest.mark.parametrize("patience_s", [0.01, None], ids=["waited too long", "leaves"])
async def test_who_no_longer_waits_lets_in_who_waited_for_that(patience_s: float | None):
    """y has a slot, since two of x hang, and only waits because somebody waits for x, which is there."""
    clock = FakeClock()
    queue, loads = queue_of(slots=3, clock=clock, turn_s=10), ticket(model="z")
    queue.seen_loaded(frozenset(["w", "x"]))
    started = [queue.enter_at_once(ticket(model="x")) for _ in range(2)]
    clock.monotonic += 5
    started.append(queue.enter_at_once(loads))
    queue.leave(loads, is_served=False)
    started.append(queue.enter_at_once(ticket(model="z")))
    assert all(started)
    clock.monotonic += 6
    keeps = await waiting_in(queue, ticket(model="x", patience_s=patience_s))
    waits = await waiting_in(queue, ticket("t2", model="y"))
    assert queue.waiting == 2

    if patience_s is None:
        keeps.cancel()
    with pytest.raises((QueueFull, asyncio.CancelledError)):
        await keeps

    assert (queue.running, queue.waiting) == (4, 0)
    await asyncio.wait_for(waits, SOON)


async def test_a_load_is_over_with_its_first_answer():
    """Then it is worth asking what the backend holds."""
    queue, one, two = queue_of(slots=2), ticket(), ticket()
    queue.enter_at_once(one)
    queue.enter_at_once(two)

    assert [queue.heard(each) for each in (one, two, one)] == [True, False, False]


async def test_more_slots_let_more_in():
    queue = queue_of()
    queue.enter_at_once(ticket())
    waits = await waiting_in(queue, ticket())

    queue.set_slots(2)

    await asyncio.wait_for(waits, SOON)


async def test_a_closed_queue_sends_away_who_waits_and_keeps_who_runs():
    queue, first = queue_of(), ticket()
    queue.enter_at_once(first)
    waits = await waiting_in(queue, ticket())

    queue.close()

    with pytest.raises(Closed):
        await asyncio.wait_for(waits, SOON)
    with pytest.raises(Closed):
        queue.enter_at_once(ticket())
    with pytest.raises(Closed):
        await slot_in(queue, given=ticket())
    assert queue.running == 1
    queue.leave(first, is_served=True)
    assert queue.running == 0


async def test_without_slots_nobody_waits_and_each_model_is_bounded(monkeypatch: pytest.MonkeyPatch):
    """One that hangs does not take all that this process can hold."""
    monkeypatch.setattr(queue_module, "MAX_UNSLOTTED", 2)
    queue = queue_of(slots=None)
    first = ticket(model="hangs")

    assert queue.enter_at_once(first)
    assert queue.enter_at_once(ticket(model="hangs"))
    with pytest.raises(BackendBusy):
        queue.enter_at_once(ticket(model="hangs"))
    assert queue.enter_at_once(ticket(model="other"))
    assert (queue.running, queue.slots, queue.expected_wait_s(ticket())) == (3, None, 0.0)

    queue.heard(first)
    queue.leave(first, is_served=True)
    queue.seen_loaded(frozenset())
    assert queue.enter_at_once(ticket(model="hangs"))
