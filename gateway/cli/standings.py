"""What is used of budgets, by the ledger. Running gateways write to it moments after the fact."""

from collections.abc import Sequence
from datetime import tzinfo
from typing import Any, Final

import click

from gateway.accounting import BudgetTake, Policy, Scope, Standing, Sum, Window
from gateway.cli.output import iso, show_table, when
from gateway.cli.policies import BUDGETS, Holder, number
from gateway.cli.stores import Stores
from gateway.model import Tenant
from gateway.rules import budgets
from gateway.rules.limits import limit_of, remaining_of
from gateway.rules.windows import zone_of

_FIELDS: Final = {
    Window.DAY: "daily_tokens",
    Window.MONTH: "monthly_tokens",
    Window.TOTAL: "total_tokens",
}


async def standings_of(stores: Stores, holder: Holder, now: float) -> list[Standing]:
    """Where the budgets that bound a tenant or key stand: of a key also its tenant's, the key's first."""
    takes = _takes(holder, now)
    tenant = holder if isinstance(holder, Tenant) else holder.tenant
    periods = [take.periods[0].id for take in takes]
    sums = await stores.ledger.sums(tenant.id, periods)
    by_account = {(one.scope, one.owner, one.period): one for one in sums}
    return [_standing(take, by_account) for take in takes]


def _takes(holder: Holder, now: float) -> list[BudgetTake]:
    """What the rules would take for a request now, so that numbers are those of admission."""
    if isinstance(holder, Tenant):
        takes = budgets.takes(holder.policy, Policy(), holder.id, "", now=now, zone=_zone(holder))
        return [take for take in takes if take.scope is Scope.TENANT]
    tenant = holder.tenant
    return list(
        budgets.takes(tenant.policy, holder.policy, tenant.id, holder.id, now=now, zone=_zone(tenant))
    )


def _zone(tenant: Tenant) -> tzinfo:
    try:
        return zone_of(tenant.time_zone)
    except ValueError as error:  # it was known where it was set
        raise click.ClickException(
            f"The time zone of the tenant '{tenant.name}' is not known here. {error}"
        ) from error


def _standing(take: BudgetTake, sums: dict[tuple[Scope, str, str], Sum]) -> Standing:
    period = take.periods[0]
    found = sums.get((take.scope, take.owner, period.id))
    spent, reserved = (found.spent, found.reserved) if found else (0, 0)
    return Standing(take, spent, reserved, period.ends_at)


def usage_as_json(standings: Sequence[Standing]) -> dict[str, Any]:
    """By budget: its period, what is left, and under `key` and `tenant` where each of them stands."""
    usage: dict[str, Any] = {}
    for standing in standings:
        take = _budget(standing)
        period = {"period": take.periods[0].id, "ends_at": iso(standing.resets_at), "remaining": None}
        of_window = usage.setdefault(_FIELDS[take.window], period)
        left = remaining_of(standing)
        of_window["remaining"] = _less(of_window["remaining"], left)
        of_window[take.scope.value] = {
            "limit": limit_of(take),
            "used": standing.used,
            "reserved": standing.reserved,
            "remaining": left,
        }
    return usage


def show_usage(standings: Sequence[Standing]) -> None:
    """A table of budgets in their current windows."""
    columns = ("Tokens", "Of the", "Limit", "Used", "Reserved", "Left", "Until")
    show_table(columns, [_row(standing) for standing in standings])


def _row(standing: Standing) -> tuple[str, ...]:
    take = _budget(standing)
    return (
        BUDGETS[_FIELDS[take.window]].removeprefix("tokens "),
        take.scope.value,
        number(limit_of(take)),
        number(standing.used),
        number(standing.reserved),
        number(remaining_of(standing), "no limit"),
        when(standing.resets_at, "never"),
    )


def _budget(standing: Standing) -> BudgetTake:
    assert isinstance(standing.take, BudgetTake)  # noqa: S101 - says it to mypy
    return standing.take


def _less(one: int | None, other: int | None) -> int | None:
    """The smaller of two bounds, of which None is no bound."""
    bounds = [bound for bound in (one, other) if bound is not None]
    return min(bounds, default=None)
