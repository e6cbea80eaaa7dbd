"""Leases: whoever stops renewing loses the slot, and is charged in full until better evidence comes."""

import pytest

from gateway.accounting import Window
from tests.contract.plans import (
    DAY_S,
    LEASE_S,
    MIDNIGHT,
    NOW,
    bucket,
    budget,
    plan,
    rate,
    slots,
)
from tests.contract.stores import Store, refusal, take, told, used

ALL = (rate(60), bucket(600), slots(4), budget(1000), budget(None, Window.TOTAL))


async def test_the_slot_of_a_lease_that_ran_out_is_free_for_the_next(store: Store):
    """At the very moment that it ends; nobody has to sweep."""
    await take(store, plan("r1", slots(1)))

    await store.set_time(NOW + LEASE_S - 0.001)
    await refusal(store, plan("r2", slots(1)))
    await store.set_time(NOW + LEASE_S)
    await take(store, plan("r2", slots(1)))


async def test_a_lease_that_ran_out_is_charged_in_full(store: Store):
    """Reserved becomes spent; the bucket has paid already."""
    await take(store, plan("r1", *ALL, needed=600))
    await store.set_time(NOW + LEASE_S)

    assert await used(store, plan("r", *ALL)) == [(0, 0), (450, 0), (0, 0), (600, 0), (600, 0)]


async def test_a_renewed_lease_goes_on(store: Store):
    """From now, for as long as is said."""
    await take(store, plan("r1", slots(1)))
    await take(store, plan("r2", slots(1, "k2")))
    await store.set_time(NOW + 10)
    await store.other.renew("acme", ["r1", "r2"], LEASE_S)

    await store.set_time(NOW + 24.999)
    await refusal(store, plan("r3", slots(1)))
    assert await told(store.counters) == []
    await store.set_time(NOW + 25)
    await take(store, plan("r3", slots(1)))


async def test_a_lease_can_be_renewed_for_less(store: Store):
    """The last word counts."""
    await take(store, plan("r1", slots(1), lease_s=1000))
    await store.counters.renew("acme", ["r1"], 5)
    await store.set_time(NOW + 5)

    await take(store, plan("r2", slots(1)))


async def test_what_ended_cannot_be_renewed(store: Store):
    """Unknown, settled or charged: it stays so."""
    await take(store, plan("settled", *ALL))
    await store.counters.settle("acme", "settled", 10)
    await take(store, plan("charged", *ALL, lease_s=1))
    await store.set_time(NOW + 1)
    assert await told(store.counters) == [("acme", "charged", 10)]

    await store.counters.renew("acme", ["settled", "charged", "never taken"], LEASE_S)
    await store.counters.renew("nobody", ["r1"], LEASE_S)

    assert await used(store, plan("r", *ALL[2:])) == [(0, 0), (20, 0), (20, 0)]
    await store.set_time(NOW + 1000)
    assert await told(store.counters) == []


# ── telling ──────────────────────────────────────────────────────────────────────────────


async def test_each_ended_lease_is_told_once(store: Store):
    """By whichever replica asks first, whoever's it was."""
    await take(store, plan("r1", *ALL, needed=7))
    await take(store, plan("r2", *ALL, tenant="umbrella", lease_s=20))
    assert await told(store.other) == []
    await store.set_time(NOW + LEASE_S)

    assert await told(store.other) == [("acme", "r1", 7)]
    assert await told(store.counters) == []
    await store.set_time(NOW + 20)
    assert await told(store.counters) == [("umbrella", "r2", 10)]
    assert await told(store.other) == []


async def test_what_a_take_found_ended_is_told_too(store: Store):
    """Leases end when anything is taken; somebody may ask much later."""
    await take(store, plan("r1", slots(1), needed=7))
    await store.set_time(NOW + LEASE_S)
    await take(store, plan("r2", slots(1)))

    assert await told(store.other) == [("acme", "r1", 7)]


async def test_what_settled_in_time_is_not_told(store: Store):
    """Even when its lease would have ended since."""
    await take(store, plan("r1", *ALL))
    await store.counters.settle("acme", "r1", 3)
    await store.set_time(NOW + LEASE_S)

    assert await told(store.counters) == []


async def test_a_settlement_is_in_time_while_nobody_has_charged(store: Store):
    """The lease is over, but nothing was done about it yet: so nothing has to be corrected."""
    await take(store, plan("r1", *ALL))
    await store.set_time(NOW + LEASE_S + 5)

    await store.counters.settle("acme", "r1", 3)

    assert await told(store.counters) == []
    assert await used(store, plan("r", *ALL[2:])) == [(0, 0), (3, 0), (3, 0)]


async def test_a_take_ends_a_bounded_number_of_leases(store: Store):
    """So that no request pays for a thousand that died; the next ones do the rest."""
    for number in range(25):
        await take(store, plan(f"r{number:02}", slots(25)))
    await store.set_time(NOW + LEASE_S)

    assert await used(store, plan("r", slots(25))) == [(5, 0)]
    assert await used(store, plan("r", slots(25))) == [(0, 0)]
    assert len(await told(store.counters)) == 25


async def test_all_ended_leases_are_told_at_once(store: Store):
    """However many."""
    names = {f"r{number}" for number in range(50)}
    for name in names:
        await take(store, plan(name, slots(50)))
    await store.set_time(NOW + LEASE_S)

    assert {name for _, name, _ in await told(store.counters)} == names


# ── correcting ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("tokens", [0, 30, 250])
@pytest.mark.parametrize("later_s", [0.0, 1790.0, DAY_S])
async def test_a_charge_is_corrected_by_better_evidence(store: Store, tokens: int, later_s: float):
    """A spool is read a day later: budgets get what is due, in both directions."""
    takes = (bucket(600), slots(4), budget(1000, Window.MONTH), budget(None, Window.TOTAL))
    await take(store, plan("r1", *takes, needed=100))
    await store.set_time(NOW + LEASE_S)
    assert await told(store.counters) == [("acme", "r1", 100)]
    await store.set_time(NOW + LEASE_S + later_s)
    bucket_before = (await used(store, plan("r", *takes)))[0]

    await store.counters.settle("acme", "r1", tokens)
    await store.counters.settle("acme", "r1", 999)

    assert await used(store, plan("r", *takes)) == [bucket_before, (0, 0), (tokens, 0), (tokens, 0)]


async def test_a_correction_goes_to_the_day_that_was_charged(store: Store):
    """When that is over, nobody needs it here; the ledger has it."""
    await take(store, plan("r1", budget(100), budget(None, Window.TOTAL)))
    await store.set_time(MIDNIGHT)
    await take(store, plan("r2", budget(100)))
    await told(store.counters)

    await store.counters.settle("acme", "r1", 0)

    assert await used(store, plan("r", budget(100), budget(None, Window.TOTAL))) == [(0, 10), (0, 0)]


async def test_after_two_days_a_charge_stands(store: Store):
    """Its reservation is forgotten, and its memory is free."""
    await take(store, plan("r1", budget(None, Window.TOTAL)))
    await store.set_time(NOW + LEASE_S)
    await told(store.counters)
    await store.set_time(NOW + LEASE_S + 2 * DAY_S)
    await take(store, plan("r2", slots(1)))

    await store.counters.settle("acme", "r1", 0)

    assert await used(store, plan("r", budget(None, Window.TOTAL))) == [(10, 0)]


async def test_a_name_can_be_taken_again_after_its_lease_ended(store: Store):
    """It is a new reservation; the old charge can then no longer be corrected, nor told of."""
    takes = (slots(1), budget(100))
    await take(store, plan("r1", *takes))
    await store.set_time(NOW + LEASE_S)

    await take(store, plan("r1", *takes))

    assert await used(store, plan("r", *takes)) == [(1, 0), (10, 10)]
    await store.counters.settle("acme", "r1", 4)
    assert await used(store, plan("r", *takes)) == [(0, 0), (14, 0)]
    assert await told(store.counters) == []
