"""Restoring: the ledger is the truth, the store a view of it that can be lost."""

from gateway.accounting import Cold, Scope, Window
from tests.contract.plans import (
    JANUARY,
    LEASE_S,
    MONDAY,
    NOW,
    TUESDAY,
    budget,
    intent,
    plan,
    slots,
    spent,
)
from tests.contract.stores import Store, refusal, take, told, used

TENANT = Scope.TENANT
BUDGETS = (budget(100), budget(None, Window.MONTH), budget(None, Window.TOTAL))


async def test_what_was_spent_before_is_spent(cold_store: Store):
    """A store that comes back empty refills nobody's budget."""
    told = [spent(95), spent(200, JANUARY.id), spent(300, "total"), spent(400, owner="acme", scope=TENANT)]

    await cold_store.counters.restore("acme", told, [], LEASE_S)

    found = await used(cold_store, plan("r", *BUDGETS, budget(None, owner="acme", scope=TENANT)))
    assert found == [(95, 0), (200, 0), (300, 0), (400, 0)]
    assert (await refusal(cold_store, plan("r1", *BUDGETS, needed=6))).standing.resets_at == MONDAY.ends_at
    assert (await take(cold_store, plan("r1", *BUDGETS, needed=5))).tokens == 5


async def test_a_store_that_lost_all_is_cold_until_it_is_told(store: Store):
    """And settles nothing that it does not know."""
    await take(store, plan("r1", *BUDGETS))

    await store.lose()

    assert isinstance(await store.counters.take(plan("r2", *BUDGETS)), Cold)
    await store.counters.settle("acme", "r1", 10)
    await store.counters.renew("acme", ["r1"], LEASE_S)
    assert await told(store.counters) == []
    assert isinstance(await store.counters.take(plan("r2", *BUDGETS)), Cold)


async def test_open_reservations_are_held_again_and_settle(cold_store: Store):
    """As the ledger has them: budgets of key and tenant, and a slot of each."""
    tenant = (slots(9, "acme", TENANT), budget(None, Window.TOTAL, "acme", TENANT))
    asked = plan("r", slots(9), *BUDGETS, *tenant)

    await cold_store.counters.restore("acme", [spent(40)], [intent("r1", 50)], LEASE_S)

    assert await used(cold_store, asked) == [(1, 0), (40, 50), (0, 50), (0, 50), (1, 0), (0, 50)]
    await refusal(cold_store, plan("r2", *BUDGETS, needed=11))
    await cold_store.counters.settle("acme", "r1", 20)
    assert await used(cold_store, asked) == [(0, 0), (60, 0), (20, 0), (20, 0), (0, 0), (20, 0)]


async def test_open_reservations_that_nobody_renews_are_charged(cold_store: Store):
    """Their process may have died with the store; corrected like any other."""
    await cold_store.counters.restore("acme", [], [intent("r1", 50), intent("r2", 5)], LEASE_S)
    await cold_store.set_time(NOW + 10)
    await cold_store.counters.renew("acme", ["r2"], LEASE_S)
    await cold_store.set_time(NOW + LEASE_S)

    assert await told(cold_store.other) == [("acme", "r1", 50)]
    assert await used(cold_store, plan("r", *BUDGETS)) == [(50, 5)] * 3
    await cold_store.counters.settle("acme", "r1", 1)
    assert await used(cold_store, plan("r", *BUDGETS)) == [(1, 5)] * 3


async def test_nothing_gets_lower(store: Store):
    """The ledger lags behind: its sums only ever raise what is spent."""
    await take(store, plan("r1", *BUDGETS, needed=50))
    await store.counters.settle("acme", "r1", 40)
    await take(store, plan("r2", *BUDGETS, needed=20))

    await store.counters.restore("acme", [spent(30), spent(70, JANUARY.id)], [intent("r1", 50)], LEASE_S)

    assert await used(store, plan("r", *BUDGETS)) == [(40, 20), (70, 20), (40, 20)]


async def test_restoring_twice_is_restoring_once(cold_store: Store):
    """Two replicas find the same store empty at the same time."""
    for counters in (cold_store.counters, cold_store.other):
        await counters.restore("acme", [spent(40)], [intent("r1", 50)], LEASE_S)

    assert await used(cold_store, plan("r", slots(9), *BUDGETS)) == [(1, 0), (40, 50), (0, 50), (0, 50)]


async def test_sums_of_a_day_that_is_over_are_not_todays(store: Store):
    """In whatever order they are told."""
    await store.counters.restore("acme", [spent(7, TUESDAY.id), spent(50, MONDAY.id)], [], LEASE_S)

    tuesday = budget(100, periods=(TUESDAY,))
    assert await used(store, plan("r", tuesday)) == [(7, 0)]


async def test_each_tenant_is_told_of_apart(cold_store: Store):
    """One that is warm does not warm another."""
    await cold_store.counters.restore("acme", [spent(7)], [], LEASE_S)

    assert isinstance(await cold_store.counters.take(plan("r1", *BUDGETS, tenant="umbrella")), Cold)


async def test_a_tenant_can_be_forgotten_and_told_of_again(store: Store):
    """A repair: from then on only the ledger's word counts."""
    await take(store, plan("r1", *BUDGETS, needed=50))
    await store.counters.settle("acme", "r1", 50)
    await take(store, plan("r2", slots(9), *BUDGETS))

    await store.counters.forget("acme")
    assert isinstance(await store.counters.take(plan("r3", *BUDGETS)), Cold)
    await store.counters.restore("acme", [spent(3)], [], LEASE_S)

    assert await used(store, plan("r", slots(9), budget(100))) == [(0, 0), (3, 0)]
