"""Where a caller stands: headers of an answer, and the body of GET /v1/usage.

Where key and tenant both limit, the headers tell the tighter one: the one that refuses first. All of a
standing is what another request would meet now: what a running one holds is not remaining.

Resets: of rates a duration until all is whole again, as OpenAI sends it (`6m0s`) and clients parse it; of
budgets the moment at which the window turns, in UTC (`2026-11-24T00:00:00Z`), as in GET /v1/usage. It
stays true while it travels, and days are no matter of seconds. A total has none: it never turns.
"""

from collections.abc import Iterable, Iterator, Sequence
from math import ceil, inf
from typing import Final

from attrs import frozen

from gateway.accounting import BucketTake, BudgetTake, RateTake, SlotTake, Standing, Take
from gateway.model import JsonObject
from gateway.rules.limits import iso, limit_of, remaining_of

Headers = list[tuple[bytes, bytes]]

_RATE_LIMIT: Final = "ratelimit"
_BUDGET: Final = "budget"
# What a take counts, and over what: its names in headers and in the usage document.
_REQUESTS: Final = "requests"
_TOKENS: Final = "tokens"
_MINUTE: Final = "minute"
_CONCURRENT: Final = "concurrent"


# ── headers ──────────────────────────────────────────────────────────────────────────────


def headers_of(standings: Iterable[Standing], now: float, given_back: int | None = None) -> Headers:
    """`x-ratelimit-*` and `x-budget-*` for what has a limit; concurrency has no header.

    `now` is the store's clock. `given_back` are tokens of the reservation that the answer did not use, where
    that is known when the head is sent (a whole answer): granted less settled. In a stream it is None.
    """
    tightest: dict[tuple[str, str], _Place] = {}
    for standing in standings:
        if place := _place_of(standing, now, given_back):
            family = place.family
            if family not in tightest or place.tightness < tightest[family].tightness:
                tightest[family] = place
    return [header for place in tightest.values() for header in place.headers()]


@frozen
class _Place:
    """Where one limit stands, as headers tell it. `family` is the two changing words of their names."""

    family: tuple[str, str]
    limit: int
    remaining: int
    resets_at: float
    reset: str | None

    @property
    def tightness(self) -> tuple[int, float]:
        """Least remaining first; of equals the one that takes longer to come back."""
        return self.remaining, -self.resets_at

    def headers(self) -> Headers:
        kind, what = self.family
        values = (("limit", str(self.limit)), ("remaining", str(self.remaining)), ("reset", self.reset))
        return [(f"x-{kind}-{name}-{what}".encode(), value.encode()) for name, value in values if value]


def _place_of(standing: Standing, now: float, given_back: int | None) -> _Place | None:
    match standing.take:
        case BudgetTake(window=window):
            remaining = remaining_of(standing, given_back or 0)
            resets_at = standing.resets_at
            reset = None if resets_at is None else iso(resets_at)
            family = _BUDGET, str(window)
        case BucketTake(per_minute=per_minute, spared=spared):
            # What it was spared was not taken, so it is not given back; what was needed of it is owed.
            back = 0 if given_back is None else given_back - spared
            remaining = remaining_of(standing, back)
            # What is given back need not fill up by and by.
            sooner_s = 60 * back / per_minute if per_minute else 0
            resets_at = (now if standing.resets_at is None else standing.resets_at) - sooner_s
            family, reset = (_RATE_LIMIT, _TOKENS), duration(resets_at - now)
        case RateTake():
            remaining = remaining_of(standing)
            resets_at = now if standing.resets_at is None else standing.resets_at
            family, reset = (_RATE_LIMIT, _REQUESTS), duration(resets_at - now)
        case SlotTake():
            return None
    limit = limit_of(standing.take)
    if limit is None or remaining is None:
        return None
    return _Place(family, limit, remaining, inf if resets_at is None else resets_at, reset)


def duration(seconds: float) -> str:
    """`1h2m3s`, `6m0s`, `1s`, `0s`, as Go writes it: whole seconds, up, and none for what is past."""
    # Rounded to the millisecond first: doubles of today's times are off by less than a microsecond.
    minutes, rest = divmod(max(0, ceil(round(seconds, 3))), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{rest}s"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


# ── GET /v1/usage ────────────────────────────────────────────────────────────────────────


@frozen
class PastRefusal:
    """A request of the caller's own key that was refused, by the audit log."""

    at: float
    request_id: str
    status: int
    code: str
    model: str | None = None


def usage_document(
    standings: Iterable[Standing],
    refusals: Sequence[PastRefusal],
    *,
    key: str,
    tenant: str,
    now: float,
    log_prompts_s: int | None = None,
) -> JsonObject:
    """The caller's own limits and budgets, and its recent refusals, as they were given.

    And for how many seconds what it asks is kept: null where it is not. It is the caller's to know.

    `limits` and `budgets` are rows alike: scope, unit, window, limit, used, reserved, remaining, resets_at.
    A budget without a limit is there for what was used: its limit and remaining are null. Concurrency has
    the window "concurrent"; what is used of it runs now. Times are in UTC.
    """
    rows = list(standings)
    return {
        "object": "usage",
        "key": key,
        "tenant": tenant,
        "as_of": iso(now),
        "prompts_kept_for_s": log_prompts_s,
        "limits": list(_rows_of(row for row in rows if not isinstance(row.take, BudgetTake))),
        "budgets": list(_rows_of(row for row in rows if isinstance(row.take, BudgetTake))),
        "recent_refusals": [_row_of_refusal(refusal) for refusal in refusals],
    }


def _rows_of(standings: Iterable[Standing]) -> Iterator[JsonObject]:
    for standing in standings:
        unit, window = _unit_and_window(standing.take)
        yield {
            "scope": str(standing.take.scope),
            "unit": unit,
            "window": window,
            "limit": limit_of(standing.take),
            "used": standing.used,
            "reserved": standing.reserved,
            "remaining": remaining_of(standing),
            "resets_at": None if standing.resets_at is None else iso(standing.resets_at),
        }


def _unit_and_window(take: Take) -> tuple[str, str]:
    match take:
        case RateTake():
            return _REQUESTS, _MINUTE
        case BucketTake():
            return _TOKENS, _MINUTE
        case SlotTake():
            return _REQUESTS, _CONCURRENT
        case BudgetTake():
            return _TOKENS, str(take.window)


def _row_of_refusal(refusal: PastRefusal) -> JsonObject:
    return {
        "at": iso(refusal.at),
        "request_id": refusal.request_id,
        "status": refusal.status,
        "code": refusal.code,
        "model": refusal.model,
    }
