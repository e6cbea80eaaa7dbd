"""Accounts: what takes are counted in (`Take.account` names it), the same in this process and in Redis.

A rate or bucket is a meter of what is missing from a full minute's worth, which refills as time goes by:
GCRA, but told by its debt, not by an arrival time, so that a burst comes out exact in doubles.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from gateway.accounting import Expired, LedgerEntry, Scope, Sum, Window, budget_of

SECOND_US: Final = 1_000_000
DAY_US: Final = 24 * 60 * 60 * SECOND_US

# A reservation whose lease ran out can be corrected for so long: a day of outage and one to find it.
CORRECTABLE_US: Final = 2 * DAY_US
# A store's clock never goes back, unless it had run ahead by more than this.
MAX_CORRECTION_US: Final = 60 * SECOND_US
# How many leases a take ends, at most, of those that ran out: the rest is for the next one.
MAX_EXPIRED: Final = 20
# How many of a tenant's are told at once.
MAX_TOLD: Final = 500
# How exactly a bucket remembers what it lacked at least since when.
MAX_LOWS: Final = 32
# Slots and reserved tokens come back at any time: ask again after this.
SOON_US: Final = SECOND_US

# A ledger's sum says when its period ends only by its name; this is never too early.
_LONGEST_US: Final = {Window.DAY: 2 * DAY_US, Window.MONTH: 32 * DAY_US, Window.TOTAL: None}
_WINDOW_BY_LENGTH: Final = {len("2026-11-23"): Window.DAY, len("2026-11"): Window.MONTH}


def account_of_sum(told: Sum) -> str:
    return budget_of(window_of(told.period), told.scope, told.owner)


def window_of(period: str) -> Window:
    """The window that a `Period.id` is one of."""
    return _WINDOW_BY_LENGTH.get(len(period), Window.TOTAL)


def longest_us(period: str) -> int | None:
    """In how many µs a period that is current, or was, is over for sure; None for the total."""
    return _LONGEST_US[window_of(period)]


def owners_of(entry: LedgerEntry) -> tuple[tuple[Scope, str], ...]:
    return (Scope.KEY, entry.key_id), (Scope.TENANT, entry.tenant_id)


def budgets_of(entry: LedgerEntry) -> Iterator[tuple[str, str]]:
    """Each budget that a reservation was charged to, and the period of it."""
    for scope, owner in owners_of(entry):
        yield budget_of(Window.DAY, scope, owner), entry.day
        yield budget_of(Window.MONTH, scope, owner), entry.month
        yield budget_of(Window.TOTAL, scope, owner), "total"


def expired_of(
    tenant_id: str, reservation_id: str, tokens: int, at_us: int, puts: Iterable[tuple[str, str]]
) -> Expired:
    """What can be told of a reservation by the budgets that it was in: account and period of each."""
    key_id = day = month = ""
    for account, period in puts:
        window, scope, owner = account.split(":", 2)
        if scope == Scope.KEY:
            key_id = owner
            day = period if window == Window.DAY else day
            month = period if window == Window.MONTH else month
    return Expired(tenant_id, reservation_id, tokens, at_us / SECOND_US, key_id, day, month)


def to_us(seconds: float) -> int:
    return round(seconds * SECOND_US)


def to_s(us: int | None) -> float | None:
    return None if us is None else us / SECOND_US
