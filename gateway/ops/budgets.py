"""What is left of the budgets of those tenants that this process has served, by the ledger.

Read when somebody asks for metrics, and for nobody's request: two statements for all of them, at most so
often. Their number is bounded, as labels are, so it costs the same however many tenants there are.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Protocol

from attrs import frozen

from gateway.accounting import Scope, Sum, Window
from gateway.errors import StoreUnavailable
from gateway.model import Tenant
from gateway.ports import Clock
from gateway.rules.windows import periods, zone_of

FRESH_S: Final = 10.0
# A scraper waits for ten seconds as a rule; without these numbers, the others are still worth having.
PATIENCE_S: Final = 2.0


class Tenants(Protocol):
    async def by_ids(self, ids: Sequence[str]) -> Sequence[Tenant]: ...


class Sums(Protocol):
    async def sums_of(self, tenant_ids: Sequence[str], periods: Sequence[str]) -> Sequence[Sum]: ...


@frozen
class BudgetLeft:
    """Tokens. `remaining` is what is neither spent nor reserved; never below 0."""

    tenant: str
    window: Window
    limit: int
    remaining: int


class BudgetsLeft:
    """The last reading. One that fails leaves what was known before, until it is out of date."""

    def __init__(self, tenants: Tenants, sums: Sums, clock: Clock) -> None:
        self._tenants = tenants
        self._sums = sums
        self._clock = clock
        self._read_at = float("-inf")
        self._known: tuple[BudgetLeft, ...] = ()

    async def of(self, tenant_ids: Sequence[str]) -> tuple[BudgetLeft, ...]:
        """Never raises; nothing while the database does not answer."""
        if tenant_ids and self._clock.elapsed() - self._read_at >= FRESH_S:
            try:
                async with asyncio.timeout(PATIENCE_S):
                    self._known = await self._read(tenant_ids)
            except (StoreUnavailable, TimeoutError):
                # Numbers that are not known are told to nobody: an alert on their absence says it better.
                self._known = ()
            self._read_at = self._clock.elapsed()
        return self._known

    async def _read(self, tenant_ids: Sequence[str]) -> tuple[BudgetLeft, ...]:
        tenants = await self._tenants.by_ids(tenant_ids)
        now = self._clock.now()
        current = {tenant.id: dict(_current(tenant, now)) for tenant in tenants}
        asked = {period for turns in current.values() for period in turns.values()}
        sums = await self._sums.sums_of(list(current), sorted(asked))
        used = {
            (one.owner, one.period): one.spent + one.reserved for one in sums if one.scope is Scope.TENANT
        }
        return tuple(left for tenant in tenants for left in _left(tenant, current[tenant.id], used))


def _current(tenant: Tenant, now: float) -> Iterable[tuple[Window, str]]:
    """The turn of each window that the tenant has a budget for."""
    try:
        zone = zone_of(tenant.time_zone)
    except ValueError:
        return  # told at every request
    for window, limit in _limits(tenant):
        if limit is not None:
            yield window, periods(window, now, zone)[0].id


def _left(
    tenant: Tenant, current: Mapping[Window, str], used: Mapping[tuple[str, str], int]
) -> Iterable[BudgetLeft]:
    for window, limit in _limits(tenant):
        if limit is not None and window in current:
            remaining = max(0, limit - used.get((tenant.id, current[window]), 0))
            yield BudgetLeft(tenant.name, window, limit, remaining)


def _limits(tenant: Tenant) -> Iterable[tuple[Window, int | None]]:
    policy = tenant.policy
    return (
        (Window.DAY, policy.daily_tokens),
        (Window.MONTH, policy.monthly_tokens),
        (Window.TOTAL, policy.total_tokens),
    )
