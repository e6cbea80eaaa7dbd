"""Sentinels say who leads: counting goes on with the next one."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from time import monotonic, sleep

import pytest
from attrs import frozen

from gateway.accounting import Taken, Window
from gateway.errors import StoreUnavailable
from gateway.redis_address import redis_address
from gateway.resources import SystemClock
from gateway.state.redis_client import RedisClient
from gateway.state.redis_counters import RedisCounters
from tests.contract.plans import budget, plan
from tests.servers import RedisServer

FAILOVER_S = 15.0
ONE = budget(None, Window.TOTAL)


@frozen
class Watched:
    primary: RedisServer
    replica: RedisServer
    sentinel: RedisServer

    @property
    def url(self) -> str:
        return f"redis+sentinel://:{self.primary.password}@{self.sentinel.address}/main"


@pytest.fixture
def watched() -> Iterator[Watched]:
    with ExitStack() as running:
        primary = running.enter_context(RedisServer(settings=("repl-diskless-sync-delay 0",)))
        leader, secret = f"127.0.0.1 {primary.port}", primary.password
        follows = (f"replicaof {leader}", f"masterauth {secret}")
        replica = running.enter_context(RedisServer(secret, follows))
        # A sentinel asks only every ten seconds who follows: let it find the replica at once.
        eventually("master_link_status:up", replica, "INFO", "replication")
        watches = (
            f"sentinel monitor main {leader} 1",
            f"sentinel auth-pass main {secret}",
            "sentinel down-after-milliseconds main 300",
            "sentinel failover-timeout main 1000",
        )
        sentinel = running.enter_context(RedisServer(settings=watches, is_sentinel=True))
        eventually("slaves=1", sentinel, "INFO", "sentinel")
        yield Watched(primary, replica, sentinel)


def eventually(answer: str, server: RedisServer, *words: object) -> None:
    deadline = monotonic() + FAILOVER_S
    while answer.encode() not in server.ask(*words):
        assert monotonic() < deadline, server.ask(*words)
        sleep(0.02)


async def test_counting_goes_on_with_the_next_that_leads(watched: Watched):
    """What was replicated is still counted; callers are refused in between."""
    client = RedisClient(redis_address(watched.url), deadline_s=1.0)
    await client.open()
    counters = RedisCounters(client, SystemClock())
    await counters.restore("acme", [], [], 15.0)
    assert isinstance(await counters.take(plan("r1", ONE, needed=7, lease_s=60)), Taken)
    assert watched.primary.ask("WAIT", 1, 5000) == b":1"

    watched.primary.kill()

    deadline = monotonic() + FAILOVER_S
    verdict = None
    while not isinstance(verdict, Taken):
        assert monotonic() < deadline, "nobody leads"
        await asyncio.sleep(0.05)
        try:
            verdict = await counters.take(plan("r2", ONE, needed=5, lease_s=60))
        except StoreUnavailable:
            continue
    assert (verdict.standings[0].used, verdict.standings[0].reserved) == (0, 12)
    await counters.close()
    await client.close()
