"""Many at the same time, over several replicas: what is left is shared to the token."""

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from gateway.accounting import Refused, Scope, Taken, Window
from gateway.errors import StoreUnavailable
from gateway.ports import Counters
from gateway.redis_address import redis_address
from gateway.resources import SystemClock
from gateway.state.local_counters import LocalCounters
from gateway.state.redis_client import RedisClient
from gateway.state.redis_counters import RedisCounters
from tests.contract.plans import TOTAL, budget, plan, slots
from tests.effort import times
from tests.servers import RedisServer

ROUNDS = 30
CALLERS = 64
LEFT = 1000


@pytest.fixture
async def two_replicas(redis_server: RedisServer) -> AsyncIterator[list[Counters]]:
    """By the server's own clock; one over a link, one by the generic client."""
    redis_server.ask("FLUSHALL")
    address = redis_address(redis_server.url)
    clients = [RedisClient(address, deadline_s=5.0, is_linked=is_linked) for is_linked in (True, False)]
    for client in clients:
        await client.open()
    yield [RedisCounters(client, SystemClock()) for client in clients]
    for client in clients:
        await client.close()


async def _spend_the_rest(replicas: list[Counters], tenant: str, seed: int) -> int:
    """All callers go on until nothing is left for them; what they have used in the end."""
    chance = random.Random(seed)
    limit = budget(LEFT, Window.TOTAL, tenant, Scope.TENANT, (TOTAL,))
    spent = 0

    async def call(caller: int) -> None:
        nonlocal spent
        counters = replicas[caller % len(replicas)]
        for attempt in range(1000):
            asked = plan(
                f"{caller}-{attempt}",
                limit,
                slots(CALLERS),
                needed=5,
                wanted=chance.randint(5, 60),
                tenant=tenant,
            )
            try:
                verdict = await counters.take(asked)
            except StoreUnavailable:  # on a machine that has no time for it; nothing is kept of the take
                continue
            match verdict:
                case Taken(tokens=tokens):
                    await asyncio.sleep(0)  # the request itself
                    used = chance.randint(0, tokens)
                    spent += used
                    await counters.settle(tenant, asked.reservation_id, used)
                case Refused(standing=standing) if standing.used + 5 > LEFT:
                    return
            await asyncio.sleep(0.005)  # others give back

    await asyncio.gather(*(call(caller) for caller in range(CALLERS)))
    return spent


async def test_the_last_tokens_are_never_overspent_and_hardly_wasted(two_replicas: list[Counters]):
    """64 callers over two replicas; 30 rounds."""
    for number in range(times(ROUNDS)):
        tenant = f"race{number}"
        await two_replicas[0].restore(tenant, [], [], 15.0)

        spent = await _spend_the_rest(two_replicas, tenant, seed=number)

        assert LEFT * 0.95 <= spent <= LEFT


async def test_the_same_in_one_process():
    """Where calls can't meet, but requests do."""
    counters = LocalCounters(SystemClock())
    for number in range(ROUNDS):
        await counters.restore(f"race{number}", [], [], 15.0)

        assert LEFT * 0.95 <= await _spend_the_rest([counters], f"race{number}", seed=number) <= LEFT


async def test_the_same_plan_at_the_same_time_is_taken_once(two_replicas: list[Counters]):
    """Sixty-four times the same message."""
    await two_replicas[0].restore("acme", [], [], 15.0)
    asked = plan("r1", budget(None, Window.TOTAL), slots(1), wanted=50)

    verdicts = await asyncio.gather(*(two_replicas[number % 2].take(asked) for number in range(CALLERS)))

    assert {verdict.tokens for verdict in verdicts if isinstance(verdict, Taken)} == {50}
    assert len([verdict for verdict in verdicts if isinstance(verdict, Taken)]) == CALLERS
