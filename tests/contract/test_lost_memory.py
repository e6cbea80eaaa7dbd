"""A Redis that lost what it was told, or some of it, is told again by a ledger that has everything."""

import asyncio
from collections.abc import Sequence
from functools import partial

import pytest
from attrs import define, field

from gateway.accounting import Cold, LedgerEntry, Scope, Sum, Taken, Window
from gateway.errors import LimitsUnavailable
from gateway.model import Key
from gateway.state.redis_connected import Client
from gateway.state.restored_counters import RestoredCounters
from tests.contract.plans import LEASE_S, NOW, TOTAL, budget, intent, plan, slots, spent
from tests.contract.stores import RedisStore, take, used

TENANT_TOTAL = budget(1000, Window.TOTAL, "acme", Scope.TENANT, periods=(TOTAL,))
KEYS = [f"{{t:acme}}:{name}" for name in ("sums", "open", "leases", "charged", "told")]


@define
class Database:
    """The ledger, the keys' revision and the fleet's spools in one: `spooled` is on its way into `told`."""

    told: list[Sum] = field(factory=list)
    spooled: list[Sum] = field(factory=list)
    intents: list[LedgerEntry] = field(factory=list)
    drains: int = 0
    flows: asyncio.Event = field(factory=asyncio.Event)

    def __attrs_post_init__(self) -> None:
        self.flows.set()

    async def drained(self) -> None:
        self.drains += 1
        await self.flows.wait()
        self.told += self.spooled
        self.spooled.clear()

    async def snapshot(
        self, tenant_id: str, periods: Sequence[str]
    ) -> tuple[Sequence[Sum], Sequence[LedgerEntry]]:
        return self.told, self.intents

    async def sums(self, tenant_id: str, periods: Sequence[str]) -> Sequence[Sum]:
        return [one for one in self.told if one.period in periods]

    async def revision(self) -> int:
        return 0

    async def key_by_prefix(self, prefix: str) -> Key | None:
        raise NotImplementedError

    async def write(self, entries: Sequence[LedgerEntry]) -> None:
        raise NotImplementedError

    async def open_intents(self, tenant_id: str) -> Sequence[LedgerEntry]:
        raise NotImplementedError

    async def entry(self, reservation_id: str) -> LedgerEntry | None:
        raise NotImplementedError


@pytest.fixture
async def redis(single: RedisStore) -> RedisStore:
    await single.set_time(NOW)
    await single.lose()
    single.counters._indexed.clear()  # this process has met nobody yet
    await single.counters.restore("umbrella", [], [], LEASE_S)
    return single


def restored(store: RedisStore, database: Database, patience_s: float = 2.0) -> RestoredCounters:
    return RestoredCounters(
        store.counters, database, database, database, lease_s=LEASE_S, patience_s=patience_s
    )


def of_tenant(tokens: int) -> Sum:
    return spent(tokens, "total", "acme", Scope.TENANT)


async def dumped(store: RedisStore) -> dict[str, bytes | None]:
    """All that is kept of a tenant, as a copy of the server would have it."""

    async def dump(client: Client) -> dict[str, bytes | None]:
        return {key: await client.dump(key) for key in KEYS}

    return await store.clients[0].run(dump)


async def bring_back(copy: dict[str, bytes | None], client: Client) -> None:
    await client.delete(KEYS)
    for key, value in copy.items():
        if value is not None:
            await client.restore(key, 0, value)


async def test_a_tenant_that_is_new_waits_for_nobody(redis: RedisStore):
    """There is nothing that could have been lost."""
    database = Database()

    assert isinstance(await restored(redis, database).take(plan("r1", TENANT_TOTAL)), Taken)
    assert database.drains == 0


@pytest.mark.parametrize("loss", ["everything", "the-tenant"])
async def test_what_others_have_only_spooled_is_counted_first(redis: RedisStore, loss: str):
    """Else it would be allowed a second time."""
    database = Database(told=[of_tenant(100)], spooled=[of_tenant(900)])
    counters = restored(redis, Database())
    await counters.take(plan("r1", TENANT_TOTAL))
    if loss == "everything":
        await redis.lose()
    else:
        await redis.counters.forget("acme")

    await restored(redis, database).take(plan("r2", TENANT_TOTAL, needed=100, wanted=500))

    assert database.drains == 1
    assert await used(redis, plan("r", TENANT_TOTAL)) == [(900, 100)]


async def test_who_can_not_wait_is_told_so_and_the_rebuild_goes_on(redis: RedisStore):
    database = Database()
    database.flows.clear()
    counters = restored(redis, database, patience_s=0.05)
    await restored(redis, Database()).take(plan("r1", TENANT_TOTAL))
    await redis.lose()

    for _ in range(3):
        with pytest.raises(LimitsUnavailable):
            await counters.take(plan("r2", TENANT_TOTAL))
    database.flows.set()
    await asyncio.sleep(0.1)

    assert isinstance(await counters.take(plan("r2", TENANT_TOTAL)), Taken)
    assert database.drains == 1


async def test_a_server_that_came_back_from_a_copy_is_noticed_at_once(redis: RedisStore):
    """By whoever has seen what it lost: nothing is taken by the earlier state."""
    database = Database(intents=[intent("r2", 700)])
    counters = restored(redis, database)
    await counters.take(plan("r1", TENANT_TOTAL, needed=10))
    copy = await dumped(redis)
    await redis.set_time(NOW + 1)
    await counters.take(plan("r2", TENANT_TOTAL, slots(9), needed=700))
    await redis.clients[0].run(partial(bring_back, copy))

    verdict = await redis.counters.take(plan("r3", TENANT_TOTAL, needed=10))
    await counters.take(plan("r3", TENANT_TOTAL, needed=10))

    assert verdict == Cold(lost=True)
    assert await used(redis, plan("r", TENANT_TOTAL, slots(9))) == [(0, 710), (1, 0)]


async def test_one_who_saw_nothing_notices_by_the_ledger(redis: RedisStore):
    """When nobody is left who has seen it, a look at the ledger tells."""
    database = Database(told=[of_tenant(50)])
    counters = restored(redis, database)
    await redis.counters.restore("acme", [], [], LEASE_S)
    await counters.take(plan("r1", TENANT_TOTAL, needed=10))

    await counters.forget_what_is_behind()
    await counters.take(plan("r2", TENANT_TOTAL, needed=10))

    assert await used(redis, plan("r", TENANT_TOTAL)) == [(50, 10)]


async def test_a_ledger_that_is_ahead_of_a_settlement_is_no_loss(redis: RedisStore):
    """What has ended there may still be reserved here: it is on its way."""
    database = Database(told=[of_tenant(30)])
    counters = restored(redis, database)
    await redis.counters.restore("acme", [], [], LEASE_S)
    await take(redis, plan("r1", TENANT_TOTAL, needed=100))
    await counters.take(plan("r2", TENANT_TOTAL, needed=10))

    await counters.forget_what_is_behind()

    assert await used(redis, plan("r", TENANT_TOTAL)) == [(0, 110)]


async def test_a_turn_is_somebody_s(redis: RedisStore):
    """Of all who share the counters one looks after them, and another when it is gone."""
    turns = [await counters.is_my_turn(0.2) for counters in (redis.counters, redis.other)]
    await asyncio.sleep(0.25)

    assert turns == [True, False]
    assert await redis.other.is_my_turn(0.2)
