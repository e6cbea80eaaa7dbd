"""Where limits and budgets stand by the ledger. Running gateways write to it moments after the fact."""

from collections.abc import Iterable, Sequence
from datetime import tzinfo
from typing import Any, Final

import click
from attrs import frozen

from gateway.accounting import (
    MAX_TOKENS,
    BucketTake,
    BudgetTake,
    Plan,
    Policy,
    RateTake,
    Scope,
    SlotTake,
    Standing,
    Take,
    Window,
)
from gateway.cli.output import iso, show_table, when
from gateway.cli.policies import BUDGETS, Holder, number, tenant_of
from gateway.cli.stores import Stores
from gateway.middleware.settler import LEASE_S
from gateway.model import Tenant
from gateway.ports import Allowances, Counters
from gateway.rules.limits import limit_of, remaining_of
from gateway.rules.plans import takes_of
from gateway.rules.windows import zone_of
from gateway.state.local_counters import LocalCounters
from gateway.state.restored_counters import RestoredCounters

_FIELDS: Final = {
    Window.DAY: "daily_tokens",
    Window.MONTH: "monthly_tokens",
    Window.TOTAL: "total_tokens",
}


# Of a plan that is not for taking: no change is later.
LATEST: Final = MAX_TOKENS


@frozen
class _Moment:
    """A clock that stands still."""

    at: float

    def now(self) -> float:
        return self.at

    def elapsed(self) -> float:
        return self.at


class _AsItIs:
    """No `ports.Drainage`: what is only spooled is not waited for."""

    async def drained(self) -> None:
        pass


def counted_by_ledger(stores: Stores, now: float) -> Allowances:
    """What a gateway would count that started now: it takes and tells by the ledger, and nothing is kept."""
    return restored(stores, LocalCounters(_Moment(now)))


def restored(stores: Stores, counters: Counters) -> Allowances:
    """Counters that are told by the ledger as it is, where they are empty."""
    return RestoredCounters(counters, stores.ledger, stores.keys, _AsItIs(), lease_s=LEASE_S)


async def standings_of(stores: Stores, holder: Holder, now: float) -> list[Standing]:
    """Where the budgets that bound a tenant or key stand: of a key also its tenant's, the key's first."""
    tenant = tenant_of(holder)
    takes = (take for take in takes_for(holder, now) if isinstance(take, BudgetTake))
    outlook = await counted_by_ledger(stores, now).look(look_at(tenant, takes))
    return list(outlook.standings)


def look_at(tenant: Tenant, takes: Iterable[Take]) -> Plan:
    """A plan for looking where these takes stand, whatever has changed since they were made."""
    return Plan(tenant.id, "", tuple(takes), tokens_needed=0, tokens_wanted=0, lease_s=0.0, epoch=LATEST)


def takes_for(holder: Holder, now: float) -> tuple[Take, ...]:
    """What a request takes now: of a tenant alone, what it takes whichever key it comes with."""
    if isinstance(holder, Tenant):
        takes = takes_of(holder.policy, Policy(), holder.id, "", now=now, zone=_zone(holder))
        return tuple(take for take in takes if take.scope is Scope.TENANT)
    tenant = holder.tenant
    return takes_of(tenant.policy, holder.policy, tenant.id, holder.account, now=now, zone=_zone(tenant))


def _zone(tenant: Tenant) -> tzinfo:
    try:
        return zone_of(tenant.time_zone)
    except ValueError as error:  # it was known where it was set
        raise click.ClickException(
            f"The time zone of the tenant '{tenant.name}' is not known here. {error}"
        ) from error


def field_of(take: Take) -> str:
    """The field of Policy that a take is of."""
    match take:
        case RateTake():
            return "rpm"
        case BucketTake():
            return "tpm"
        case SlotTake():
            return "concurrent"
        case BudgetTake():
            return _FIELDS[take.window]


def usage_as_json(standings: Sequence[Standing]) -> dict[str, Any]:
    """By budget: its period, what is left, and under `key` and `tenant` where each of them stands."""
    usage: dict[str, Any] = {}
    for standing in standings:
        period = {"period": _period(standing), "ends_at": iso(standing.resets_at), "remaining": None}
        of_window = usage.setdefault(field_of(standing.take), period)
        left = remaining_of(standing)
        of_window["remaining"] = _less(of_window["remaining"], left)
        of_window[standing.take.scope.value] = {
            "limit": limit_of(standing.take),
            "used": standing.used,
            "reserved": standing.reserved,
            "remaining": left,
        }
    return usage


def _period(standing: Standing) -> str:
    assert isinstance(standing.take, BudgetTake)  # noqa: S101 - says it to mypy
    return standing.take.periods[0].id


def show_usage(standings: Sequence[Standing]) -> None:
    """A table of budgets in their current windows."""
    columns = ("Tokens", "Of the", "Limit", "Used", "Reserved", "Left", "Until")
    show_table(columns, [_row(standing) for standing in standings])


def _row(standing: Standing) -> tuple[str, ...]:
    return (
        BUDGETS[field_of(standing.take)].removeprefix("tokens "),
        standing.take.scope.value,
        number(limit_of(standing.take)),
        number(standing.used),
        number(standing.reserved),
        number(remaining_of(standing), "no limit"),
        when(standing.resets_at, "never"),
    )


def _less(one: int | None, other: int | None) -> int | None:
    """The smaller of two bounds, of which None is no bound."""
    bounds = [bound for bound in (one, other) if bound is not None]
    return min(bounds, default=None)
