"""Limits: a policy says what a request takes; a refusal is put into words.

What 0 means here: it denies, and only the operator can change that. So it stays the 429 that its limit or
budget has (SPEC 3: `rate_limit_exceeded` or `insufficient_quota`), but tells clients not to try again by
themselves, and to come back in a day at the soonest.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from math import ceil
from typing import Final

from gateway.accounting import (
    BucketTake,
    BudgetTake,
    Policy,
    RateTake,
    Refused,
    Scope,
    SlotTake,
    Standing,
    Take,
    Takes,
    Window,
)
from gateway.errors import GatewayError, InsufficientQuota, RateLimited, RequestTooExpensive

# Retry-After where no window turns: for spent totals, and for limits of 0. Whoever obeys asks once a day.
OPERATOR_RETRY_S: Final = 24 * 60 * 60
# Retry-After when all places are taken and the store can't say until when: answers take seconds.
SLOT_RETRY_S: Final = 2

_PER: Final = {Window.DAY: "per day", Window.MONTH: "per month", Window.TOTAL: "in total"}
_ASK_THE_OPERATOR: Final = "ask the operator of this gateway for more"


# ── policy → takes ───────────────────────────────────────────────────────────────────────


# Asked for by every request, and the same for all of a key until its policy, or its tenant's, is changed.
@lru_cache(maxsize=4096)
def takes(tenant: Policy, key: Policy, tenant_id: str, key_id: str) -> Takes[Take]:
    """What a request takes of requests per minute, tokens per minute and concurrency.

    The tenant's and the key's both apply; the key's stand first, so that a refusal names the nearer one.
    """
    # A key without its own limit needs no take for what it inherits: the tenant's implies it. Both would have
    # the same limit, and whatever moves the key's counter moves the tenant's as well:
    # - Places: the key's leases are among the tenant's, so there are never more of them.
    # - Rates and buckets: what a key lacks is the backlog of its own requests, served at the rate; the tenant
    #   lacks that of all, so never less. That a bucket is given back what was not used changes nothing: it is
    #   as if it had never been taken.
    return Takes(
        (
            *(RateTake(*bound) for bound in _bounds(key_id, key.rpm, tenant_id, tenant.rpm)),
            *(SlotTake(*bound) for bound in _bounds(key_id, key.concurrent, tenant_id, tenant.concurrent)),
            *(BucketTake(*bound) for bound in _bounds(key_id, key.tpm, tenant_id, tenant.tpm)),
        )
    )


def own_or_inherited(of_key: int | None, of_tenant: int | None) -> int | None:
    """What bounds a key: its own value, also when that is 0 or above the tenant's, else the tenant's."""
    return of_tenant if of_key is None else of_key


def _bounds(
    key_id: str, of_key: int | None, tenant_id: str, of_tenant: int | None
) -> Iterator[tuple[Scope, str, int]]:
    if of_key is not None:
        yield Scope.KEY, key_id, of_key
    if of_tenant is not None:
        yield Scope.TENANT, tenant_id, of_tenant


# ── where a take stands ──────────────────────────────────────────────────────────────────


def limit_of(take: Take) -> int | None:
    """What bounds a take; None for a budget that only counts."""
    return take.limit if isinstance(take, BudgetTake | SlotTake) else take.per_minute


def room_of(standing: Standing, spared: int) -> int:
    """How many tokens a plan may be of, of which buckets are spared some; 0 where nothing bounds it."""
    return (remaining_of(standing) or 0) + (spared if isinstance(standing.take, BucketTake) else 0)


def remaining_of(standing: Standing) -> int | None:
    """What could be taken now; None where nothing bounds it."""
    limit = limit_of(standing.take)
    return None if limit is None else remaining_within(limit, standing.used + standing.reserved)


def remaining_within(limit: int, taken: int) -> int:
    """Of a limit of which so much is taken: never below 0, whatever was overspent, nor above the limit."""
    left = limit - taken
    return 0 if left < 0 else left if left < limit else limit


def requests_left(standing: Standing, tokens: int) -> int | None:
    """How many requests that reserve so many tokens could begin now; None where nothing bounds them."""
    left = remaining_of(standing)
    if left is None or isinstance(standing.take, RateTake | SlotTake):
        return left
    return left // max(1, tokens)


# ── refusal → words ──────────────────────────────────────────────────────────────────────


def refusal_of(
    refused: Refused,
    *,
    key: str,
    tenant: str,
    tokens_needed: int,
    spared: int = 0,
    at_least: int | None = None,
) -> GatewayError:
    """What a caller is told: which limit of the key or tenant (their names), and when to try again.

    A request that needs more than a limit or budget ever gives is a RequestTooExpensive: it would be
    refused for ever. A limit per minute or of places is a RateLimited; a budget an InsufficientQuota.
    `spared` are those of `tokens_needed` that no bucket is taken for. `at_least` is what it needs for sure,
    where `tokens_needed` is only a bound that may turn out lower.
    """
    take = refused.standing.take
    holder = f"The {take.scope} '{key if take.scope is Scope.KEY else tenant}'"
    if not (limit := limit_of(take)):
        return _denied(take, holder)
    if isinstance(take, RateTake | SlotTake):
        return _too_many(refused, f"{holder} {_allowance(take, limit)}")
    if isinstance(take, BucketTake):
        tokens_needed -= spared
    if limit < (tokens_needed if at_least is None else min(tokens_needed, at_least)):
        return _too_expensive(f"{holder} {_allowance(take, limit)}", tokens_needed)
    if isinstance(take, BucketTake):
        return _too_fast(refused, f"{holder} {_allowance(take, limit)}", tokens_needed)
    return _spent(refused, f"{holder} {_allowance(take, limit)}", tokens_needed)


def _denied(take: Take, holder: str) -> GatewayError:
    """A limit or budget of 0."""
    sentence = f"{holder} {_allowance(take, 0)}; {_ASK_THE_OPERATOR}."
    if isinstance(take, BudgetTake):
        return InsufficientQuota(sentence, retry_after_s=OPERATOR_RETRY_S)
    return RateLimited(
        sentence,
        retry_after_s=OPERATOR_RETRY_S,
        unit="tokens" if isinstance(take, BucketTake) else "requests",
        may_retry=False,
    )


def _too_many(refused: Refused, allowance: str) -> GatewayError:
    wait_s = _seconds_until(refused.retry_at, refused.now, otherwise_s=SLOT_RETRY_S)
    return RateLimited(f"{allowance}; try again in {wait_s} s.", retry_after_s=wait_s)


def _too_fast(refused: Refused, allowance: str, tokens_needed: int) -> GatewayError:
    # A bucket is full after a minute at most.
    wait_s = _seconds_until(refused.retry_at, refused.now, otherwise_s=60)
    left = f"{remaining_of(refused.standing):,} are left and this request may need {tokens_needed:,}"
    return RateLimited(f"{allowance}: {left}; try again in {wait_s} s.", retry_after_s=wait_s, unit="tokens")


def _too_expensive(allowance: str, tokens_needed: int) -> GatewayError:
    return RequestTooExpensive(
        f"{allowance}, and this request may need {tokens_needed:,}: shorten its prompt, "
        f"or {_ASK_THE_OPERATOR}."
    )


def _spent(refused: Refused, allowance: str, tokens_needed: int) -> GatewayError:
    standing, now = refused.standing, refused.now
    state = f"{standing.used:,} are used, {standing.reserved:,} are held by requests that run"
    if standing.used + tokens_needed <= (limit_of(standing.take) or 0):
        # Not spent, only held: most of it comes back when those requests end.
        wait_s = _seconds_until(refused.retry_at, now, otherwise_s=SLOT_RETRY_S)
        advice = "try again when one of them has ended"
    elif standing.resets_at is None:
        wait_s, advice = OPERATOR_RETRY_S, _ASK_THE_OPERATOR
    else:
        wait_s = _seconds_until(standing.resets_at, now, otherwise_s=OPERATOR_RETRY_S)
        advice = f"come back at {iso(standing.resets_at)}, or {_ASK_THE_OPERATOR}"
    sentence = f"{allowance}: {state}, and this one may need {tokens_needed:,}; {advice}."
    return InsufficientQuota(sentence, retry_after_s=wait_s)


def _allowance(take: Take, limit: int) -> str:
    """`may send 30 requests per minute`: what follows the holder's name."""
    match take:
        case RateTake():
            return f"may send {_counted(limit, 'request')} per minute"
        case SlotTake():
            return f"may have {_counted(limit, 'request')} running at the same time"
        case BucketTake():
            return f"may use {_counted(limit, 'token')} per minute"
        case BudgetTake():
            return f"may use {_counted(limit, 'token')} {_PER[take.window]}"


def _counted(number: int, what: str) -> str:
    return f"no {what}s" if number == 0 else counted(number, what)


def counted(number: int, what: str) -> str:
    """So many of what: `1 request`, `1,200 requests`."""
    return f"1 {what}" if number == 1 else f"{number:,} {what}s"


def _seconds_until(moment: float | None, now: float, *, otherwise_s: int) -> int:
    """Whole seconds for Retry-After, at least 1: 0 would make clients fall back to their own guess."""
    # Rounded to the millisecond first: doubles of today's times are off by less than a microsecond.
    return otherwise_s if moment is None else max(1, ceil(round(moment - now, 3)))


def iso(epoch_s: float) -> str:
    """`2026-11-24T00:00:00Z`: to the second, up, for what is not over before."""
    return f"{datetime.fromtimestamp(ceil(round(epoch_s, 3)), UTC):%Y-%m-%dT%H:%M:%SZ}"
