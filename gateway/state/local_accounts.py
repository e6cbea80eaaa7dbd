"""What one account holds in this process, as of a moment: how much is free, and when more will be.

A take looks at each account as of now (`at`), and is held by all of them, or by none. What refills by itself
is filled up in place; what is new, as a budget in its next period or a meter at another rate, becomes the
account once all of them allow the take. `tokens` and `spared` are a plan's; an account makes its own unit of
them.
"""

from typing import Any, ClassVar, Final

from attrs import define

from gateway.accounting import (
    MAX_TOKENS,
    BucketTake,
    BudgetTake,
    Period,
    RateTake,
    Row,
    SlotTake,
    Take,
)
from gateway.state.accounts import DAY_US, SOON_US
from gateway.state.local_meters import Bucket, Meter


@define
class Slots:
    period: ClassVar[str] = ""
    limit: int = 0
    leases: int = 0

    def at(self, take: Any, now_us: int) -> "Slots":  # noqa: ARG002
        self.limit = take.limit
        return self

    def allows(self, tokens: int, spared: int) -> int | None:  # noqa: ARG002 - requests are counted here
        return MAX_TOKENS if self.leases < self.limit else None

    def hold(self, tokens: int, spared: int) -> Row:  # noqa: ARG002
        self.leases += 1
        return self.leases, 0, -1

    def row(self) -> Row:
        return self.leases, 0, -1

    def retry_us(self, tokens: int, spared: int, now_us: int) -> int | None:  # noqa: ARG002
        return now_us + SOON_US if self.limit else None

    def is_idle(self, now_us: int) -> bool:  # noqa: ARG002
        return self.leases <= 0


@define
class Budget:
    """Tokens of the current period, or of a later one, when a caller's clock was ahead."""

    period: str = ""
    ends_us: int | None = None
    spent: int = 0
    reserved: int = 0
    limit: int = MAX_TOKENS

    def at(self, take: Any, now_us: int) -> "Budget":
        limit = MAX_TOKENS if take.limit is None else take.limit
        current = take.periods[0]
        if current.ends_us is not None and now_us >= current.ends_us:
            current = _current(take.periods, now_us)
        if self.period < current.id:
            return Budget(current.id, current.ends_us, 0, 0, limit)
        if self.period == current.id:
            self.ends_us = current.ends_us
        self.limit = limit
        return self

    def allows(self, tokens: int, spared: int) -> int | None:  # noqa: ARG002 - no budget is spared any
        free = self.limit - self.spent - self.reserved
        if self.limit == 0 or (free < tokens and tokens > 0):
            return None
        return free

    def hold(self, tokens: int, spared: int) -> Row:  # noqa: ARG002
        self.reserved += tokens
        return self.spent, self.reserved, -1 if self.ends_us is None else self.ends_us

    def charge(self, reserved: int, spent: int) -> None:
        """Move what a reservation holds from reserved to spent."""
        spent, reserved = self.spent + spent, self.reserved - reserved
        self.spent = spent if spent > 0 else 0
        self.reserved = reserved if reserved > 0 else 0

    def row(self) -> Row:
        return self.spent, self.reserved, -1 if self.ends_us is None else self.ends_us

    def retry_us(self, tokens: int, spared: int, now_us: int) -> int | None:  # noqa: ARG002
        if self.limit == 0 or tokens > self.limit:
            return None
        if self.spent + tokens > self.limit:
            return self.ends_us
        soon_us = now_us + SOON_US
        return soon_us if self.ends_us is None else min(self.ends_us, soon_us)

    def is_idle(self, now_us: int) -> bool:
        return self.ends_us is not None and now_us >= self.ends_us + DAY_US


Account = Meter | Slots | Budget

# What a take is counted in.
KINDS: Final[dict[type[Take], type[Account]]] = {
    RateTake: Meter,
    BucketTake: Bucket,
    SlotTake: Slots,
    BudgetTake: Budget,
}


def _current(periods: tuple[Period, ...], now_us: int) -> Period:
    for period in periods:
        ends_us = period.ends_us
        if ends_us is None or now_us < ends_us:
            return period
    return periods[-1]
