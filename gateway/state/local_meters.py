"""What one meter lacks in this process, as of a moment, and when it is back."""

import math
from typing import Final

from attrs import frozen

from gateway.accounting import Standing, Take
from gateway.state.accounts import SECOND_US, to_s

_MINUTE_US: Final = 60 * SECOND_US
# What doubles lose in a meter must not cost a request.
_SLACK: Final = 1e-6


@frozen
class Meter:
    """What is missing from a full minute's worth of requests or tokens. Refills as time goes by."""

    limit: int = 0
    """A minute's worth."""
    missing: float = 0.0
    at_us: int = 0

    def at(self, per_minute: int, now_us: int) -> "Meter":
        passed_us = max(0, now_us - self.at_us)
        missing = max(0.0, self.missing - per_minute * float(passed_us) / _MINUTE_US)
        return Meter(per_minute, missing, now_us)

    @property
    def free(self) -> int:
        return math.floor(self.limit - self.missing + _SLACK)

    def plus(self, amount: int) -> "Meter":
        return Meter(self.limit, max(0.0, self.missing + amount), self.at_us)

    def standing(self, take: Take) -> Standing:
        whole_us = self.at_us + self._refilled_us(self.missing) if self.limit else None
        return Standing(take, max(0, math.ceil(self.missing - _SLACK)), 0, to_s(whole_us))

    def retry_us(self, amount: int) -> int | None:
        if self.limit == 0 or amount > self.limit:
            return None
        return self.at_us + self._refilled_us(self.missing + amount - self.limit) + 1

    def is_idle(self, now_us: int) -> bool:
        return self.at(self.limit, now_us).missing == 0

    def _refilled_us(self, tokens: float) -> int:
        return math.ceil(tokens * _MINUTE_US / self.limit)
