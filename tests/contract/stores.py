"""The stores that the contract is for, each with a time that is set and a memory that can be lost."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Protocol

from attrs import define, field

from gateway.accounting import Cold, Plan, Refused, Stale, Standing, Taken
from gateway.ports import Counters
from gateway.redis_address import redis_address
from gateway.resources import SystemClock
from gateway.state.local_counters import LocalCounters
from gateway.state.redis_client import RedisClient
from gateway.state.redis_connected import Client
from gateway.state.redis_counters import RedisCounters
from gateway.state.redis_scripts import Scripts
from tests.contract.plans import NOW

TENANTS = ("acme", "umbrella")

# In the place of Redis's own clock: a key beside the counters, which only tests have.
SET_CLOCK = "local function server_time_us() return tonumber(redis.call('GET', KEYS[1] .. ':time')) end"


class Store(Protocol):
    """`counters` and `other` are two replicas over the same store; alone in a process, there is but one."""

    @property
    def counters(self) -> Counters: ...
    @property
    def other(self) -> Counters: ...

    async def set_time(self, now: float) -> None: ...
    async def lose(self) -> None:
        """All that was counted is gone."""


@define
class SetClock:
    time: float = NOW

    def now(self) -> float:
        return self.time

    def elapsed(self) -> float:
        return self.time


@define
class LocalStore:
    clock: SetClock = field(factory=SetClock)
    counters: LocalCounters = field()

    @counters.default
    def _empty(self) -> LocalCounters:
        return LocalCounters(self.clock)

    @property
    def other(self) -> LocalCounters:
        return self.counters

    async def set_time(self, now: float) -> None:
        self.clock.time = now

    async def lose(self) -> None:
        self.counters = LocalCounters(self.clock)


@define
class RedisStore:
    clients: Sequence[RedisClient]
    counters: RedisCounters
    other: RedisCounters
    time: float = NOW

    async def set_time(self, now: float) -> None:
        self.time = now
        for tenant in TENANTS:
            await self.clients[0].run(partial(_set_time, tenant, now))

    async def lose(self) -> None:
        await self.clients[0].run(lambda client: client.flushall())
        await self.set_time(self.time)


async def _set_time(tenant: str, now: float, client: Client) -> None:
    await client.set(f"{{t:{tenant}}}:sums:time", f"{now * 1e6:.0f}")


@asynccontextmanager
async def redis_store(url: str, *, is_linked: bool = True) -> AsyncIterator[RedisStore]:
    """An empty store over a server or cluster, whose time is set."""
    scripts = Scripts.with_clock(SET_CLOCK)
    # The deadline is for tests of it: here it would only make a slow machine fail.
    clients = [RedisClient(redis_address(url), deadline_s=5.0, is_linked=is_linked) for _ in range(2)]
    for client in clients:
        await client.open()
    counters, other = (RedisCounters(client, SystemClock(), scripts) for client in clients)
    store = RedisStore(clients, counters, other)
    await store.lose()
    yield store
    for replica in (counters, other):
        await replica.close()
    for client in clients:
        await client.close()


# ── what sequences are told in ───────────────────────────────────────────────────────────


async def take(store: Store, plan: Plan) -> Taken:
    """Take what is known to fit."""
    verdict = await store.counters.take(plan)
    assert isinstance(verdict, Taken), verdict
    return verdict


async def refusal(store: Store, plan: Plan) -> Refused:
    """Be refused what is known not to fit."""
    verdict = await store.counters.take(plan)
    assert isinstance(verdict, Refused), verdict
    return verdict


async def told(counters: Counters) -> list[tuple[str, str, int]]:
    """Tenant, reservation and tokens of the leases that ended; from now on they are heard of."""
    expired = await counters.expired()
    await counters.heard(expired)
    return sorted((each.tenant_id, each.reservation_id, each.tokens) for each in expired)


async def standings(store: Store, plan: Plan) -> Sequence[Standing]:
    found = await store.counters.look(plan)
    assert not isinstance(found, Cold | Stale)
    return found.standings


async def used(store: Store, plan: Plan) -> list[tuple[int, int]]:
    """What is used and reserved of each take of a plan."""
    return [(standing.used, standing.reserved) for standing in await standings(store, plan)]
