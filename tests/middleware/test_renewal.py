"""Two replicas over one store of counters: a change is known at once, also to one that can't read it."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

import pytest
from attrs import define, evolve, field

from gateway.accounting import LedgerEntry, Policy, Stale, Sum
from gateway.errors import StoreUnavailable
from gateway.middleware.admission import Admission
from gateway.middleware.audit import Audit
from gateway.middleware.auth import Auth
from gateway.middleware.budgets import Budgets
from gateway.middleware.context import answer, exchange_of
from gateway.middleware.counting import Counting
from gateway.middleware.errors import Errors
from gateway.middleware.intake import Intake
from gateway.middleware.limits import Limits
from gateway.middleware.mutation_block import MutationBlock
from gateway.middleware.offering import Offering
from gateway.middleware.renewal import ROUNDS, Renewal
from gateway.middleware.settler import LEASE_S, Settler
from gateway.middleware.target import Target
from gateway.middleware.tokenizers import Tokenizers
from gateway.model import Exchange, Key, LoadedModel, ModelCard, Usage
from gateway.ports import Counters, Pulse
from gateway.redis_address import redis_address
from gateway.resources import RequestIds, SystemClock
from gateway.rules.options import OptionBounds
from gateway.state.hasher import Hasher, argon2_of
from gateway.state.key_cache import VerifiedKeys
from gateway.state.local_counters import LocalCounters
from gateway.state.prompt_lore import PromptLore
from gateway.state.redis_client import RedisClient
from gateway.state.redis_counters import RedisCounters
from gateway.state.restored_counters import RestoredCounters
from tests.asgi import HOST, Answered, Drained, FakeLifecycle, Rows, call
from tests.middleware.test_admission import OUTPUTS, FakeBackend, Journal, Ledger
from tests.middleware.test_intake import LIMITS
from tests.servers import RedisServer
from tests.state.doubles import NOW, SetClock, Store
from tests.storage.samples import SECRET, key, token

TOKEN = token(1)
KEY = key(1, argon2=argon2_of(TOKEN))
CHAT = b'{"model": "m", "stream": false, "messages": [{"role": "user", "content": "Hi"}]}'


@define
class Link(Ledger):
    """One replica's way to the database, which can be cut."""

    store: Store = field(kw_only=True)
    is_cut: bool = False
    polls: int = 0

    def _fail_if_cut(self) -> None:
        if self.is_cut:
            raise StoreUnavailable

    async def key_by_prefix(self, prefix: str) -> Key | None:
        self._fail_if_cut()
        return await self.store.key_by_prefix(prefix)

    async def revision(self) -> int:
        self._fail_if_cut()
        self.polls += 1
        return await self.store.revision()

    async def pulse(self) -> Pulse:
        return Pulse(await self.revision(), self.store.now())

    async def touch(self, last_used: Mapping[str, float]) -> None:
        await self.store.touch(last_used)

    async def snapshot(
        self, tenant_id: str, periods: Sequence[str]
    ) -> tuple[Sequence[Sum], Sequence[LedgerEntry]]:
        self._fail_if_cut()
        return await super().snapshot(tenant_id, periods)


class Catalogue:
    is_ready = True

    async def find(self, model: str) -> Any:
        return FakeBackend(), ModelCard(model)

    def cards(self) -> tuple[ModelCard, ...]:
        return ()

    def loaded(self) -> tuple[tuple[ModelCard, LoadedModel], ...]:
        return ()


class Replica:
    """All layers, over a memory of keys of its own. Its revision is polled once; then only on demand."""

    def __init__(self, store: Store, counters: Counters, hasher: Hasher) -> None:
        self.link, self.clock = Link(store=store), SetClock()
        self.keys = VerifiedKeys(self.link, self.link.touch, hasher, SECRET, self.clock)
        self.journal, self.rows = Journal(), Rows()
        self.seen: list[Exchange] = []
        self.settler = Settler(counters, self.journal)
        allowances = RestoredCounters(counters, self.link, self.link, Drained(), lease_s=LEASE_S)
        clock, lore = SystemClock(), PromptLore()
        counting = Counting(Tokenizers(clock), lore, clock)
        admission = Admission(
            self._backend, allowances=allowances, settler=self.settler, counting=counting, settling_s=5.0
        )
        planned = Limits(Budgets(admission, clock=clock, lore=lore, outputs=OUTPUTS, lease_s=LEASE_S))
        targeted = Target(planned, offering=Offering(Catalogue()), bounds=OptionBounds(3600, 4096))
        renewed = Renewal(targeted, authenticator=self.keys, allowances=allowances)
        body = Intake(renewed, limits=evolve(LIMITS, all_bytes=10**6), lifecycle=FakeLifecycle(), sinks=())
        known = MutationBlock(Auth(body, authenticator=self.keys))
        errors = Errors(known, chance=lambda: 0.5)
        self.app = Audit(errors, clock=self.clock, new_id=RequestIds(), sinks=(self.rows,))

    async def _backend(self, scope: Any, receive: Any, send: Any) -> None:
        exchange = exchange_of(scope)
        self.seen.append(exchange)
        exchange.is_dispatched, exchange.counted = True, Usage(3, 4)
        await answer(send, 200, b"fine")

    async def ask(self, method: str = "POST", path: str = "/api/chat") -> Answered:
        headers = [HOST, (b"authorization", f"Bearer {TOKEN}".encode())]
        answered = await call(self.app, method, path, headers=headers, body=CHAT if method == "POST" else b"")
        while self.settler._settling:
            await asyncio.wait(self.settler._settling)
        return answered

    async def statuses(self, *requests: tuple[str, str]) -> list[int]:
        return [(await self.ask(*request)).status for request in requests or [("POST", "/api/chat")]]

    def cut_off(self) -> None:
        """From the database, long enough ago for nothing to be fresh."""
        self.link.is_cut = True
        self.clock.pass_by(2)


@pytest.fixture
def hasher() -> Iterator[Hasher]:
    with_one_thread = Hasher(threads=1)
    yield with_one_thread
    with_one_thread.close()


@pytest.fixture(params=["local", "redis"])
async def counters(request: pytest.FixtureRequest) -> AsyncIterator[Counters]:
    if request.param == "local":
        yield LocalCounters(SystemClock())
        return
    server: RedisServer = request.getfixturevalue("redis_server")
    server.ask("FLUSHALL")
    client = RedisClient(redis_address(server.url), deadline_s=5.0)
    async with RedisCounters(client, SystemClock()).opened() as opened:
        yield opened


@pytest.fixture
def store() -> Store:
    store = Store()
    store.put(KEY)
    return store


@pytest.fixture
async def replicas(store: Store, counters: Counters, hasher: Hasher) -> AsyncIterator[list[Replica]]:
    """Both have served the key; the second is far from its next poll."""
    both = [Replica(store, counters, hasher) for _ in range(2)]
    for replica in both:
        await replica.keys.watch.poll()
        assert await replica.statuses() == [200]
    yield both
    for replica in both:
        await replica.keys.stop()


async def change(store: Store, counters: Counters, changed: Key) -> None:
    """As a command does it: committed, then told."""
    store.put(changed)
    await counters.raise_epoch(changed.tenant.id, store.number)


REVOKED = evolve(KEY, revoked_at=NOW)
LISTS = [("GET", "/v1/models"), ("GET", "/v1/usage"), ("GET", "/api/tags")]


async def test_a_revoked_key_is_refused_by_the_very_next_request(
    store: Store, counters: Counters, replicas: list[Replica]
):
    """Before any poll; it gets the same answer as any wrong key, and nothing is taken or audited twice."""
    await change(store, counters, REVOKED)

    answers = [await replica.ask() for replica in replicas]

    assert [answered.status for answered in answers] == [401, 401]
    assert {answered.json()["error"][:26] for answered in answers} == {"A valid API key is require"}
    for replica in replicas:
        assert [row.status for row in replica.rows.rows] == [200, 401]
        assert len(replica.journal.intents) == len(replica.seen) == 1


async def test_a_replica_that_cannot_read_the_change_lets_nobody_in(
    store: Store, counters: Counters, replicas: list[Replica]
):
    """On old knowledge: 503, for it can't be known; lists, which take nothing, included."""
    near, far = replicas
    far.cut_off()
    before = await far.statuses(("POST", "/api/chat"), *LISTS)
    await change(store, counters, REVOKED)
    after = await far.statuses(("POST", "/api/chat"), *LISTS)
    far.link.is_cut = False
    await far.keys.watch.poll()

    assert before == [200] * 4, "keys that are known go on while nothing is known to have changed"
    assert after == [503] * 4
    assert await near.statuses() == await far.statuses() == [401]
    assert len(far.journal.intents) == 2


async def test_an_emptied_store_does_not_let_it_back_in(
    store: Store, counters: Counters, replicas: list[Replica]
):
    """It can't tell the store of the tenant; and who can tells the epoch too."""
    near, far = replicas
    far.cut_off()
    await change(store, counters, evolve(KEY, policy=Policy(rpm=100)))
    await counters.forget(KEY.tenant.id)

    cold = await far.statuses()
    restored = await near.statuses()

    assert (cold, restored) == ([503], [200])
    assert await far.statuses() == [503]


async def test_changed_limits_apply_at_once(store: Store, counters: Counters, replicas: list[Replica]):
    """The request that meets the change is planned anew, by one reading of its body, and taken once."""
    await change(store, counters, evolve(KEY, policy=Policy(rpm=4, daily_tokens=10_000)))

    answers = [await replica.ask() for replica in (*replicas, *replicas)]

    assert [answered.headers["x-ratelimit-remaining-requests"] for answered in answers] == list("3210")
    assert await replicas[1].statuses() == [429]
    first = replicas[1].seen[1]
    assert first.plan is not None
    assert len(set(first.plan.takes)) == len(first.plan.takes) == len(first.takes)
    assert first.principal is not None
    assert (first.principal.epoch, first.principal.key_policy.rpm) == (store.number, 4)
    assert first.bytes_in == len(CHAT)
    assert len(replicas[1].journal.intents) == len(replicas[1].journal.ended) == 3


async def test_all_who_wait_for_the_change_share_one_reading(
    store: Store, counters: Counters, replicas: list[Replica]
):
    """One poll, and one look-up of the key."""
    near, _ = replicas
    await change(store, counters, evolve(KEY, policy=Policy(rpm=100)))
    store.reads.clear()
    near.link.polls = 0

    answers = await asyncio.gather(*(near.ask() for _ in range(50)))

    assert {answered.status for answered in answers} == {200}
    assert (near.link.polls, store.reads) == (1, [KEY.prefix])


async def test_a_database_that_knows_less_than_the_counters_is_no_proof(
    counters: Counters, replicas: list[Replica]
):
    """An old copy was put back: until the counters are rebuilt, nobody knows what was revoked."""
    await counters.raise_epoch(KEY.tenant.id, 99)

    assert await replicas[0].statuses() == [503]
    await counters.forget(KEY.tenant.id)
    assert await replicas[0].statuses() == [200]


async def test_a_change_with_every_round_is_not_chased_for_ever(store: Store, hasher: Hasher):
    """So many rounds, and then a 503."""

    class Restless(LocalCounters):
        takes = 0

        async def take(self, plan: Any) -> Any:
            self.takes += 1
            store.put(KEY)
            return Stale(store.number)

    counters = Restless(SystemClock())
    replica = Replica(store, counters, hasher)

    answered = await replica.ask()
    await replica.keys.stop()

    assert answered.status == 503
    assert int(answered.headers["retry-after"]) > 0
    assert counters.takes == ROUNDS
    assert [row.status for row in replica.rows.rows] == [503]
