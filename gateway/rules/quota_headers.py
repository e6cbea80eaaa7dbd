"""Where a caller stands: headers of an answer, and the body of GET /v1/usage.

Where key and tenant both limit, the headers tell the tighter one: the one that refuses first. All of a
standing is what another request would meet now: what a running one holds is not remaining.

Resets: of rates a duration until all is whole again, as OpenAI sends it (`6m0s`) and clients parse it; of
budgets the moment at which the window turns, in UTC (`2026-11-24T00:00:00Z`), as in GET /v1/usage. It
stays true while it travels, and days are no matter of seconds. A total has none: it never turns.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from math import ceil, inf
from typing import Final

from attrs import frozen

from gateway.accounting import (
    MAX_TOKENS,
    BucketTake,
    BudgetTake,
    RateTake,
    Row,
    SlotTake,
    Standing,
    Take,
    Taken,
    Window,
    as_row,
)
from gateway.model import JsonObject
from gateway.rules.limits import iso, limit_of, remaining_of, remaining_within

Header = tuple[bytes, bytes]
Headers = list[Header]

_RATE_LIMIT: Final = "ratelimit"
_BUDGET: Final = "budget"
# What a take counts, and over what: its names in headers and in the usage document.
_REQUESTS: Final = "requests"
_TOKENS: Final = "tokens"
_MINUTE: Final = "minute"
_CONCURRENT: Final = "concurrent"


# ── headers ──────────────────────────────────────────────────────────────────────────────


def headers_of_taken(taken: Taken, given_back: int | None) -> Headers:
    """`headers_of` all that was taken.

    `given_back` are tokens of the reservation that the answer did not use, where that is known when the head
    is sent (a whole answer): granted less settled. In a stream it is None.
    """
    return _headers(_families_of(taken.plan.takes), taken.rows, taken.now, given_back, taken.plan.spared)


def headers_of(standings: Sequence[Standing], now: float) -> Headers:
    """`x-ratelimit-*` and `x-budget-*` for what has a limit; concurrency has no header.

    `now` is the store's clock.
    """
    families = _families_of(tuple(standing.take for standing in standings))
    return _headers(families, [as_row(standing) for standing in standings], now, given_back=None, spared=0)


_DURATIONS: Final = (_REQUESTS, _TOKENS)
_NAMES: Final = {
    what: tuple(f"x-{kind}-{name}-{what}".encode() for name in ("limit", "remaining", "reset"))
    for kind, families in ((_RATE_LIMIT, _DURATIONS), (_BUDGET, tuple(map(str, Window))))
    for what in families
}


@frozen
class _Family:
    """Takes whose headers have the same names: they are of the tightest one.

    `takes` are their places among all, their limits, and what is told of these. `refills`: by and by, not
    when a window turns.
    """

    takes: tuple[tuple[int, int, Header], ...]
    remaining_name: bytes
    reset_name: bytes
    refills: bool
    counts_tokens: bool


# As in `limits.takes`.
@lru_cache(maxsize=4096)
def _families_of(takes: tuple[Take, ...]) -> tuple[_Family, ...]:
    """In the order of the takes, of those that have headers."""
    families: dict[str, list[tuple[int, int]]] = {}
    for place, take in enumerate(takes):
        limit = limit_of(take)
        if limit is not None and not isinstance(take, SlotTake):
            families.setdefault(_family_of(take), []).append((place, limit))
    return tuple(_family(name, places) for name, places in families.items())


def _family(name: str, places: Iterable[tuple[int, int]]) -> _Family:
    limit_name, remaining_name, reset_name = _NAMES[name]
    takes = tuple((place, limit, (limit_name, b"%d" % limit)) for place, limit in places)
    return _Family(takes, remaining_name, reset_name, name in _DURATIONS, name != _REQUESTS)


def _family_of(take: Take) -> str:
    """The word that ends the names of its headers."""
    match take:
        case BudgetTake():
            return take.window
        case BucketTake():
            return _TOKENS
        case _:
            return _REQUESTS


def _headers(
    families: Iterable[_Family], rows: Sequence[Row], now: float, given_back: int | None, spared: int
) -> Headers:
    headers: Headers = []
    to_budgets = given_back or 0
    # What buckets were spared was not taken, so it is not given back; what was needed of it is owed.
    to_buckets = 0 if given_back is None else given_back - spared
    for family in families:
        back = to_budgets if not family.refills else to_buckets if family.counts_tokens else 0
        told_limit, remaining, resets_at = _tightest(family, rows, now, back)
        headers += told_limit, (family.remaining_name, b"%d" % remaining)
        if family.refills:
            headers.append((family.reset_name, _duration(_whole(resets_at - now))))
        elif resets_at < inf:
            headers.append((family.reset_name, _moment(resets_at)))
    return headers


def _tightest(family: _Family, rows: Sequence[Row], now: float, back: int) -> tuple[Header, int, float]:
    """The header of the limit, what remains, and when it is whole again or turns: of where least remains.

    Of equals what takes longer to come back.
    """
    refills = family.refills
    whole_at = now if refills else inf
    tightest, least, latest = family.takes[0][2], MAX_TOKENS + 1, now
    for place, limit, told in family.takes:
        used, reserved, resets_us = rows[place]
        remaining = remaining_within(limit, used + reserved - back)
        resets_at = whole_at if resets_us < 0 else resets_us / 1_000_000
        if refills and limit:
            # What is given back need not fill up by and by.
            resets_at -= 60 * back / limit
        if remaining < least or (remaining == least and resets_at > latest):
            tightest, least, latest = told, remaining, resets_at
    return tightest, least, latest


def duration(seconds: float) -> str:
    """`1h2m3s`, `6m0s`, `1s`, `0s`, as Go writes it: whole seconds, up, and none for what is past."""
    return _duration(_whole(seconds)).decode()


def _whole(seconds: float) -> int:
    # Rounded to the millisecond first: doubles of today's times are off by less than a microsecond.
    return ceil(round(seconds, 3))


@lru_cache(maxsize=1024)
def _duration(whole: int) -> bytes:
    if whole < 60:
        return b"%ds" % max(0, whole)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return b"%dh%dm%ds" % (hours, minutes, rest) if hours else b"%dm%ds" % (minutes, rest)


# Most are ends of days and months, which stand in the headers of every answer.
@lru_cache(maxsize=1024)
def _moment(epoch_s: float) -> bytes:
    return iso(epoch_s).encode()


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
