"""Short ways to say what a request wants, and the periods of a small calendar."""

from gateway.accounting import (
    BucketTake,
    BudgetTake,
    Evidence,
    LedgerEntry,
    Period,
    Plan,
    RateTake,
    Scope,
    SlotTake,
    Sum,
    Take,
    Window,
)

# A Monday, half past eleven at night; whole, so that a double holds what is added to it.
NOW = 1_800_055_800.0
MIDNIGHT = NOW + 1800.0
DAY_S = 86_400.0

MONDAY = Period("2027-01-15", MIDNIGHT)
TUESDAY = Period("2027-01-16", MIDNIGHT + DAY_S)
WEDNESDAY = Period("2027-01-17", MIDNIGHT + 2 * DAY_S)
JANUARY = Period("2027-01", MIDNIGHT + 16 * DAY_S)
FEBRUARY = Period("2027-02", MIDNIGHT + 44 * DAY_S)
TOTAL = Period("total", None)

PERIODS = {
    Window.DAY: (MONDAY, TUESDAY),
    Window.MONTH: (JANUARY, FEBRUARY),
    Window.TOTAL: (TOTAL,),
}

LEASE_S = 15.0


def rate(per_minute: int, owner: str = "k1", scope: Scope = Scope.KEY) -> RateTake:
    return RateTake(scope, owner, per_minute)


def bucket(per_minute: int, owner: str = "k1", scope: Scope = Scope.KEY) -> BucketTake:
    return BucketTake(scope, owner, per_minute)


def slots(limit: int, owner: str = "k1", scope: Scope = Scope.KEY) -> SlotTake:
    return SlotTake(scope, owner, limit)


def budget(
    limit: int | None,
    window: Window = Window.DAY,
    owner: str = "k1",
    scope: Scope = Scope.KEY,
    periods: tuple[Period, ...] | None = None,
) -> BudgetTake:
    return BudgetTake(scope, owner, window, PERIODS[window] if periods is None else periods, limit)


def plan(
    name: str,
    *takes: Take,
    needed: int = 10,
    wanted: int | None = None,
    lease_s: float = LEASE_S,
    tenant: str = "acme",
    epoch: int = 0,
    spared: int = 0,
) -> Plan:
    return Plan(tenant, name, takes, needed, needed if wanted is None else wanted, lease_s, epoch, spared)


def spent(tokens: int, period: str = MONDAY.id, owner: str = "k1", scope: Scope = Scope.KEY) -> Sum:
    return Sum(scope, owner, period, tokens, 0)


def intent(name: str, tokens: int, tenant: str = "acme") -> LedgerEntry:
    """What the ledger has of a request of the key k1 that was admitted on Monday."""
    return LedgerEntry(
        reservation_id=name,
        tenant_id=tenant,
        key_id="k1",
        model="llama3:latest",
        admitted_at=NOW - 5,
        day=MONDAY.id,
        month=JANUARY.id,
        reserved=tokens,
        tokens=tokens,
        prompt_tokens=1,
        completion_tokens=0,
        estimated=True,
        evidence=Evidence.INTENT,
    )
