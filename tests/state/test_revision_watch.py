"""How current what was read is."""

import asyncio
import math
from itertools import count

import pytest

from gateway.errors import StoreUnavailable
from gateway.state import revision_watch
from gateway.state.revision_watch import RevisionWatch
from tests.state.doubles import SetClock, Store


@pytest.fixture
def clock():
    return SetClock()


@pytest.fixture
def store():
    return Store()


@pytest.fixture
def watch(store, clock):
    return RevisionWatch(store, clock)


async def test_what_was_read_ages_until_a_poll_confirms_it(watch, clock):
    """One poll makes everything young that was read under the revision that it showed."""
    await watch.poll()
    stamp = watch.stamp()
    clock.pass_by(0.5)
    before = watch.age_s(stamp)
    await watch.poll()

    assert (before, watch.age_s(stamp)) == (0.5, 0.0)


async def test_what_was_read_before_a_change_may_be_outdated(watch, clock, store):
    """However lately it was read."""
    await watch.poll()
    stamp = watch.stamp()
    store.number += 1
    unnoticed = watch.age_s(stamp)
    await watch.poll()

    assert (unnoticed, watch.age_s(stamp), watch.age_s(watch.stamp())) == (0.0, math.inf, 0.0)


async def test_before_the_first_poll_only_readings_count(watch, clock):
    """A gateway that starts while the database is down knows nothing."""
    stamp = watch.stamp()
    clock.pass_by(0.25)

    assert watch.age_s(stamp) == 0.25


async def test_a_failed_poll_confirms_nothing(watch, clock, store):
    """Its age goes on; nobody tries for a second; it is down until it answers a poll."""
    await watch.poll()
    stamp = watch.stamp()
    clock.pass_by(0.5)
    store.is_down = True
    await watch.poll()
    age = watch.age_s(stamp)
    states = [(watch.is_down, watch.is_pausing)]
    clock.pass_by(1.0)
    states.append((watch.is_down, watch.is_pausing))
    await watch.poll()
    store.is_down = False
    await watch.poll()
    states.append((watch.is_down, watch.is_pausing))

    assert age == 0.5
    assert states == [(True, True), (True, False), (False, False)]


async def test_a_poll_confirms_what_was_true_when_it_began(watch, clock, store):
    """A slow answer is as old as its question."""
    await watch.poll()
    stamp = watch.stamp()
    store.before_revision = lambda: clock.pass_by(0.75)
    await watch.poll()

    assert watch.age_s(stamp) == 0.75


async def test_a_revision_is_reached_by_one_poll_for_all_who_wait(watch, store):
    """Also when a poll was under way that began before."""
    store.number, store.answering = 1, asyncio.Event()
    early = asyncio.create_task(watch.poll())
    await asyncio.sleep(0)
    store.number = 2
    waiting = [asyncio.create_task(watch.reach(2)) for _ in range(50)]
    await asyncio.sleep(0)
    store.answering.set()
    await asyncio.gather(early, *waiting)
    await watch.reach(2)

    assert (watch.revision, store.polls) == (2, 2)


async def test_a_revision_that_the_database_does_not_know_is_not_reached(watch):
    """It may be an older copy."""
    with pytest.raises(StoreUnavailable):
        await watch.reach(7)


@pytest.mark.parametrize("is_down", [True, False], ids=["down", "silent"])
async def test_nobody_waits_for_long_for_a_revision(watch, store, monkeypatch, is_down):
    """And for a second nobody tries again."""
    monkeypatch.setattr(revision_watch, "READ_S", 0.01)
    store.is_down = is_down
    store.answering.clear()
    if is_down:
        store.answering.set()

    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            await watch.reach(1)

    assert (store.polls, watch.is_down) == (1, True)


async def test_polls_go_on_in_the_background_until_stopped(store, clock):
    """Also over a time when the database is down."""
    polled_thrice = asyncio.Event()
    polls = count(1)
    store.before_revision = lambda: polled_thrice.set() if next(polls) == 3 else None
    store.is_down = True
    tasks_before = asyncio.all_tasks()
    watch = RevisionWatch(store, clock, poll_s=0)
    await watch.start()
    async with asyncio.timeout(10):
        await polled_thrice.wait()
    await watch.stop()

    assert asyncio.all_tasks() == tasks_before
