"""What one account holds in this process, as of a moment: how much is free, and when more will be."""

from attrs import frozen

from gateway.accounting import (
    MAX_TOKENS,
    BucketTake,
    BudgetTake,
    Period,
    RateTake,
    SlotTake,
    Standing,
    Take,
)
from gateway.state.accounts import DAY_US, SOON_US, to_s
from gateway.state.local_meters import Bucket, Meter


@frozen
class Slots:
    limit: int = 0
    leases: int = 0
    at_us: int = 0

    def at(self, limit: int, now_us: int) -> "Slots":
        return Slots(limit, self.leases, now_us)

    @property
    def free(self) -> int:
        return self.limit - self.leases

    def plus(self, amount: int) -> "Slots":
        return Slots(self.limit, self.leases + amount, self.at_us)

    def standing(self, take: Take) -> Standing:
        return Standing(take, self.leases, 0, None)

    def retry_us(self, amount: int) -> int | None:
        return None if amount > self.limit else self.at_us + SOON_US

    def is_idle(self, _now_us: int) -> bool:
        return self.leases <= 0


@frozen
class Budget:
    """Tokens of the current period, or of a later one, when a caller's clock was ahead."""

    period: str = ""
    ends_us: int | None = None
    spent: int = 0
    reserved: int = 0
    limit: int = MAX_TOKENS
    at_us: int = 0

    def at(self, take: BudgetTake, now_us: int) -> "Budget":
        limit = MAX_TOKENS if take.limit is None else take.limit
        current = _current(take.periods, now_us)
        if self.period > current.id:
            return Budget(self.period, self.ends_us, self.spent, self.reserved, limit, now_us)
        if self.period == current.id:
            return Budget(current.id, current.ends_us, self.spent, self.reserved, limit, now_us)
        return Budget(current.id, current.ends_us, 0, 0, limit, now_us)

    @property
    def free(self) -> int:
        return self.limit - self.spent - self.reserved

    def plus(self, amount: int) -> "Budget":
        spent, reserved = self.spent, self.reserved + amount
        return Budget(self.period, self.ends_us, spent, reserved, self.limit, self.at_us)

    def charged(self, reserved: int, spent: int) -> "Budget":
        """Move what a reservation holds from reserved to spent."""
        spent, reserved = max(0, self.spent + spent), max(0, self.reserved - reserved)
        return Budget(self.period, self.ends_us, spent, reserved, self.limit, self.at_us)

    def standing(self, take: Take) -> Standing:
        return Standing(take, self.spent, self.reserved, to_s(self.ends_us))

    def retry_us(self, amount: int) -> int | None:
        if self.limit == 0 or amount > self.limit:
            return None
        if self.spent + amount > self.limit:
            return self.ends_us
        soon_us = self.at_us + SOON_US
        return soon_us if self.ends_us is None else min(self.ends_us, soon_us)

    def is_idle(self, now_us: int) -> bool:
        return self.ends_us is not None and now_us >= self.ends_us + DAY_US


Account = Meter | Slots | Budget


def _current(periods: tuple[Period, ...], now_us: int) -> Period:
    for period in periods:
        ends_us = period.ends_us
        if ends_us is None or now_us < ends_us:
            return period
    return periods[-1]


def amount_of(take: Take, tokens: int) -> int:
    """What a take is of, in its own unit, where the plan is of so many tokens."""
    match take:
        case BudgetTake():
            return tokens
        case BucketTake():
            return max(0, tokens - take.spared)
        case _:
            return 1


def allowed(take: Take, free: int) -> int | None:
    """How many tokens a plan may be of for this take, of which so much is free; None where it counts none."""
    match take:
        case BudgetTake():
            return free
        case BucketTake():
            return free + take.spared
        case _:
            return None


def measured(take: Take, kept: Account | None, now_us: int) -> Account:
    """The account of a take as of now, for the limit that the take has."""
    match take:
        case BudgetTake():
            return (kept if isinstance(kept, Budget) else Budget()).at(take, now_us)
        case BucketTake():
            return (kept if isinstance(kept, Bucket) else Bucket()).at(take.per_minute, now_us)
        case RateTake():
            return (kept if isinstance(kept, Meter) else Meter()).at(take.per_minute, now_us)
        case SlotTake():
            return (kept if isinstance(kept, Slots) else Slots()).at(take.limit, now_us)
