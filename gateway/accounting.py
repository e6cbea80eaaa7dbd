"""The words of limits and budgets: what is planned, taken, settled and kept. Frozen values.

Tokens are whole numbers up to 2^53 − 1: Redis scripts count in doubles. Times are seconds since the epoch,
UTC, unless a name says otherwise; a store's clock is the one that counts.
"""

from collections.abc import Iterable, Sequence
from enum import StrEnum
from functools import cached_property
from typing import Final, TypeVar

from attrs import evolve, frozen

# Beyond it a double no longer holds every whole number.
MAX_TOKENS: Final = 2**53 - 1


class Scope(StrEnum):
    """What a limit or budget is on."""

    KEY = "key"
    TENANT = "tenant"


class Window(StrEnum):
    """Over what a budget runs, in the tenant's time zone."""

    DAY = "day"
    MONTH = "month"
    TOTAL = "total"


@frozen(cache_hash=True)
class Policy:
    """What an operator allows a tenant, or a key. None: no bound here (a key inherits); 0 denies."""

    rpm: int | None = None
    tpm: int | None = None
    concurrent: int | None = None
    daily_tokens: int | None = None
    monthly_tokens: int | None = None
    total_tokens: int | None = None


# ── what a request wants to take ─────────────────────────────────────────────────────────


@frozen
class PromptSize:
    """How big a call's prompts are, by what can be measured without a tokenizer; see `formats.sizes`.

    `schema_bytes` is JSON that a template writes anew: tools, calls, output schemas. `tokens` are those
    that were given as such, by number. `prompts` is how many there are, each with a context of its own, and
    `templates` how often the model's template is put around them.
    """

    text_bytes: int = 0
    schema_bytes: int = 0
    messages: int = 0
    images: int = 0
    tokens: int = 0
    prompts: int = 1
    templates: int = 1


@frozen(cache_hash=True)
class Period:
    """One turn of a window. `id` is "2026-11-23", "2026-11" or "total"; `ends_at` is None for the total."""

    id: str
    ends_at: float | None

    @cached_property
    def ends_us(self) -> int | None:
        """The same in whole microseconds, as stores count."""
        return None if self.ends_at is None else round(self.ends_at * 1_000_000)


@frozen
class RateTake:
    """One request of `per_minute`, by GCRA with a burst of a whole minute's worth."""

    scope: Scope
    owner: str
    """The id of the key or tenant."""
    per_minute: int

    @cached_property
    def account(self) -> str:
        """The name under which stores count it: so for all takes."""
        return f"rate:{self.scope}:{self.owner}"


@frozen
class BucketTake:
    """Tokens from a bucket that holds `per_minute` and fills up at that rate; what is not used goes back."""

    scope: Scope
    owner: str
    per_minute: int

    @cached_property
    def account(self) -> str:
        return f"bucket:{self.scope}:{self.owner}"


@frozen
class SlotTake:
    """One of `limit` places for requests at the same time, as a lease."""

    scope: Scope
    owner: str
    limit: int

    @cached_property
    def account(self) -> str:
        return slots_of(self.scope, self.owner)


@frozen
class BudgetTake:
    """Tokens of a window; `limit` None only counts, so that a budget set later knows what was spent.

    `periods` are the current one and the next by our clock: the store picks by its own.
    """

    scope: Scope
    owner: str
    window: Window
    periods: tuple[Period, ...]
    limit: int | None = None

    @cached_property
    def account(self) -> str:
        return budget_of(self.window, self.scope, self.owner)


def slots_of(scope: Scope, owner: str) -> str:
    """The account of a tenant's, or key's, places for requests at the same time."""
    return f"slots:{scope}:{owner}"


def budget_of(window: Window, scope: Scope, owner: str) -> str:
    """The account of a budget."""
    return f"{window}:{scope}:{owner}"


Take = RateTake | BucketTake | SlotTake | BudgetTake


_Take_co = TypeVar("_Take_co", bound=Take, covariant=True)


class Takes(tuple[_Take_co, ...]):
    """All that a request takes: the same for many, so whoever works something out of it keeps that by it.

    An ordinary tuple, save that it is hashed once.
    """

    @cached_property
    def _hash(self) -> int:
        return super().__hash__()

    def __hash__(self) -> int:
        return self._hash


@frozen(slots=False)
class Plan:
    """All that one request takes, all or nothing.

    Bucket and budget takes are all of the same amount, less what buckets are spared. The store decides
    which: the most that all of them still allow, up to `tokens_wanted`; below `tokens_needed` is a refusal.
    """

    tenant_id: str
    reservation_id: str
    """The request's id: the same plan taken twice is taken once."""
    takes: tuple[Take, ...]
    tokens_needed: int
    tokens_wanted: int
    lease_s: float
    epoch: int
    """`Principal.epoch` of whom it was made for: counters that were told of a later change refuse it."""
    spared: int = 0
    """So many tokens no bucket is taken for: most likely they are not needed. Else it owes them."""


# ── what the store answers ───────────────────────────────────────────────────────────────


@frozen
class Standing:
    """Where one take stands after the call. For a rate, `used` counts requests; for slots, leases."""

    take: Take
    used: int
    """Spent for good; in a bucket, what is missing from full."""
    reserved: int
    """Held by requests that run; 0 for rates and buckets."""
    resets_at: float | None
    """When it is whole again, or its window turns; None for slots and totals."""


# A Standing as stores tell it: used, reserved, and `resets_at` in µs, -1 for None.
Row = Sequence[int]


def standing_of(take: Take, row: Row) -> Standing:
    used, reserved, resets_us = row
    return Standing(take, used, reserved, None if resets_us < 0 else resets_us / 1_000_000)


def as_row(standing: Standing) -> Row:
    resets_at = standing.resets_at
    return standing.used, standing.reserved, -1 if resets_at is None else round(resets_at * 1_000_000)


def standings_of(takes: Iterable[Take], rows: Iterable[Row]) -> tuple[Standing, ...]:
    return tuple([standing_of(take, row) for take, row in zip(takes, rows, strict=True)])


@frozen(slots=False)
class Taken:
    """Everything was taken. `tokens` is what was reserved: no more may be used than that."""

    plan: Plan
    tokens: int
    now: float
    rows: Sequence[Row]
    """Where each take of the plan stands; most are never asked for."""
    periods: tuple[str, ...]
    """The periods that budgets were charged to, as `Period.id`, also when it settles in another one."""

    @property
    def standings(self) -> tuple[Standing, ...]:
        return standings_of(self.plan.takes, self.rows)


@frozen
class Refused:
    """Nothing was taken. Of the takes that have too little left, `standing` is of the one that lasts longest.

    So nobody is invited to come back at a time at which another one refuses for sure: what never fits goes
    before all, and a spent budget before a rate. Of equals it is the first in the plan's order.
    """

    standing: Standing
    now: float
    retry_at: float | None
    """When it may fit; None when it never will: the limit is smaller than the need, or a total is spent."""


@frozen
class Cold:
    """Nothing was taken: the store does not know this tenant's sums, and has to be told (`restore`).

    `lost`: it did know them, or can't say. Then a ledger may tell of them only when it has what all processes
    have noted since: else that would be allowed a second time.
    """

    lost: bool = False


@frozen
class Stale:
    """Nothing was taken: the tenant, or one of its keys, changed after what the plan was made of was read."""

    epoch: int
    """What a plan has to be made of: this revision of tenants and keys, or a later one."""


Verdict = Taken | Refused | Cold | Stale


@frozen
class Outlook:
    """What `take` would answer now. Nothing was taken."""

    now: float
    standings: tuple[Standing, ...]
    """Where each take of the plan stands."""
    answer: int | Refused
    """The tokens that would be reserved, or what is in the way."""


@frozen
class Expired:
    """A lease that nobody renewed: its whole reservation was charged, until better evidence comes.

    `key_id`, `day` and `month` are "" where the counters don't know: it had no budgets.
    """

    tenant_id: str
    reservation_id: str
    tokens: int
    admitted_at: float
    key_id: str
    day: str
    month: str


# ── what is kept ─────────────────────────────────────────────────────────────────────────


class Evidence(StrEnum):
    """How it is known what a request cost; a later entry with higher rank replaces an earlier one."""

    INTENT = "intent"
    """Nothing but the reservation, which counts in full as reserved."""
    EXPIRED = "expired"
    """Its lease ran out: the whole reservation is charged."""
    RECOVERED = "recovered"
    """Its process died: the whole reservation is charged, by the spool's word."""
    SETTLED = "settled"
    """The request ended under our eyes."""

    @property
    def rank(self) -> int:
        return list(Evidence).index(self)


@frozen(slots=False)
class LedgerEntry:
    """What one request has cost, by the best evidence so far. One a reservation; replaced by higher rank.

    Whoever writes it down takes `vars` of it.
    """

    reservation_id: str
    tenant_id: str
    key_id: str
    model: str
    admitted_at: float
    day: str
    month: str
    """The periods it was admitted in, as `Period.id`: it is charged to them, whenever it settles."""
    reserved: int
    """Tokens that were reserved."""
    tokens: int
    """Tokens that it costs: what was reserved until it is settled."""
    prompt_tokens: int
    completion_tokens: int
    estimated: bool
    evidence: Evidence
    backend: str = ""
    """Where it was served; "" where it never was, or nobody knows."""


def settled(
    intent: LedgerEntry, *, prompt_tokens: int, completion_tokens: int, estimated: bool, backend: str
) -> LedgerEntry:
    """What is charged when a request has ended."""
    return LedgerEntry(
        reservation_id=intent.reservation_id,
        tenant_id=intent.tenant_id,
        key_id=intent.key_id,
        model=intent.model,
        admitted_at=intent.admitted_at,
        day=intent.day,
        month=intent.month,
        reserved=intent.reserved,
        tokens=prompt_tokens + completion_tokens,
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        estimated=estimated,
        evidence=Evidence.SETTLED,
        backend=backend,
    )


def charged_in_full(intent: LedgerEntry, evidence: Evidence) -> LedgerEntry:
    """What is charged when nobody knows how much of a reservation was used."""
    return evolve(intent, tokens=intent.reserved, estimated=True, evidence=evidence)


@frozen
class Sum:
    """Tokens of one owner in one period, by the ledger: spent for good, and reserved by open intents."""

    scope: Scope
    owner: str
    period: str
    spent: int
    reserved: int
