"""Limits, Budgets and Admission together, over real counters: what is taken, clamped, told and settled."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from attrs import define, evolve, field
from loguru import logger

from gateway.accounting import Evidence, LedgerEntry, Policy, Scope, Sum
from gateway.errors import (
    AuditUnavailable,
    GatewayError,
    InsufficientQuota,
    LimitsUnavailable,
    RateLimited,
    RequestTooExpensive,
    StoreUnavailable,
)
from gateway.formats.chat import ChatCall, Message, Sampling, UpstreamRequest
from gateway.middleware.admission import Admission
from gateway.middleware.budgets import Budgets
from gateway.middleware.context import answer, exchange_of, open_exchange
from gateway.middleware.counting import Counting
from gateway.middleware.limits import Limits
from gateway.middleware.settler import LEASE_S, Settler
from gateway.middleware.tokenizers import Tokenizers
from gateway.model import AuditRow, Exchange, ModelCard, Operation, Usage
from gateway.rules.plans import OutputBounds
from gateway.state.local_counters import LocalCounters
from gateway.state.prompt_lore import PromptLore
from gateway.state.restored_counters import RestoredCounters
from tests.asgi import PRINCIPAL, Answered, Drained, FakeClock, call, exchange, scope_of
from tests.state.doubles import Store

OUTPUTS = OutputBounds(cap=1000, default=100, minimum=16)


@define
class Journal:
    """A spool that keeps what it is told; `is_broken`: the disk is full."""

    intents: list[LedgerEntry] = field(factory=list)
    ended: list[LedgerEntry] = field(factory=list)
    is_broken: bool = False

    def intent(self, entry: LedgerEntry, row: AuditRow | None = None) -> None:
        if self.is_broken:
            raise AuditUnavailable
        self.intents.append(entry)

    def settled(self, entry: LedgerEntry) -> None:
        self.ended.append(entry)


@define
class Ledger:
    """What the database knows of a tenant."""

    known: tuple[Sum, ...] = ()
    asked: int = 0

    async def snapshot(
        self, tenant_id: str, periods: Sequence[str]
    ) -> tuple[Sequence[Sum], Sequence[LedgerEntry]]:
        self.asked += 1
        return self.known, ()

    async def write(self, entries: Sequence[LedgerEntry]) -> None: ...

    async def sums(self, tenant_id: str, periods: Sequence[str]) -> Sequence[Sum]:
        return self.known

    async def open_intents(self, tenant_id: str) -> Sequence[LedgerEntry]:
        return ()

    async def entry(self, reservation_id: str) -> LedgerEntry | None:
        return None


@define
class FakeBackend:
    """`tokenizer` answers what it is asked for counts."""

    kind: str = "openai"
    name: str = "b"
    tokenizer: Callable[[UpstreamRequest], Awaitable[tuple[int, bytes]]] | None = None

    async def ask(self, request: UpstreamRequest, *, request_id: str, timeout_s: float) -> tuple[int, bytes]:
        assert self.tokenizer is not None, "asked for nothing"
        return await self.tokenizer(request)


@define
class House:
    """The three layers over one set of counters; `backend` is what happens below them."""

    clock: FakeClock = field(factory=FakeClock)
    journal: Journal = field(factory=Journal)
    ledger: Ledger = field(factory=Ledger)
    seen: list[Exchange] = field(factory=list)
    usage: Usage | None = field(factory=lambda: Usage(10, 5))
    usage_of: Callable[[Exchange], Usage] | None = None
    key_policy: Policy = field(factory=Policy)
    time_zone: str = "UTC"
    card: ModelCard = field(factory=lambda: ModelCard("m"))
    target: FakeBackend = field(factory=FakeBackend)
    text: str = "Hi"
    lore: PromptLore = field(factory=PromptLore)
    counting: Any = None
    error: BaseException | None = None
    counters: Any = None
    settler: Any = None
    refused: Any = None
    _number: int = 0

    def __attrs_post_init__(self) -> None:
        self.counters = self.counters or LocalCounters(self.clock)
        self.settler = Settler(self.counters, self.journal)
        self.counting = Counting(Tokenizers(self.clock), self.lore, self.clock)

    async def backend(self, scope, receive, send) -> None:
        given = exchange_of(scope)
        self.seen.append(given)
        if self.error is not None:
            raise self.error
        given.is_dispatched, given.pieces = given.operation is not Operation.COUNT_TOKENS, 5
        given.counted = given.usage = self.usage_of(given) if self.usage_of else self.usage
        await answer(send, 200, b"fine")

    async def ask(
        self,
        max_tokens: int | None = None,
        num_ctx: int | None = None,
        path: str = "/api/chat",
        **policy: Any,
    ) -> Answered:
        """One request of a tenant with this policy."""
        self._number += 1
        asked = ChatCall(
            "m",
            (Message("user", self.text),),
            stream=False,
            sampling=Sampling(num_ctx=num_ctx, max_tokens=max_tokens),
        )
        given = exchange(
            request_id=f"r{self._number}",
            path=path,
            principal=evolve(
                PRINCIPAL,
                tenant_policy=Policy(**policy),
                key_policy=self.key_policy,
                time_zone=self.time_zone,
            ),
            call=asked,
            target=(self.target, self.card),
            model="m:latest",
        )
        allowances = RestoredCounters(self.counters, self.ledger, Store(), Drained(), lease_s=LEASE_S)
        app = Admission(
            self.backend,
            allowances=allowances,
            settler=self.settler,
            counting=self.counting,
            settling_s=0.1,
        )
        layers = Limits(Budgets(app, clock=self.clock, lore=self.lore, outputs=OUTPUTS, lease_s=LEASE_S))
        self.refused = given
        scope = scope_of("POST", "/api/chat")
        open_exchange(scope, given)
        try:
            return await call(layers, scope=scope)
        finally:
            await self.settled()

    async def settled(self) -> None:
        """Wait for what the settler has begun."""
        while self.settler._settling:
            await asyncio.wait(self.settler._settling)


async def test_a_request_without_limits_is_counted_all_the_same():
    """So that a budget which is set later knows what was spent."""
    house = House()

    answered = await house.ask()

    assert answered.status == 200
    (intent,), (settled,) = house.journal.intents, house.journal.ended
    assert (intent.evidence, intent.tokens) == (Evidence.INTENT, intent.reserved)
    assert (settled.evidence, settled.tokens, settled.estimated) == (Evidence.SETTLED, 15, False)
    assert not [name for name in answered.headers if name.startswith(("x-ratelimit", "x-budget"))]


async def test_to_count_tokens_costs_none():
    """It passes where all are spent, and is a request all the same."""
    house = House()
    await house.ask(total_tokens=300)

    policy: dict[str, Any] = {"total_tokens": 15, "rpm": 1}
    counted = await house.ask(path="/v1/messages/count_tokens", **policy)

    assert counted.headers["x-ratelimit-remaining-requests"] == "0"
    assert counted.headers["x-budget-remaining-total"] == "0"
    assert (house.journal.ended[-1].reserved, house.journal.ended[-1].tokens) == (0, 0)
    with pytest.raises(RateLimited):
        await house.ask(path="/v1/messages/count_tokens", **policy)


@pytest.mark.parametrize("zero", ["rpm", "concurrent", "total_tokens"])
async def test_zero_denies_also_to_count(zero: str):
    with pytest.raises((RateLimited, InsufficientQuota)):
        await House().ask(path="/v1/messages/count_tokens", **{zero: 0})


async def test_the_output_is_clamped_to_what_was_granted():
    """It is sent upstream: a backend's own default may be ten times the context."""
    house = House()

    await house.ask()
    await house.ask(max_tokens=7)
    await house.ask(max_tokens=10**6)
    await house.ask(total_tokens=10**6)

    assert [one.call.sampling.max_tokens for one in house.seen] == [1000, 7, 1000, 100]
    assert [one.output_allowed for one in house.seen] == [1000, 7, 1000, 100]


async def test_a_caller_does_not_name_the_bound_of_its_prompt():
    """llama.cpp and vLLM know no num_ctx, so a small one would only make the reservation too small."""
    house = House()

    await house.ask()
    await house.ask(num_ctx=1)

    plain, small = (one.demand for one in house.seen)
    assert plain == small


async def test_the_context_bounds_a_prompt():
    """No backend takes in more; so no more is reserved."""
    house = House(card=ModelCard("m", context=200))

    await house.ask()

    assert [one.demand and one.demand.prompt_bound for one in house.seen] == [200]


async def test_requests_per_minute_are_counted_and_told():
    house = House()

    answers = [await house.ask(rpm=2) for _ in range(2)]
    with pytest.raises(RateLimited) as refused:
        await house.ask(rpm=2)

    assert [one.headers["x-ratelimit-remaining-requests"] for one in answers] == ["1", "0"]
    assert 1 <= (refused.value.retry_after_s or 0) <= 30
    assert (b"x-ratelimit-remaining-requests", b"0") in house.refused.headers
    assert len(house.journal.intents) == 2, "a refusal leaves no trace in the ledger"


async def test_a_budget_is_spent_to_the_token():
    """What is not used goes back; the last tokens clamp the output; then it is over."""
    house = House(usage=Usage(40, 60))
    bound = await bound_of(house)
    budget = 100 + bound + 50

    first = await house.ask(daily_tokens=budget)
    house.usage = Usage(bound, 50)
    second = await house.ask(daily_tokens=budget)
    with pytest.raises(InsufficientQuota) as refused:
        await house.ask(daily_tokens=budget)

    assert first.headers["x-budget-limit-day"] == str(budget)
    assert first.headers["x-budget-remaining-day"] == str(budget - 100), "what was not used is back already"
    assert house.seen[-1].output_allowed == 50, "what is left, less the prompt"
    assert second.status == 200
    assert (b"x-should-retry", b"false") in refused.value.headers()
    assert sum(entry.tokens for entry in house.journal.ended[1:]) == budget


async def bound_of(house: House) -> int:
    """The prompt bound of the test's request, learned from one that was made without limits."""
    await house.ask()
    demand = house.seen[-1].demand
    assert demand is not None
    house.ledger.known = ()
    await house.counters.forget(PRINCIPAL.tenant_id)
    return demand.prompt_bound


async def test_a_spent_budget_is_told_rather_than_a_rate():
    """A client would come back in a minute, and again for all of the day."""
    house = House()
    await house.ask(rpm=1, daily_tokens=10_000)
    house.usage = Usage(9_990, 5)
    await house.ask(rpm=2, daily_tokens=10_000)

    with pytest.raises(InsufficientQuota):
        await house.ask(rpm=2, daily_tokens=10_000)


async def test_what_can_never_fit_is_no_429():
    """A client that obeys Retry-After would come back for ever."""
    with pytest.raises(RequestTooExpensive):
        await House().ask(daily_tokens=5)


async def test_a_time_zone_that_this_machine_lacks_refuses():
    """Set on a newer machine: its days can't be told here. The operator's log says so."""
    lines: list[str] = []
    handler = logger.add(lines.append, level="ERROR", format="{message} {extra}")
    try:
        with pytest.raises(LimitsUnavailable):
            await House(time_zone="Europe/Atlantis").ask()
    finally:
        logger.remove(handler)

    (line,) = lines
    assert "no time zone 'Europe/Atlantis'" in line
    assert PRINCIPAL.tenant in line


async def test_a_zero_denies():
    with pytest.raises(RateLimited):
        await House().ask(rpm=0)
    with pytest.raises(InsufficientQuota):
        await House().ask(total_tokens=0)


async def test_a_key_has_limits_of_its_own():
    """Both apply; what a key does not have it inherits."""
    house = House(key_policy=Policy(rpm=1))

    await house.ask(rpm=10)
    with pytest.raises(RateLimited) as refused:
        await house.ask(rpm=10)

    assert "key 'ci'" in refused.value.sentence


@pytest.mark.parametrize("error", [RuntimeError("bug"), asyncio.CancelledError()], ids=["bug", "cancelled"])
async def test_whatever_ends_a_request_its_slot_is_free_again(error: BaseException):
    """LiteLLM #27955: a cancelled stream kept its place for ever."""
    house = House(error=error)

    with pytest.raises(type(error)):
        await house.ask(concurrent=1)
    house.error = None

    assert (await house.ask(concurrent=1)).status == 200
    assert house.journal.ended[0].tokens == 0, "nothing was dispatched, so nothing is owed"


async def test_an_answer_that_nobody_counted_costs_what_was_seen():
    house = House(usage=None)

    await house.ask()

    (settled,) = house.journal.ended
    assert (settled.completion_tokens, settled.estimated) == (5, True)
    assert settled.prompt_tokens > 0


async def test_nothing_is_sent_before_its_intent_is_written_down():
    """A full disk: 503, nothing dispatched, nothing reserved for ever."""
    house = House(journal=Journal(is_broken=True))

    with pytest.raises(AuditUnavailable):
        await house.ask(concurrent=1)
    house.journal.is_broken = False

    assert house.seen == []
    assert (await house.ask(concurrent=1)).status == 200


async def test_counters_that_know_nothing_are_told_by_the_ledger():
    """After a restart, the budget goes on where it was: once for each tenant."""
    clock = FakeClock()
    spent = Sum(Scope.TENANT, PRINCIPAL.tenant_id, "total", spent=990, reserved=0)
    house = House(clock=clock, ledger=Ledger((spent,)))

    with pytest.raises(GatewayError):
        await house.ask(total_tokens=1000)
    with pytest.raises(GatewayError):
        await house.ask(total_tokens=1000)

    assert house.ledger.asked == 1


async def test_a_store_that_is_down_refuses_and_takes_nothing():
    """Fail closed: what can't be checked is refused."""

    class Down(LocalCounters):
        async def take(self, plan):
            raise StoreUnavailable

    house = House(counters=Down(FakeClock()))

    with pytest.raises(StoreUnavailable):
        await house.ask()

    assert house.journal.intents == []
