"""A circuit breaker: who failed again and again is left alone for a while, then tried with one request.

A machine without a clock: `now` is seconds on a monotonic one.
"""

from enum import StrEnum
from typing import Final

from attrs import define

# One failure is no outage, and each one costs a caller its answer.
FAILURES: Final = 3
# Doubled with each probe that fails, so that one that is away for the night is asked once a minute.
FIRST_REST_S: Final = 2.0
MAX_REST_S: Final = 60.0


class BreakerState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"
    """Its rest is over: one request goes through, and decides; the next one where it takes too long."""


@define
class Breaker:
    """Counts failures in a row. Whoever was let through (`try_pass`) says what became of it, as soon as it is
    known, and shows the pass that it was given.

    A pass tells when that was: what was sent before it opened says nothing of how it is now, and of two
    probes the newer one decides.
    """

    _failures: int = 0
    _rest_s: float = FIRST_REST_S
    _rests_until: float | None = None
    _probed_at: float | None = None
    _newest: int = 0
    """Raised whenever it opens, and with each probe: older passes are of no account."""

    def state(self, now: float) -> BreakerState:
        if self._rests_until is None:
            return BreakerState.CLOSED
        return BreakerState.HALF_OPEN if now >= self._rests_until else BreakerState.OPEN

    def may_pass(self, now: float) -> bool:
        """Whether `try_pass` would let a request through. Changes nothing."""
        if self._rests_until is None:
            return True
        # What is answered in one piece is heard of when it is complete, in an hour maybe.
        is_probing = self._probed_at is not None and now < self._probed_at + MAX_REST_S
        return now >= self._rests_until and not is_probing

    def try_pass(self, now: float) -> int | None:
        """A pass for one request, or None; in the half-open state the first one is the probe's."""
        return self.let_through(now) if self.may_pass(now) else None

    def let_through(self, now: float) -> int:
        """The pass of one that may pass."""
        if self._rests_until is not None:
            self._probed_at = now
            self._newest += 1
        return self._newest

    def retry_after_s(self, now: float) -> float:
        """How long until the next probe; 0 when a request may pass, or one is under way."""
        return 0.0 if self._rests_until is None else max(0.0, self._rests_until - now)

    def succeeded(self, shown: int) -> None:
        """It works: whatever was before is forgotten."""
        if shown == self._newest and (self._failures or self._rests_until is not None):
            self.close()

    def close(self) -> None:
        """It works, as is known from elsewhere."""
        self._failures, self._rest_s = 0, FIRST_REST_S
        self._rests_until = self._probed_at = None

    def failed(self, shown: int, now: float) -> None:
        if shown != self._newest:
            return
        if self._rests_until is not None:
            # Nobody but the probe has the newest pass while it is open.
            self._open(now, min(2 * self._rest_s, MAX_REST_S))
            return
        self._failures += 1
        if self._failures >= FAILURES:
            self._open(now, self._rest_s)

    def abandoned(self, shown: int) -> None:
        """It was let through and ended by the caller: nobody knows. The next one may be the probe."""
        if shown == self._newest:
            self._probed_at = None

    def _open(self, now: float, rest_s: float) -> None:
        self._rest_s, self._rests_until, self._probed_at = rest_s, now + rest_s, None
        self._newest += 1
