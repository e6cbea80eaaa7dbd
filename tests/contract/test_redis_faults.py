"""Redis slow, silent, gone, empty or torn: everybody is told in time, and it comes back by itself."""

import asyncio
import random
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from time import monotonic, sleep

import pytest
import uvloop
from attrs import frozen

from gateway.accounting import Cold, Stale, Taken, Window
from gateway.errors import StoreUnavailable
from gateway.redis_address import redis_address
from gateway.resources import SystemClock
from gateway.state.redis_client import OPENING_S, PROBE_S, RedisClient
from gateway.state.redis_counters import RedisCounters
from gateway.storage.refusals import RedisUnusable
from tests.contract.plans import TOTAL, budget, plan, rate, slots
from tests.fault_proxy import FaultProxy
from tests.servers import RedisServer

DEADLINE_S = 0.1
# Beside the deadline: what a busy machine adds.
GRACE_S = 0.4
AT_ONCE_S = 0.05
RECOVERY_S = 5.0

OPERATIONS = Path(__file__).parent.parent.parent / "docs" / "OPERATIONS.md"

ONE = budget(None, Window.TOTAL, periods=(TOTAL,))


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Callable[..., object] | None]]:
    """Each fault on both loops: how a connection ends differs between them."""
    return "asyncio", {"loop_factory": uvloop.new_event_loop if request.param == "uvloop" else None}


@pytest.fixture(autouse=True, params=["link", "coredis"])
def by_either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each fault over the link for scripts, and by the generic client alone."""
    client = partial(RedisClient, is_linked=request.param == "link")
    monkeypatch.setattr(f"{__name__}.RedisClient", client)


@pytest.fixture(autouse=True)
def quick_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has to sit through the pauses between them, except where they are the point."""
    monkeypatch.setattr("gateway.state.redis_client.PROBE_S", 0.1)
    monkeypatch.setattr("gateway.state.redis_counters._VOID_S", 0.1)


@frozen
class Replica:
    client: RedisClient
    counters: RedisCounters

    async def used(self) -> tuple[int, int]:
        """What is used and reserved of `ONE`; nothing by a store that was emptied."""
        found = await self.counters.look(plan("r", ONE))
        if isinstance(found, Cold | Stale):
            return 0, 0
        (standing,) = found.standings
        return standing.used, standing.reserved


@asynccontextmanager
async def replica_of(url: str, opening_s: float = OPENING_S) -> AsyncIterator[Replica]:
    client = RedisClient(redis_address(url), deadline_s=DEADLINE_S, opening_s=opening_s)
    await client.open()
    counters = RedisCounters(client, SystemClock())
    yield Replica(client, counters)
    await counters.close()
    await client.close()


@pytest.fixture
async def proxy(redis_server: RedisServer) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(redis_server.port) as proxy:
        yield proxy


@pytest.fixture
async def replica(redis_server: RedisServer, proxy: FaultProxy) -> AsyncIterator[Replica]:
    """Over an empty server that was told of acme, through the proxy."""
    redis_server.ask("FLUSHALL")
    url = redis_server.url.replace(str(redis_server.port), str(proxy.port))
    async with replica_of(url) as replica:
        await replica.counters.restore("acme", [], [], 15.0)
        yield replica


async def seconds_until_refused(counters: RedisCounters) -> float:
    began = monotonic()
    with pytest.raises(StoreUnavailable):
        await counters.take(plan(f"refused {random.random()}", ONE, lease_s=1.0))
    return monotonic() - began


async def is_refused_in_time(counters: RedisCounters) -> None:
    """Within the deadline at first, at once when it is known to be down."""
    for _ in range(3):
        assert await seconds_until_refused(counters) < DEADLINE_S + GRACE_S
    waits = [await seconds_until_refused(counters) for _ in range(20)]
    assert sorted(waits)[10] < AT_ONCE_S


async def answers_again(replica: Replica) -> None:
    """Within seconds, and without being asked to."""
    deadline = monotonic() + RECOVERY_S
    while replica.client.is_down:
        assert monotonic() < deadline, "it did not come back"
        await asyncio.sleep(0.02)
    assert isinstance(await replica.counters.take(plan("again", ONE)), Taken | Cold)


async def test_scripts_that_were_flushed_are_loaded_again(redis_server: RedisServer, replica: Replica):
    """No caller sees it."""
    for number in range(5):
        redis_server.ask("SCRIPT", "FLUSH")
        assert isinstance(await replica.counters.take(plan(f"r{number}", ONE)), Taken)
        redis_server.ask("SCRIPT", "FLUSH")
        await replica.counters.settle("acme", f"r{number}", 3)

    assert await replica.used() == (15, 0)


async def test_an_emptied_server_is_cold_until_it_is_told(redis_server: RedisServer, replica: Replica):
    """Nobody's budget is refilled; and leases taken afterwards are found by others again."""
    redis_server.ask("FLUSHALL")

    assert isinstance(await replica.counters.take(plan("r1", ONE)), Cold)
    await replica.counters.restore("acme", [], [], 15.0)
    await replica.counters.take(plan("r2", ONE, needed=7, lease_s=0.0))

    async with replica_of(redis_server.url) as other:
        assert [each.reservation_id for each in await other.counters.expired()] == ["r2"]


async def test_a_killed_server_refuses_all_and_comes_back(
    anyio_backend: object, monkeypatch: pytest.MonkeyPatch
):
    """It comes back empty, on the same port; nobody has to do anything. With the pauses as they are."""
    monkeypatch.setattr("gateway.state.redis_client.PROBE_S", PROBE_S)
    with RedisServer() as server:
        async with replica_of(server.url) as replica:
            await replica.counters.restore("acme", [], [], 15.0)
            server.kill()
            await is_refused_in_time(replica.counters)

            server.start()
            await answers_again(replica)
            assert isinstance(await replica.counters.take(plan("r1", ONE)), Cold)


async def test_a_server_that_hangs_refuses_all_and_comes_back(anyio_backend: object):
    """It keeps its connections and says nothing."""
    with RedisServer() as server:
        async with replica_of(server.url) as replica:
            await replica.counters.restore("acme", [], [], 15.0)
            with server.stopped():
                await is_refused_in_time(replica.counters)
            await answers_again(replica)


async def test_a_network_that_swallows_everything(proxy: FaultProxy, replica: Replica):
    """The connections look well for minutes; they are not waited for."""
    proxy.is_silent = True
    await is_refused_in_time(replica.counters)
    await asyncio.sleep(0.5)  # a probe is swallowed too

    proxy.is_silent = False
    await answers_again(replica)


async def test_a_network_that_is_too_slow(proxy: FaultProxy, replica: Replica):
    """Past the deadline is as good as down."""
    proxy.delay_s = 0.15
    await is_refused_in_time(replica.counters)

    proxy.delay_s = 0.0
    await answers_again(replica)


async def test_what_failed_before_is_not_held_against_what_comes_after(proxy: FaultProxy, replica: Replica):
    """Calls of the client that was thrown away fail while its successor serves."""
    proxy.is_silent = True
    stragglers = []
    while not replica.client.is_down:
        stragglers.append(asyncio.create_task(seconds_until_refused(replica.counters)))
        await asyncio.sleep(0.004)
    proxy.is_silent = False

    await answers_again(replica)
    await asyncio.gather(*stragglers)

    assert len(stragglers) > 10
    assert not replica.client.is_down


async def test_a_network_that_is_slow_but_not_too_slow(
    proxy: FaultProxy, replica: Replica, monkeypatch: pytest.MonkeyPatch
):
    """Nobody is refused."""
    monkeypatch.setattr(replica.client, "_deadline_s", 10 * DEADLINE_S)
    proxy.delay_s = DEADLINE_S
    for number in range(10):
        assert isinstance(await replica.counters.take(plan(f"r{number}", ONE)), Taken)


async def test_a_single_failure_is_no_outage(proxy: FaultProxy, replica: Replica):
    """A torn connection fails what is on it, if anything; the next call has another one."""
    for number in range(10):
        proxy.reset()
        await asyncio.sleep(0.02)
        assert isinstance(await replica.counters.take(plan(f"r{number}", ONE)), Taken)


async def test_a_connection_that_breaks_under_many_is_one_failure(proxy: FaultProxy, replica: Replica):
    """Over the link all share it: whoever was on it is refused, and nobody after."""
    if replica.client._link is None:
        pytest.skip("the generic client has a connection for each")
    proxy.is_silent = True
    on_it = [asyncio.create_task(seconds_until_refused(replica.counters)) for _ in range(20)]
    await asyncio.sleep(0)
    proxy.reset()
    proxy.is_silent = False
    await asyncio.gather(*on_it)

    assert isinstance(await replica.counters.take(plan("after", ONE)), Taken)


async def test_connections_that_fail_for_long_leave_nothing_behind(anyio_backend: object):
    """A client that loses a place of its pool with each failure would end up waiting for ever."""
    with RedisServer() as server:
        async with replica_of(server.url) as replica:
            for _ in range(3):
                server.kill()
                await is_refused_in_time(replica.counters)
                await asyncio.gather(*(seconds_until_refused(replica.counters) for _ in range(100)))
                server.start()
                await answers_again(replica)


# ── takes that nobody knows the end of ───────────────────────────────────────────────────


async def is_given_back(replica: Replica) -> None:
    """Long before their leases end."""
    deadline = monotonic() + RECOVERY_S
    while (await replica.used())[1] > 0:
        assert monotonic() < deadline, "it was never given back"
        await asyncio.sleep(0.05)


async def test_a_take_whose_answer_came_too_late_is_given_back(proxy: FaultProxy, replica: Replica):
    """Its caller was told that nothing was taken; so nothing may be charged."""
    assert isinstance(await replica.counters.take(plan("kept", ONE, needed=7)), Taken)
    proxy.delay_s = 0.3  # in each direction, also where this event loop is late itself
    with pytest.raises(StoreUnavailable):
        await replica.counters.take(plan("late", ONE, slots(1), lease_s=30))
    proxy.delay_s = 0.0
    await asyncio.sleep(1.0)  # until it was taken

    found = await replica.counters.look(plan("r", ONE, slots(1)))

    assert not isinstance(found, Cold | Stale)
    assert [(each.used, each.reserved) for each in found.standings] == [(0, 7), (0, 0)]


async def test_a_take_whose_answer_was_lost_is_given_back(
    redis_server: RedisServer, proxy: FaultProxy, replica: Replica
):
    """It reached the server, and the connection broke before the answer."""
    proxy.is_deaf = True
    with pytest.raises(StoreUnavailable):
        await replica.counters.take(plan("lost", ONE, lease_s=30))
    assert redis_server.ask("HLEN", "{t:acme}:open") == b":1"

    proxy.is_deaf = False
    proxy.reset()

    await asyncio.sleep(0.1)
    await is_given_back(replica)


async def test_a_take_that_is_repeated_after_a_failure_is_kept(proxy: FaultProxy, replica: Replica):
    """Whoever asks again with the same plan wants it after all."""
    proxy.is_deaf = True
    with pytest.raises(StoreUnavailable):
        await replica.counters.take(plan("lost", ONE, lease_s=30))
    proxy.is_deaf = False
    proxy.reset()
    await asyncio.sleep(0.1)

    assert isinstance(await replica.counters.take(plan("lost", ONE, lease_s=30)), Taken)
    await asyncio.sleep(0.5)

    assert await replica.used() == (0, 10)


async def test_a_blocked_event_loop_is_no_outage(replica: Replica):
    """It was us who came late; the answer lies in the socket."""
    for number in range(3):
        asking = asyncio.create_task(replica.counters.take(plan(f"r{number}", ONE)))
        await asyncio.sleep(0.001)
        sleep(DEADLINE_S + 0.1)  # noqa: ASYNC251
        assert isinstance(await asking, Taken)


async def test_a_busy_event_loop_is_no_outage(replica: Replica):
    """It is never blocked for long, but an answer needs many of its turns."""

    async def others() -> None:
        while True:
            sleep(0.015)  # noqa: ASYNC251
            await asyncio.sleep(0)

    busy = asyncio.create_task(others())
    try:
        asked = (replica.counters.take(plan(f"r{number}", ONE)) for number in range(20))
        verdicts = await asyncio.gather(*asked)
    finally:
        busy.cancel()

    assert {type(verdict) for verdict in verdicts} == {Taken}


async def test_cancelled_callers_cross_no_answers(replica: Replica, monkeypatch: pytest.MonkeyPatch):
    """Hundreds leave at any moment: whoever stays gets the answer to what was asked."""
    monkeypatch.setattr(replica.client, "_deadline_s", 5.0)  # so many at once, on a busy machine

    async def ask(number: int) -> None:
        verdict = await replica.counters.take(plan(f"r{number}", ONE, needed=number, lease_s=30))
        assert isinstance(verdict, Taken)
        assert verdict.tokens == number
        await replica.counters.settle("acme", f"r{number}", 0)

    for first in range(1, 400, 40):
        some = [asyncio.create_task(ask(number)) for number in range(first, first + 40)]
        await asyncio.sleep(random.random() * 0.004)
        for task in some[::2]:
            task.cancel()
        await asyncio.gather(*some[::2], return_exceptions=True)
        await asyncio.gather(*some[1::2])

    assert not replica.client.is_down


async def test_a_cancelled_take_is_given_back(proxy: FaultProxy, replica: Replica):
    """Its caller will never know that it was taken."""
    proxy.delay_s = 0.02
    asking = asyncio.create_task(replica.counters.take(plan("left", ONE, lease_s=30)))
    await asyncio.sleep(0.03)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    proxy.delay_s = 0.0

    await asyncio.sleep(0.1)
    await is_given_back(replica)


# ── opening ──────────────────────────────────────────────────────────────────────────────


async def refused_at_opening(url: str, opening_s: float = OPENING_S) -> str:
    with pytest.raises(RedisUnusable) as refused:
        async with replica_of(url, opening_s):
            pass
    return str(refused.value)


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
async def test_a_server_that_drops_keys_is_refused(anyio_backend: object, policy: str):
    """A dropped counter is a refilled budget."""
    with RedisServer(settings=(f"maxmemory-policy {policy}",)) as server:
        sentence = await refused_at_opening(server.url)

    assert f"the maxmemory-policy {policy}" in sentence
    assert "set maxmemory-policy to noeviction" in sentence


async def test_a_node_of_a_cluster_that_drops_keys_is_refused(
    anyio_backend: object, redis_cluster: "object", request: pytest.FixtureRequest
):
    """Any one of them."""
    node = request.getfixturevalue("redis_cluster").nodes[2]
    node.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-random")
    try:
        assert "allkeys-random" in await refused_at_opening(request.getfixturevalue("redis_cluster").url)
    finally:
        node.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")


@pytest.mark.parametrize("allowed", ["+info", "+config|get"])
async def test_a_user_with_few_rights_is_enough(anyio_backend: object, allowed: str):
    """What OPERATIONS.md names, either way to learn the policy; the sentence of refusal has both."""
    told = re.search(r"ACL SETUSER gateway on >password (.*)", OPERATIONS.read_text())
    assert told is not None
    user = f"user gateway on >secret {told[1].replace('+info', allowed)}"
    with RedisServer(settings=(user,)) as server:
        async with replica_of(f"redis://gateway:secret@{server.address}") as replica:
            await replica.counters.restore("acme", [], [], 15.0)
            assert isinstance(await replica.counters.take(plan("r1", ONE, rate(60), slots(1))), Taken)
            await replica.counters.settle("acme", "r1", 3)
            await replica.counters.take(plan("r2", ONE, lease_s=0.0))
            await replica.counters.heard(await replica.counters.expired())
            assert await replica.counters.expired() == []
            assert await replica.counters.is_my_turn(5.0)


async def test_a_server_that_does_not_tell_is_refused(anyio_backend: object):
    """What can't be checked is refused."""
    with RedisServer(settings=("user gateway on >secret ~* +@all -info -config",)) as server:
        sentence = await refused_at_opening(f"redis://gateway:secret@{server.address}")

    assert "allow this user the command INFO or CONFIG|GET" in sentence


async def test_a_wrong_password_is_told_at_opening(redis_server: RedisServer):
    """Without repeating it."""
    sentence = await refused_at_opening(f"redis://:wrong@{redis_server.address}", opening_s=2.0)

    assert sentence == "Redis refuses the user name or password of REDIS_URL."


async def test_no_server_at_all_is_told_at_opening(anyio_backend: object):
    """After some seconds, for it may be starting too."""
    with pytest.raises(StoreUnavailable):
        async with replica_of("redis://127.0.0.1:1", opening_s=0.3):
            pass


async def test_a_server_that_starts_late_is_waited_for(anyio_backend: object):
    """As in a compose file, where all start together."""
    with RedisServer() as server:
        server.kill()
        opening = asyncio.create_task(RedisClient(redis_address(server.url), deadline_s=DEADLINE_S).open())
        await asyncio.sleep(0.2)
        server.start()
        await opening
