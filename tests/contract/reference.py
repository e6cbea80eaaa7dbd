"""What a store must do, said as shortly as possible: one tenant, exact fractions, no bounds on anything."""

from collections import defaultdict
from fractions import Fraction
from math import inf

from attrs import define, field

from gateway.accounting import BucketTake, BudgetTake, Cold, Plan, RateTake, SlotTake, Stale, Take


def amount_of(take: Take, tokens: int, spared: int) -> int:
    if isinstance(take, RateTake | SlotTake):
        return 1
    return max(0, tokens - spared) if isinstance(take, BucketTake) else tokens


@define
class Passed:
    """What one request took of a meter: what it holds, and what it used once that is known."""

    moment: float
    tokens: int
    is_excess: bool = False  # more than was reserved: no store could hold that back


def missing(passed: list[Passed], per_minute: int, now: float) -> Fraction:
    """The backlog of all that passed, each at its moment, that is served at the rate."""
    backlog, at = Fraction(0), 0.0
    for each in passed:
        backlog = max(Fraction(0), backlog - Fraction(each.moment - at) * per_minute / 60) + each.tokens
        at = each.moment
    return max(Fraction(0), backlog - Fraction(now - at) * per_minute / 60)


def keeps_the_law(passed: list[Passed], per_minute: int) -> bool:
    """In any t seconds no more than a minute's worth + rate × t is used, whatever was reserved."""
    within = [each for each in passed if not each.is_excess]
    for first, begin in enumerate(within):
        used = 0
        for end in within[first:]:
            used += end.tokens
            if used > per_minute + Fraction(end.moment - begin.moment) * per_minute / 60:
                return False
    return True


@define
class Held:
    tokens: int
    slots: set[str]
    buckets: dict[str, Passed]
    periods: dict[str, str]  # of each budget
    ends: float
    is_charged: bool = False


@define
class Reference:
    now: float
    is_cold: bool = True
    meters: defaultdict[str, list[Passed]] = field(factory=lambda: defaultdict(list))
    budgets: dict[tuple[str, str], list[int]] = field(factory=dict)  # account, period → spent, reserved
    held: dict[str, Held] = field(factory=dict)
    told: dict[str, int] = field(factory=dict)
    epoch: int = 0

    def free(self, take: Take) -> int:
        name = take.account
        if isinstance(take, SlotTake):
            return take.limit - sum(name in held.slots for held in self.held.values() if not held.is_charged)
        if isinstance(take, BudgetTake):
            return 2**53 - 1 if take.limit is None else take.limit - sum(self.budget(take))
        return int((take.per_minute - self.missing(take)) // 1)

    def missing(self, take: RateTake | BucketTake) -> Fraction:
        return missing(self.meters[take.account], take.per_minute, self.now)

    def period(self, take: BudgetTake) -> str:
        return next(each.id for each in take.periods if each.ends_at is None or self.now < each.ends_at)

    def budget(self, take: BudgetTake) -> list[int]:
        return self.budgets.setdefault((take.account, self.period(take)), [0, 0])

    def retry_at(self, take: Take, amount: int) -> float:
        limit = take.per_minute if isinstance(take, RateTake | BucketTake) else take.limit
        if not limit or amount > limit:
            return inf
        soon = self.now + 1
        if isinstance(take, BudgetTake):
            ends_at = next(each.ends_at or inf for each in take.periods if each.id == self.period(take))
            return ends_at if self.budget(take)[0] + amount > limit else min(ends_at, soon)
        if isinstance(take, SlotTake):
            return soon
        return self.now + float((self.missing(take) + amount - limit) * 60 / limit)

    def take(self, plan: Plan) -> int | dict[Take, float] | Cold | Stale:
        """Tokens, or what lacks something, with when it may fit."""
        if self.is_cold:
            return Cold()
        self.expire()
        if plan.reservation_id in self.held and not self.held[plan.reservation_id].is_charged:
            return self.held[plan.reservation_id].tokens
        if plan.epoch < self.epoch:
            return Stale(self.epoch)
        free = {take: self.free(take) for take in plan.takes}
        short = {}
        for take in plan.takes:
            amount = amount_of(take, plan.tokens_needed, plan.spared)
            if max(0, free[take]) < amount or 0 in (
                getattr(take, "limit", 1),
                getattr(take, "per_minute", 1),
            ):
                short[take] = self.retry_at(take, amount)
        if short:
            return short
        counted = [free[take] for take in plan.takes if isinstance(take, BudgetTake)]
        counted += [free[take] + plan.spared for take in plan.takes if isinstance(take, BucketTake)]
        tokens = max(0, min([plan.tokens_wanted, *counted]))
        for take in plan.takes:
            if isinstance(take, BudgetTake):
                self.budget(take)[1] += tokens
            elif not isinstance(take, SlotTake):
                passed = Passed(self.now, amount_of(take, tokens, plan.spared))
                self.meters[take.account].append(passed)
        slots = {take.account for take in plan.takes if isinstance(take, SlotTake)}
        buckets = {
            take.account: self.meters[take.account][-1] for take in plan.takes if isinstance(take, BucketTake)
        }
        periods = {take.account: self.period(take) for take in plan.takes if isinstance(take, BudgetTake)}
        ends = self.now + plan.lease_s
        self.told.pop(plan.reservation_id, None)
        self.held[plan.reservation_id] = Held(tokens, slots, buckets, periods, ends)
        return tokens

    def expire(self) -> None:
        for name, held in self.held.items():
            if held.ends <= self.now and not held.is_charged:
                self.charge(held, held.tokens, held.tokens)
                held.is_charged = True
                self.told[name] = held.tokens

    def charge(self, held: Held, reserved: int, spent: int) -> None:
        for account in held.periods.items():
            budget = self.budgets.setdefault(account, [0, 0])
            budget[0], budget[1] = budget[0] + spent, budget[1] - reserved

    def settle(self, name: str, used: int) -> None:
        if held := self.held.pop(name, None):
            self.told.pop(name, None)
            self.charge(held, 0 if held.is_charged else held.tokens, used - held.tokens * held.is_charged)
            for account, passed in held.buckets.items() if not held.is_charged else ():
                excess = max(0, used - passed.tokens)
                passed.tokens = min(used, passed.tokens)
                self.meters[account].append(Passed(self.now, excess, is_excess=True))

    def renew(self, names: list[str], lease: float) -> None:
        for name in names:
            if name in self.held and not self.held[name].is_charged:
                self.held[name].ends = self.now + lease

    def restore(self, spent: dict[tuple[str, str], int], slots: set[str], lease: float) -> None:
        """A cold one starts anew from what was spent and from what is open; a warm one only gets higher."""
        if self.is_cold:
            self.is_cold, self.told = False, {}
            self.meters.clear()
            self.held = {name: held for name, held in self.held.items() if not held.is_charged}
            self.budgets = {}
            for held in self.held.values():
                held.slots, held.buckets, held.ends = slots, {}, self.now + lease
                self.charge(held, -held.tokens, 0)
        for account, tokens in spent.items():
            self.budgets.setdefault(account, [0, 0])
            self.budgets[account][0] = max(self.budgets[account][0], tokens)
