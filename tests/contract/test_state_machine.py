"""Any sequence of calls, times and losses: the stores do what a short model of them does."""

import math
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import hypothesis.strategies as st
import pytest
from attrs import evolve
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from gateway.accounting import (
    BucketTake,
    BudgetTake,
    Cold,
    LedgerEntry,
    Period,
    Plan,
    Refused,
    Scope,
    SlotTake,
    Stale,
    Standing,
    Sum,
    Take,
    Taken,
    Window,
)
from tests.contract.plans import (
    DAY_S,
    FEBRUARY,
    JANUARY,
    MIDNIGHT,
    MONDAY,
    NOW,
    TOTAL,
    TUESDAY,
    WEDNESDAY,
    bucket,
    budget,
    intent,
    plan,
    rate,
    slots,
)
from tests.contract.reference import Reference, keeps_the_law
from tests.contract.stores import Store
from tests.contract.trials import Trial

RPM, TPM = 7, 600
OWNERS = ((Scope.KEY, "k1"), (Scope.TENANT, "acme"))
PERIODS: dict[Window, tuple[Period, ...]] = {
    Window.DAY: (MONDAY, TUESDAY, WEDNESDAY),
    Window.MONTH: (JANUARY, FEBRUARY),
    Window.TOTAL: (TOTAL,),
}
# Charges can be corrected for two days: the machine's time ends before.
ENDS = NOW + 1.9 * DAY_S

names = st.sampled_from([f"r{number}" for number in range(6)])
# Few refuse: most requests should get far enough to be settled, renewed and lost.
limits = st.sampled_from([None] * 40 + [5000] * 12 + [1000] * 4 + [300, 120, 50, 0])
# So much passes before a take or settlement: a bucket's second is worth 10 tokens.
pauses = st.sampled_from([1, 0, 2, 5, 10])
# Five thousand steps on each store; `make nightly` makes two hundred thousand of them.
SEQUENCES = 140
LATEST = 3
epochs = st.sampled_from([LATEST] * 8 + [2, 1, 0])


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Any of the limits may be there; budgets are always counted."""
    takes: list[Take] = []
    for scope, owner in OWNERS:
        takes += draw(st.sampled_from([*[[]] * 3, [rate(RPM, owner, scope)]]))
        takes += draw(st.sampled_from([[], *[[bucket(TPM, owner, scope)]] * 3]))
        takes += draw(st.sampled_from([[], [slots(2, owner, scope)], [slots(4, owner, scope)]]))
        takes += [budget(draw(limits), window, owner, scope, PERIODS[window]) for window in Window]
    needed = draw(st.integers(0, 60))
    wanted = needed + draw(st.integers(0, 60))
    lease_s = draw(st.sampled_from([1.0, 5.0, 15.0, *[1000.0] * 4]))
    spared = draw(st.sampled_from([0, 0, 9, 70]))
    return plan(
        draw(names),
        *takes,
        needed=needed,
        wanted=wanted,
        lease_s=lease_s,
        epoch=draw(epochs),
        spared=spared,
    )


ALL = plan(
    "standings",
    *(rate(RPM, owner, scope) for scope, owner in OWNERS),
    *(bucket(TPM, owner, scope) for scope, owner in OWNERS),
    *(slots(4, owner, scope) for scope, owner in OWNERS),
    *(budget(None, window, owner, scope, PERIODS[window]) for window in Window for scope, owner in OWNERS),
    epoch=LATEST,
)
SLOTS = {take.account for take in ALL.takes if isinstance(take, SlotTake)}
BUDGETS = {take.account: take for take in ALL.takes if isinstance(take, BudgetTake)}


class Machine(RuleBasedStateMachine):
    """What is done to the store is done to the model; then they must stand alike."""

    def __init__(self, store: Store, run: Callable[..., Any]) -> None:
        super().__init__()
        self.store, self.run = store, run
        self.time = NOW
        self.model = Reference(NOW)

    @initialize()
    def begin(self) -> None:
        self.run(self.store.set_time(NOW))
        self.run(self.store.lose())
        self.run(self.store.counters.restore("acme", [], [], 15.0))
        self.model.restore({}, SLOTS, 15.0)

    def tick(self) -> None:
        if not self.model.is_cold:
            self.model.now = max(self.model.now, self.time)

    @rule(asked=plans(), pause=pauses)
    def take(self, asked: Plan, pause: int) -> None:
        self._go(min(self.time + pause, ENDS))
        foreseen = self.run(self.store.other.look(evolve(asked, reservation_id="another")))
        verdict = self.run(self.store.counters.take(asked))
        if asked.reservation_id not in self.model.held:
            assert getattr(foreseen, "answer", foreseen) == getattr(verdict, "tokens", verdict)
        match self.model.take(asked):
            case Cold():
                assert isinstance(verdict, Cold)
            case Stale() as stale:
                assert verdict == stale
            case int(tokens):
                assert isinstance(verdict, Taken)
                assert verdict.tokens == tokens
                assert len(verdict.periods) == len(BUDGETS)
            case dict(short):
                assert isinstance(verdict, Refused)
                longest = max(short.values())
                told = math.inf if verdict.retry_at is None else verdict.retry_at
                assert told == pytest.approx(longest, abs=1e-5)
                assert short[verdict.standing.take] == pytest.approx(longest, abs=1e-5)

    @rule(which=st.integers(0, 11), name=names, tokens=st.integers(0, 20) | st.integers(0, 130), pause=pauses)
    def settle(self, which: int, name: str, tokens: int, pause: int) -> None:
        """Mostly one that runs."""
        self._go(min(self.time + pause, ENDS))
        name = dict(enumerate(self.model.held)).get(which % 4, name)
        self.run(self.store.other.settle("acme", name, tokens))
        if not self.model.is_cold:
            self.model.settle(name, tokens)

    @precondition(lambda self: not self.model.is_cold)
    @rule(some=st.lists(names, max_size=4), lease_s=st.sampled_from([1.0, 15.0, 100.0]))
    def renew(self, some: list[str], lease_s: float) -> None:
        self.tick()
        self.run(self.store.counters.renew("acme", some, lease_s))
        if not self.model.is_cold:
            self.model.renew(some, lease_s)

    @rule(seconds=st.sampled_from([1, 15, 60, 3600, -1, -20, -55]))
    def set_clock(self, seconds: int) -> None:
        """Never more than 55 s back: the store's own time then stands still."""
        earliest = self.time if self.model.is_cold else min(self.time, self.model.now - 55)
        self._go(min(max(self.time + seconds, earliest), ENDS))

    def _go(self, time: float) -> None:
        self.time = time
        self.run(self.store.set_time(time))
        self.tick()

    @precondition(lambda self: not self.model.is_cold)
    @rule(
        event=st.sampled_from(
            [*["expired"] * 4, *["change", "reconcile"] * 2, "midnight", "lose", "forget"],
        ),
        number=st.integers(1, 100),
    )
    def seldom(self, event: str, number: int) -> None:
        """What would leave little of a run if it were as frequent as takes are."""
        match event:
            case "expired":
                self.expired(number % 2 == 0)
            case "change":
                self.change(1 + number % LATEST)
            case "reconcile":
                self.reconcile(number - 50)
            case "midnight":
                self._go(max(self.time, MIDNIGHT))
            case "lose":
                self.lose(self.store.lose())
            case _:
                self.lose(self.store.counters.forget("acme"))

    def expired(self, is_heard: bool) -> None:
        self.tick()
        told = self.run(self.store.other.expired())
        self.model.expire()
        assert sorted((each.reservation_id, each.tokens) for each in told) == sorted(self.model.told.items())
        assert all(each.tenant_id == "acme" for each in told)
        if is_heard:
            self.run(self.store.counters.heard(told))
            self.model.told.clear()

    def lose(self, losing: Awaitable[None]) -> None:
        self.run(losing)
        self.model.is_cold, self.model.epoch = True, 0

    def change(self, epoch: int) -> None:
        """A command changed the tenant, or a key of it."""
        self.run(self.store.other.raise_epoch("acme", epoch))
        self.model.epoch = max(self.model.epoch, epoch)

    def reconcile(self, more: int) -> None:
        """By a ledger that lags behind, or knows of more."""
        self.tick()
        spent = {
            (name, self.model.period(take)): max(0, self.model.budget(take)[0] + more)
            for name, take in BUDGETS.items()
        }
        self.run(self.store.other.restore("acme", _sums(spent), [intent("unknown", 5)], 15.0))
        self.model.restore(spent, SLOTS, 15.0)

    @precondition(lambda self: self.model.is_cold)
    @rule(epoch=st.integers(1, LATEST))
    def change_of_a_cold_one(self, epoch: int) -> None:
        self.change(epoch)
        assert self.run(self.store.other.expired()) == []

    @precondition(lambda self: self.model.is_cold)
    @rule(epoch=st.integers(0, LATEST))
    def restore(self, epoch: int) -> None:
        """By a ledger that has every request. An emptied store knows no time but its clock's."""
        self._go(max(self.time, self.model.now))
        self.model.now = self.time
        spent = {account: budget[0] for account, budget in self.model.budgets.items()}
        intents = [
            _entry(name, held.tokens, held.periods)
            for name, held in self.model.held.items()
            if not held.is_charged
        ]
        self.run(self.store.counters.restore("acme", _sums(spent), intents, 15.0, epoch))
        self.model.restore(spent, SLOTS, 15.0)
        self.model.epoch = max(self.model.epoch, epoch)

    @invariant()
    def they_stand_alike(self) -> None:
        self.tick()
        found = self.run(self.store.counters.look(ALL))
        if self.model.is_cold:
            assert isinstance(found, Cold)
            return
        self.model.expire()
        assert [(each.used, each.reserved) for each in found.standings] == [
            self._expected(each) for each in found.standings
        ]

    def _expected(self, standing: Standing) -> tuple[int, int]:
        take = standing.take
        if isinstance(take, BudgetTake):
            spent, reserved = self.model.budget(take)
            return spent, reserved
        if isinstance(take, SlotTake):
            return take.limit - self.model.free(take), 0
        return math.ceil(self.model.missing(take)), 0

    @invariant()
    def no_bucket_gives_twice(self) -> None:
        for take in ALL.takes:
            if isinstance(take, BucketTake):
                assert keeps_the_law(self.model.meters[take.account], take.per_minute)


def _sums(spent: dict[tuple[str, str], int]) -> list[Sum]:
    told = ((BUDGETS[account], period, tokens) for (account, period), tokens in spent.items())
    return [Sum(take.scope, take.owner, period, tokens, 0) for take, period, tokens in told]


def _entry(name: str, tokens: int, periods: dict[str, str]) -> LedgerEntry:
    day, month = periods["day:key:k1"], periods["month:key:k1"]
    known = intent(name, tokens)
    return LedgerEntry(
        name, "acme", "k1", known.model, NOW, day, month, tokens, tokens, 0, 0, True, known.evidence
    )


def test_a_store_does_what_the_model_does(trial: Trial):
    """Step by step."""
    machine: Any = partial(Machine, trial.store, trial.run)  # its types say a class; it takes what makes one
    run_state_machine_as_test(machine, settings=trial.settings(SEQUENCES))
