"""Settling: what was reserved becomes what was used, once."""

import pytest

from gateway.accounting import Window
from tests.contract.plans import (
    FEBRUARY,
    JANUARY,
    MIDNIGHT,
    MONDAY,
    NOW,
    TUESDAY,
    WEDNESDAY,
    bucket,
    budget,
    plan,
    rate,
    slots,
)
from tests.contract.stores import Store, refusal, standings, take, used

ALL = (rate(60), bucket(600), slots(4), budget(1000), budget(None, Window.TOTAL))


@pytest.mark.parametrize("tokens", [0, 30, 100])
async def test_what_was_not_used_goes_back(store: Store, tokens: int):
    """The request itself stays counted, its slot is free."""
    await take(store, plan("r1", *ALL, needed=100))

    await store.counters.settle("acme", "r1", tokens)

    assert await used(store, plan("r", *ALL)) == [(1, 0), (tokens, 0), (0, 0), (tokens, 0), (tokens, 0)]


async def test_more_than_was_reserved_is_charged_too(store: Store):
    """When a backend counted so: the bucket is then in debt, and the budget overdrawn."""
    await take(store, plan("r1", bucket(600), budget(1000), needed=100))

    await store.counters.settle("acme", "r1", 1200)

    assert await used(store, plan("r", bucket(600), budget(1000))) == [(1200, 0), (1200, 0)]
    refused = await refusal(store, plan("r2", bucket(600)))
    assert refused.retry_at == pytest.approx(NOW + 61, abs=2e-6)
    await refusal(store, plan("r2", budget(1000), needed=1))


@pytest.mark.parametrize("tokens", [0, 30, 60, 100])
async def test_a_bucket_owes_what_it_was_spared_and_what_was_used_all_the_same(store: Store, tokens: int):
    """In the end it lacks what was used, like any other."""
    takes = (bucket(600), budget(1000))
    await take(store, plan("r1", *takes, needed=100, spared=40))

    await store.counters.settle("acme", "r1", tokens)

    assert await used(store, plan("r", *takes)) == [(tokens, 0), (tokens, 0)]


async def test_a_bucket_gets_back_no_more_than_it_lacks(store: Store):
    """It has filled up again while the request ran."""
    await take(store, plan("r1", bucket(600), needed=600, lease_s=999))
    await store.set_time(NOW + 50)

    await store.counters.settle("acme", "r1", 0)

    assert await used(store, plan("r", bucket(600))) == [(0, 0)]
    assert (await take(store, plan("r2", bucket(600), wanted=9999))).tokens == 600


@pytest.mark.parametrize("spared", [0, 100])
async def test_a_bucket_that_was_full_again_owes_what_was_used_beyond(store: Store, spared: int):
    """Also when it was dropped meanwhile, as if it had never been."""
    await take(store, plan("r1", bucket(600), needed=100, lease_s=999, spared=spared))
    await store.set_time(NOW + 60)
    for number in range(9):
        await take(store, plan(f"other {number}", rate(60, f"k{number}")))

    await store.counters.settle("acme", "r1", 150)

    assert await used(store, plan("r", bucket(600))) == [(50 + spared, 0)]


async def test_a_reservation_settles_once(store: Store):
    """A repeated message changes nothing, whatever it says."""
    await take(store, plan("r1", *ALL, needed=100))
    await store.counters.settle("acme", "r1", 30)
    before = await standings(store, plan("r", *ALL))

    await store.other.settle("acme", "r1", 30)
    await store.counters.settle("acme", "r1", 0)

    assert await standings(store, plan("r", *ALL)) == before


async def test_what_is_unknown_settles_to_nothing(store: Store):
    """Also for a tenant that the store does not know."""
    await store.counters.settle("acme", "never taken", 30)
    await store.counters.settle("nobody", "r1", 30)

    assert await used(store, plan("r", *ALL)) == [(0, 0)] * 5


async def test_any_replica_settles(store: Store):
    """The reservation is in the store, not in a process."""
    await take(store, plan("r1", *ALL))

    await store.other.settle("acme", "r1", 7)

    assert await used(store, plan("r", *ALL)) == [(1, 0), (7, 0), (0, 0), (7, 0), (7, 0)]


async def test_what_was_given_back_can_be_taken(store: Store):
    """To the token."""
    await take(store, plan("r1", budget(1000), needed=1000))
    await refusal(store, plan("r2", budget(1000), needed=1))
    await store.counters.settle("acme", "r1", 999)

    assert (await take(store, plan("r2", budget(1000), needed=1, wanted=50))).tokens == 1


# ── across periods ───────────────────────────────────────────────────────────────────────


async def test_a_new_day_begins_empty_at_midnight_by_the_stores_clock(store: Store):
    """The callers' plan names today and tomorrow; nobody tells the store which it is."""
    await take(store, plan("r1", budget(10), budget(None, Window.MONTH), lease_s=9999))

    await store.set_time(MIDNIGHT - 0.001)
    assert (await refusal(store, plan("r2", budget(10)))).standing.reserved == 10
    await store.set_time(MIDNIGHT)
    taken = await take(store, plan("r2", budget(10), budget(None, Window.MONTH)))

    assert taken.periods == (TUESDAY.id, JANUARY.id)
    assert [standing.resets_at for standing in taken.standings] == [TUESDAY.ends_at, JANUARY.ends_at]
    assert [standing.reserved for standing in taken.standings] == [10, 20]


async def test_a_request_over_midnight_is_charged_to_the_day_that_admitted_it(store: Store):
    """The new day pays nothing of it."""
    await take(store, plan("r1", budget(100), budget(None, Window.MONTH), lease_s=3600))
    await store.set_time(MIDNIGHT + 1)
    await take(store, plan("r2", budget(100), needed=20))

    await store.counters.settle("acme", "r1", 10)

    assert await used(store, plan("r", budget(100), budget(None, Window.MONTH))) == [(0, 20), (10, 0)]


async def test_a_day_never_comes_back(store: Store):
    """One replica's clock is slow: what it takes is counted to the day that has begun."""
    await store.set_time(MIDNIGHT + 1)
    await take(store, plan("r1", budget(100, periods=(TUESDAY, WEDNESDAY)), needed=60))
    slow = budget(100, periods=(MONDAY,))

    taken = await take(store, plan("r2", slow, needed=30))

    assert taken.periods == (TUESDAY.id,)
    assert taken.standings[0].reserved == 90
    assert taken.standings[0].resets_at == TUESDAY.ends_at
    assert (await refusal(store, plan("r3", slow, needed=30))).retry_at == MIDNIGHT + 2


async def test_a_caller_whose_clock_is_ahead_does_not_empty_the_day(store: Store):
    """It names tomorrow; from then on all is counted there, so that nothing is spent twice."""
    await take(store, plan("r1", budget(100), needed=60))
    await take(store, plan("r2", budget(100, periods=(TUESDAY, WEDNESDAY)), needed=60))

    assert (await take(store, plan("r3", budget(100), wanted=100))).tokens == 40
    assert (await refusal(store, plan("r4", budget(100)))).standing.reserved == 100


async def test_a_month_ends_on_its_own(store: Store):
    """And the total never does."""
    takes = (budget(10, Window.MONTH), budget(30, Window.TOTAL))
    await take(store, plan("r1", *takes))
    await store.counters.settle("acme", "r1", 10)
    assert JANUARY.ends_at is not None
    await store.set_time(JANUARY.ends_at)

    taken = await take(store, plan("r2", *takes))

    assert taken.periods == (FEBRUARY.id, "total")
    assert [(standing.used, standing.reserved) for standing in taken.standings] == [(0, 10), (10, 10)]
