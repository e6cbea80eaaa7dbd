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
    known.
    """

    _failures: int = 0
    _rest_s: float = FIRST_REST_S
    _rests_until: float | None = None
    _probed_at: float | None = None

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

    def try_pass(self, now: float) -> bool:
        """Let a request through, or not; in the half-open state the first one is the probe."""
        if not self.may_pass(now):
            return False
        self._probed_at = None if self._rests_until is None else now
        return True

    def retry_after_s(self, now: float) -> float:
        """How long until the next probe; 0 when a request may pass, or one is under way."""
        return 0.0 if self._rests_until is None else max(0.0, self._rests_until - now)

    def succeeded(self) -> None:
        """It works: whatever was before is forgotten."""
        self._failures, self._rest_s = 0, FIRST_REST_S
        self._rests_until = self._probed_at = None

    def failed(self, now: float) -> None:
        if self._rests_until is not None:
            # What was sent before it opened and fails only now tells nothing new.
            if self._probed_at is not None:
                self._open(now, min(2 * self._rest_s, MAX_REST_S))
            return
        self._failures += 1
        if self._failures >= FAILURES:
            self._open(now, self._rest_s)

    def abandoned(self) -> None:
        """It was let through and ended by the caller: nobody knows. The next one may be the probe."""
        self._probed_at = None

    def _open(self, now: float, rest_s: float) -> None:
        self._rest_s, self._rests_until, self._probed_at = rest_s, now + rest_s, None
