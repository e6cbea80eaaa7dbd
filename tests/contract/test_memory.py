"""Memory: what ended is forgotten, and a tenant costs what it uses now."""

from gateway.accounting import Window
from tests.contract.plans import DAY_S, MONDAY, NOW, TUESDAY, WEDNESDAY, bucket, budget, plan, rate, slots
from tests.contract.stores import LocalStore, RedisStore, Store, take, used

DAYS = (MONDAY, TUESDAY, WEDNESDAY)


async def entries(store: Store) -> dict[str, int]:
    """How many accounts, reservations and leases are kept for acme."""
    if isinstance(store, LocalStore):
        tenant = store.counters._tenants["acme"]
        return {"sums": len(tenant._accounts), "open": len(tenant._held), "leases": len(tenant._leases)}
    assert isinstance(store, RedisStore)
    run, key = store.clients[0].run, "{t:acme}:"
    return {
        "sums": await run(lambda client: client.hlen(f"{key}sums")) - 1,  # 'now'
        "open": await run(lambda client: client.hlen(f"{key}open")),
        "leases": await run(lambda client: client.zcard(f"{key}leases")),
    }


async def test_a_settled_request_leaves_only_its_sums(store: Store):
    """However many there were."""
    takes = (rate(60000), bucket(10**6), slots(4), budget(None), budget(None, Window.TOTAL))
    for number in range(200):
        await take(store, plan(f"r{number}", *takes, lease_s=0.001))
        await store.counters.settle("acme", f"r{number}", 5)
    await store.set_time(NOW + 1)
    await store.counters.expired()

    found = await entries(store)
    assert found["sums"] <= len(takes)
    assert (found["open"], found["leases"]) == (0, 0)


async def test_keys_that_are_no_longer_used_are_forgotten(store: Store):
    """Their meters are full again and their day is over; two are looked at for each take."""
    for number in range(40):
        key = f"old{number}"
        await take(store, plan(f"r{number}", rate(60, key), bucket(600, key), budget(None, owner=key)))
        await store.counters.settle("acme", f"r{number}", 5)
    assert (await entries(store))["sums"] == 120
    await store.set_time(NOW + 2.5 * DAY_S)

    for number in range(500):
        await take(store, plan("r", rate(60_000), budget(None, periods=DAYS)))
        await store.counters.settle("acme", "r", number % 3)

    assert (await entries(store))["sums"] < 10


async def test_an_overdrawn_bucket_is_forgotten_once_it_is_full(store: Store):
    """Also where it had been before, when its last request was still running."""
    await take(store, plan("slow", bucket(600, "k9"), lease_s=9999))
    for seconds in (60, 120):
        await store.set_time(NOW + seconds)
        for number in range(50):
            await take(store, plan(f"r{seconds} {number}"))
        assert (await entries(store))["sums"] == 0
        await store.counters.settle("acme", "slow", 40)


async def test_what_is_in_use_is_never_forgotten(store: Store):
    """A budget that runs, a meter in debt, a slot that is taken."""
    kept = (rate(1, "k9"), bucket(10, "k9"), slots(1, "k9"), budget(10, Window.MONTH, "k9"))
    await take(store, plan("kept", *kept, lease_s=9999))
    for number in range(100):
        await take(store, plan(f"r{number}", rate(60_000)))

    assert await used(store, plan("r", *kept)) == [(1, 0), (10, 0), (1, 0), (0, 10)]


async def test_charges_are_forgotten_after_two_days(store: Store):
    """As long as they can be corrected, they are kept."""
    for number in range(10):
        await take(store, plan(f"r{number}", budget(None, periods=DAYS), lease_s=1))
    await store.set_time(NOW + 1)
    await store.counters.expired()
    assert (await entries(store))["open"] == 10

    await store.set_time(NOW + 2 * DAY_S + 1)
    await store.counters.expired()

    assert (await entries(store))["open"] == 0
