"""What one meter lacks in this process, as of a moment, and when it is back.

The law of a bucket: in any t seconds no more than a minute's worth + rate × t tokens are used, each counted
when it was taken. For that it lacks at every moment what it would lack had each request taken no more than it
used, or still holds, from the start: the backlog of a queue that is served at the rate.

What a request did not use is therefore given back only as far as the bucket has lacked it ever since: for the
rest it has filled up by itself. The least that it lacked since the take bounds the refund exactly: by so much
the whole backlog was higher all the time, and no refill has gone to waste at the brim that would not have
without it (a reflected walk that starts n lower ends min(n, its least) lower).
"""

import math
from bisect import bisect_left, bisect_right
from copy import copy
from operator import itemgetter
from typing import Any, ClassVar, Final, Self

from attrs import define

from gateway.accounting import MAX_TOKENS, Row
from gateway.state.accounts import MAX_LOWS, SECOND_US

_MINUTE_US: Final = 60 * SECOND_US
# What doubles lose in a meter must not cost a request.
_SLACK: Final = 1e-6

# "Since then (µs) it has never lacked less than this": both ascend. Before the first it was full once.
_Lows = tuple[tuple[int, float], ...]
_since_of: Final = itemgetter(0)
_low_of: Final = itemgetter(1)


@define
class Meter:
    """What is missing from a full minute's worth of requests. Refills as time goes by."""

    period: ClassVar[str] = ""
    """Only budgets have periods."""
    limit: int = 0
    """A minute's worth."""
    missing: float = 0.0
    at_us: int = 0

    def at(self, take: Any, now_us: int) -> Self:
        # At another rate it is filled up only where something is taken at it: one of 0 would hold it up.
        meter = copy(self) if self.missing and take.per_minute != self.limit else self
        meter.fill(take.per_minute, now_us)
        return meter

    def fill(self, per_minute: int, now_us: int) -> None:
        """As of now, and from here on at this rate."""
        self.missing = self.missing_at(per_minute, now_us)
        self.limit, self.at_us = per_minute, now_us

    def allows(self, tokens: int, spared: int) -> int | None:  # noqa: ARG002 - requests are counted here
        return MAX_TOKENS if self.limit and self.free >= 1 else None

    def hold(self, tokens: int, spared: int) -> Row:  # noqa: ARG002
        self.missing += 1
        return self.row()

    def row(self) -> Row:
        whole_us = self.at_us + self._refilled_us(self.missing) if self.limit else -1
        return math.ceil(self.missing - _SLACK) if self.missing > _SLACK else 0, 0, whole_us

    def retry_us(self, tokens: int, spared: int, now_us: int) -> int | None:  # noqa: ARG002
        return self._fits_us(1)

    def is_idle(self, now_us: int) -> bool:
        return self.missing_at(self.limit, now_us) == 0

    def missing_at(self, per_minute: int, now_us: int) -> float:
        passed_us = now_us - self.at_us
        if passed_us <= 0:
            return self.missing
        left = self.missing - per_minute * float(passed_us) / _MINUTE_US
        return left if left > 0 else 0.0

    @property
    def free(self) -> int:
        return math.floor(self.limit - self.missing + _SLACK)

    def _fits_us(self, amount: int) -> int | None:
        """When so much may fit; None for never."""
        if self.limit == 0 or amount > self.limit:
            return None
        return self.at_us + self._refilled_us(self.missing + amount - self.limit) + 1

    def _refilled_us(self, tokens: float) -> int:
        return math.ceil(tokens * _MINUTE_US / self.limit)


@define
class Bucket(Meter):
    """A meter of tokens, which is given back what was not used of them."""

    lows: _Lows = ()

    def fill(self, per_minute: int, now_us: int) -> None:
        missing = self.missing = self.missing_at(per_minute, now_us)
        self.limit, self.at_us = per_minute, now_us
        if self.lows and self.lows[-1][1] > missing:
            self.lows = _at_most(self.lows, missing)

    def allows(self, tokens: int, spared: int) -> int | None:
        free, amount = self.free, tokens - spared
        if self.limit == 0 or (free < amount and amount > 0):
            return None
        return free + spared

    def hold(self, tokens: int, spared: int) -> Row:
        self.take(tokens - spared)
        return self.row()

    def take(self, amount: int) -> None:
        if amount > 0:
            self.missing += amount
        lows = self.lows
        # Where the last is from the future, the clock was set back since: those before it hold as well.
        if not lows:
            self.lows = ((self.at_us, self.missing),) if self.missing > 0 else ()
        elif lows[-1][0] <= self.at_us and self.missing > lows[-1][1]:
            self.lows = _shortened((*lows, (self.at_us, self.missing)))

    def give_back(self, tokens: int, taken_us: int) -> None:
        """As if what was taken then had been less by so many tokens."""
        by_then = bisect_right(self.lows, taken_us, key=_since_of)
        if not by_then:
            return  # it has been full since
        least = self.lows[by_then - 1][1]
        back = min(tokens, least)
        lows: list[tuple[int, float]] = []
        highest = 0.0
        for since_us, low in self.lows:
            lower = low - back if since_us >= taken_us else min(low, least - back)
            if lower > highest:  # else it says no more than the one before
                highest = lower
                lows.append((since_us, lower))
        self.lows = tuple(lows)
        self.missing -= back

    def retry_us(self, tokens: int, spared: int, now_us: int) -> int | None:  # noqa: ARG002
        return self._fits_us(max(0, tokens - spared))


def _at_most(lows: _Lows, missing: float) -> _Lows:
    """What still holds of them when no more than this is missing, which is less than the last says.

    None above it says more than the first.
    """
    first = bisect_left(lows, missing, key=_low_of)
    return (*lows[:first], (lows[first][0], missing)) if missing else ()


def _shortened(lows: _Lows) -> _Lows:
    """Without the one that says the least more, when there are too many: refunds are then a bit too small."""
    if len(lows) <= MAX_LOWS:
        return lows
    steps = [low - before for (_, before), (_, low) in zip(((0, 0.0), *lows), lows, strict=False)]
    least = steps.index(min(steps))
    return lows[:least] + lows[least + 1 :]
