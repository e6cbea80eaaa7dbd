"""Commands that change limits and budgets."""

from collections.abc import Mapping
from typing import Any

import click

from gateway.cli.changes import fail_untold, tell_gateways
from gateway.cli.holders import Target, of_key, of_tenant, target_of
from gateway.cli.keys import key_as_json
from gateway.cli.output import json_option, show_json
from gateway.cli.policies import (
    BUDGETS,
    LIMITS,
    Changes,
    Differences,
    Holder,
    changed,
    changes_told,
    option_of,
    policy_as_json,
    policy_options,
    show_policy,
    told,
    weight_option,
)
from gateway.cli.stores import Stores, with_stores
from gateway.cli.tenants import tenant_as_json
from gateway.cli.words import Zone
from gateway.model import Tenant
from gateway.storage.refusals import NoSuchKey, Refused


@click.command()
@of_tenant
@of_key
@policy_options(LIMITS)
@weight_option(default=None)
@json_option
def set_limits(
    tenant: str | None, prefix: str | None, changes: Changes, weight: int | None, as_json: bool
) -> None:
    """Change limits of a tenant or key.

    Running gateways apply them within one second. Only what is given changes. `none` removes a limit: a key
    then has its tenant's. 0 denies all requests. The limits of a tenant are for all of its keys together, and
    hold beside a key's own. Of two tenants that wait for a busy backend, one with twice the --weight
    is served twice as much.

    \b
    Examples:
      neuronetz-gateway set-limits --tenant acme --rpm 600 --tpm 1_000_000
      neuronetz-gateway set-limits --prefix nz_abc12345 --concurrent 4 --rpm none
      neuronetz-gateway set-limits --tenant acme --weight 3
    """
    target = target_of(tenant, prefix)
    if weight is not None and target.tenant is None:
        raise click.UsageError("The keys of a tenant share its weight: give --weight with --tenant.")
    if not changes and weight is None:
        raise click.UsageError(f"Nothing to change: give at least one of {_listed(LIMITS)}, --weight.")
    _change(target, changes, {"weight": weight}, LIMITS, as_json)


@click.command()
@of_tenant
@of_key
@policy_options(BUDGETS)
@click.option("--time-zone", type=Zone(), help="For a tenant: where its days and months begin.")
@json_option
def set_budgets(
    tenant: str | None, prefix: str | None, changes: Changes, time_zone: str | None, as_json: bool
) -> None:
    """Change budgets of a tenant or key.

    Running gateways apply them within one second. Only what is given changes. `none` removes a budget: a key
    then has its tenant's. 0 denies all requests. What was spent before counts. Days and months begin in the
    time zone of the tenant; where a new one has another date, another day begins at once.

    \b
    Examples:
      neuronetz-gateway set-budgets --tenant acme --monthly-tokens 50_000_000 --time-zone Europe/Berlin
      neuronetz-gateway set-budgets --prefix nz_abc12345 --daily-tokens 100_000 --total-tokens none
    """
    target = target_of(tenant, prefix)
    if time_zone is not None and target.tenant is None:
        raise click.UsageError("A key has the time zone of its tenant: give --time-zone with --tenant.")
    if not changes and time_zone is None:
        raise click.UsageError(f"Nothing to change: give at least one of {_listed(BUDGETS)}, --time-zone.")
    _change(target, changes, {"time_zone": time_zone}, BUDGETS, as_json)


# What only a tenant has, by field; None changes nothing.
Own = Mapping[str, Any]


def _listed(bounds: Mapping[str, str]) -> str:
    return ", ".join(map(option_of, bounds))


def _change(target: Target, changes: Changes, own: Own, bounds: Mapping[str, str], as_json: bool) -> None:
    before, after, untold = with_stores(lambda stores: _set(stores, target, changes, own))
    differences = changed(before, after)
    if as_json:
        shown = tenant_as_json(after) if isinstance(after, Tenant) else key_as_json(after)
        show_json({**shown, **policy_as_json(after), "changed": differences})
    else:
        _show(after, differences, bounds)
    fail_untold(untold)


def _show(after: Holder, differences: Differences, bounds: Mapping[str, str]) -> None:
    if differences:
        click.echo(f"Changed {told(after)}. Running gateways apply it within one second.")
        click.echo("".join(f"  {line}\n" for line in changes_told(differences)))
    else:
        click.echo(f"Nothing to do: {told(after)} has these values already.\n")
    if isinstance(after, Tenant) and bounds is BUDGETS:
        click.echo(f"Days and months begin in the time zone {after.time_zone}.\n")
    show_policy(after, bounds)


async def _set(
    stores: Stores, target: Target, changes: Changes, own: Own
) -> tuple[Holder, Holder, Refused | None]:
    """Change what is given: how it was before, is now, and why Redis could not be told. Raises Refused."""
    before, after = await _set_in_database(stores, target, changes, own)
    return before, after, await tell_gateways(stores, after)


async def _set_in_database(
    stores: Stores, target: Target, changes: Changes, own: Own
) -> tuple[Holder, Holder]:
    if target.prefix is not None:
        key = await stores.keys.key_by_prefix(target.prefix)
        if key is None:
            raise NoSuchKey(target.prefix)
        return key, await stores.keys.set_policy(key.prefix, **changes)
    tenant = after = await stores.tenants.by_name(target.tenant or "")
    if changes:
        after = await stores.tenants.set_policy(tenant.name, **changes)
    if own.get("time_zone") is not None:
        after = await stores.tenants.set_time_zone(tenant.name, own["time_zone"])
    if own.get("weight") is not None:
        after = await stores.tenants.set_weight(tenant.name, own["weight"])
    return tenant, after
