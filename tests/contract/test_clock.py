"""The store's clock: the one that counts, and it does not go back."""

from tests.contract.plans import LEASE_S, MIDNIGHT, NOW, bucket, budget, plan, rate, slots
from tests.contract.stores import Store, refusal, take


async def test_a_clock_that_is_set_back_stands_still(store: Store):
    """Nothing is given twice, and nothing is lost: it waits for the clock to catch up."""
    await store.set_time(NOW + 40)
    await take(store, plan("r1", rate(60)))
    await store.set_time(NOW)

    taken = await take(store, plan("r2", rate(60)))

    assert taken.now == NOW + 40
    assert taken.standings[0].used == 2


async def test_a_refusal_moves_the_clock_too(store: Store):
    """What was told once to be past is past."""
    await store.set_time(NOW + 40)
    await refusal(store, plan("r1", slots(0)))
    await store.set_time(NOW + 10)

    assert (await refusal(store, plan("r2", slots(0)))).now == NOW + 40


async def test_midnight_does_not_come_twice(store: Store):
    """A clock that is set back over it does not bring the old day back."""
    await store.set_time(MIDNIGHT)
    await take(store, plan("r1", budget(10)))
    await store.set_time(MIDNIGHT - 30)

    assert (await refusal(store, plan("r2", budget(10)))).standing.resets_at == MIDNIGHT + 86_400


async def test_a_clock_that_ran_far_ahead_may_go_back(store: Store):
    """By more than a minute it was wrong, and waiting for it would stop everything for as long."""
    await store.set_time(NOW + 7200)
    await take(store, plan("r1", rate(60)))
    await store.set_time(NOW)

    assert (await take(store, plan("r2", rate(60)))).now == NOW + 60


async def test_a_meter_from_the_future_refills_all_the_same(store: Store):
    """After such a correction it goes on from now."""
    await store.set_time(NOW + 7200)
    await take(store, plan("r1", rate(1), bucket(600), needed=600))
    await store.set_time(NOW)
    await refusal(store, plan("r2", rate(1), bucket(600)))

    refused = await refusal(store, plan("r2", rate(1), bucket(600)))

    assert refused.retry_at is not None
    assert refused.retry_at < NOW + 125
    await store.set_time(refused.retry_at)
    await take(store, plan("r2", rate(1), bucket(600)))


async def test_a_jump_forward_ends_leases_and_charges_them(store: Store):
    """A machine slept: the safe side is to charge, and to be corrected."""
    await take(store, plan("r1", slots(1), budget(100)))
    await store.set_time(NOW + 1000 * LEASE_S)

    await take(store, plan("r2", slots(1)))

    assert [ended.reservation_id for ended in await store.counters.expired()] == ["r1"]
