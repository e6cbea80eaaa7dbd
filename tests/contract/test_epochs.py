"""Epochs: what was planned by old knowledge of a tenant or key takes nothing, on whichever replica."""

from gateway.accounting import Cold, Stale, Window
from tests.contract.plans import LEASE_S, bucket, budget, intent, plan, rate, slots, spent
from tests.contract.stores import Store, standings, take, used

ALL = (rate(60), bucket(600), slots(4), budget(1000), budget(None, Window.TOTAL))


async def test_what_was_planned_before_a_change_is_stale(store: Store):
    """By one replica's word, for all of them; and nothing is taken."""
    await store.other.raise_epoch("acme", 7)

    assert await store.counters.take(plan("r1", *ALL, epoch=6)) == Stale(7)
    assert await store.counters.look(plan("r1", *ALL, epoch=6)) == Stale(7)

    assert await used(store, plan("r1", *ALL, epoch=7)) == [(0, 0)] * 5


async def test_what_was_planned_after_the_change_is_taken(store: Store):
    """By the same request, planned anew."""
    await store.counters.raise_epoch("acme", 7)
    await store.counters.take(plan("r1", *ALL, epoch=6))

    await take(store, plan("r1", *ALL, epoch=7))
    await take(store, plan("r2", *ALL, epoch=8))

    assert await used(store, plan("r", *ALL, epoch=7)) == [(2, 0), (20, 0), (2, 0), (0, 20), (0, 20)]


async def test_an_epoch_never_gets_lower(store: Store):
    """Two commands may end in either order, and a ledger may be told of by whoever read it before both."""
    await store.counters.raise_epoch("acme", 7)

    await store.other.raise_epoch("acme", 6)
    await store.other.restore("acme", [], [], LEASE_S, epoch=5)

    assert await store.counters.take(plan("r1", *ALL, epoch=6)) == Stale(7)


async def test_each_tenant_has_its_own(store: Store):
    """A change costs nobody else anything."""
    await store.counters.raise_epoch("umbrella", 7)

    await take(store, plan("r1", *ALL))


async def test_what_runs_goes_on(store: Store):
    """It is settled and renewed as ever; and taken twice, it is taken once."""
    first = await take(store, plan("r1", *ALL))
    await store.counters.raise_epoch("acme", 7)

    again = await store.other.take(plan("r1", *ALL))
    await store.counters.renew("acme", ["r1"], 1000)
    await store.counters.settle("acme", "r1", 3)

    assert again == first
    assert await used(store, plan("r", *ALL, epoch=7)) == [(1, 0), (3, 0), (0, 0), (3, 0), (3, 0)]


async def test_a_cold_tenant_stays_cold_and_keeps_its_epoch(cold_store: Store):
    """A revocation may come before anything was counted, or while nothing is."""
    await cold_store.counters.raise_epoch("acme", 7)

    assert isinstance(await cold_store.counters.take(plan("r1", *ALL, epoch=7)), Cold)
    await cold_store.counters.restore("acme", [spent(40)], [intent("r0", 50)], LEASE_S, epoch=6)

    assert await cold_store.counters.take(plan("r1", *ALL, epoch=6)) == Stale(7)
    assert await used(cold_store, plan("r", budget(1000), epoch=7)) == [(40, 50)]


async def test_a_store_that_lost_all_learns_the_epoch_with_the_sums(store: Store):
    """By a replica that has the database: one that is cut off from it is not let back in."""
    await store.counters.raise_epoch("acme", 7)
    await store.lose()
    assert isinstance(await store.counters.take(plan("r1", *ALL, epoch=6)), Cold)

    await store.counters.restore("acme", [], [], LEASE_S, epoch=8)

    assert await store.other.take(plan("r1", *ALL, epoch=6)) == Stale(8)


async def test_a_repair_forgets_the_epoch_too(store: Store):
    """After an old copy of the database was put back, no plan could ever be new enough."""
    await store.counters.raise_epoch("acme", 7)

    await store.counters.forget("acme")
    await store.counters.restore("acme", [], [], LEASE_S, epoch=3)

    assert len(await standings(store, plan("r", *ALL, epoch=3))) == len(ALL)
