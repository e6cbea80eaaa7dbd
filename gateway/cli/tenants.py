"""Commands for tenants."""

import shlex
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from typing import Any

import click
from attrs import asdict

from gateway.accounting import Policy, Standing
from gateway.cli.model_access import ModelChanges, cloud_option, model_facts, model_options
from gateway.cli.output import iso, json_option, show_facts, show_json, show_table, when
from gateway.cli.policies import (
    BOUNDS,
    Changes,
    policy_as_json,
    policy_options,
    show_denial,
    show_policy,
    weight_option,
)
from gateway.cli.standings import show_usage, standings_of, usage_as_json
from gateway.cli.stores import Stores, with_stores
from gateway.cli.words import Days, Name, Zone
from gateway.model import Key, KeyStatus, ModelPolicy, Tenant
from gateway.rules.limits import counted


@click.command()
@click.option("--name", required=True, type=Name(), help="1 to 64 characters; unique, whatever the case.")
@policy_options(BOUNDS)
@model_options
@cloud_option
@click.option(
    "--time-zone", type=Zone(), default="UTC", show_default=True, help="Where its days and months begin."
)
@weight_option(default=1)
@click.option(
    "--audit-retention",
    type=Days(),
    metavar="DAYS",
    help="Keep its audit rows for so long; else as all others.",
)
@json_option
def create_tenant(
    *,
    name: str,
    changes: Changes,
    model_changes: ModelChanges,
    allow_cloud: bool | None,
    time_zone: str,
    weight: int,
    audit_retention: int | None,
    as_json: bool,
) -> None:
    """Make a tenant: who owns keys.

    Limits and budgets are for all of its keys together; what is not given has no bound, and 0 denies all
    requests. `set-limits`, `set-budgets` and `allow-models` change them later.

    \b
    Examples:
      neuronetz-gateway create-tenant --name acme
      neuronetz-gateway create-tenant --name acme --rpm 600 --daily-tokens 5_000_000 --time-zone Europe/Berlin
    """
    policy, models = Policy(**changes), ModelPolicy(**model_changes)
    tenant = with_stores(
        lambda stores: make_tenant(
            stores,
            name,
            policy,
            time_zone,
            models,
            allow_cloud=bool(allow_cloud),
            weight=weight,
            audit_retention_days=audit_retention,
        )
    )
    if as_json:
        show_json(tenant_as_json(tenant))
        return
    click.echo(f"Made the tenant '{tenant.name}'. Its first key:")
    click.echo(f"  neuronetz-gateway create-key --tenant {shlex.quote(tenant.name)} --name my-first-key")
    show_denial(tenant)


@click.command()
@json_option
def list_tenants(as_json: bool) -> None:
    """List all tenants, by name.

    \b
    Example:
      neuronetz-gateway list-tenants --json
    """
    tenants = with_stores(_all)
    if as_json:
        show_json([tenant_as_json(tenant) for tenant in tenants])
    elif not tenants:
        click.echo("There are no tenants yet; `neuronetz-gateway create-tenant --name acme` makes one.")
    else:
        rows = [(tenant.name, status_of(tenant), when(tenant.created_at, "")) for tenant in tenants]
        show_table(("Name", "Status", "Created"), rows)


@click.command()
@click.option("--name", required=True, help="The name of the tenant.")
@json_option
def show_tenant(name: str, as_json: bool) -> None:
    """Show a tenant: its limits and budgets, and their use.

    Used and reserved are by the ledger, which running gateways write to moments after the fact.

    \b
    Example:
      neuronetz-gateway show-tenant --name acme
    """
    now = time.time()
    tenant, keys, standings = with_stores(lambda stores: _look_at(stores, name, now))
    statuses = Counter(key.status(now) for key in keys)
    if as_json:
        counted = {"keys": {status.value: statuses[status] for status in KeyStatus}}
        usage = {"usage": usage_as_json(standings)}
        show_json({**tenant_as_json(tenant), **counted, **policy_as_json(tenant), **usage})
        return
    show_facts(
        [
            ("Tenant", tenant.name),
            ("Id", tenant.id),
            ("Status", status_of(tenant)),
            ("Created", when(tenant.created_at, "")),
            ("Time zone", tenant.time_zone),
            ("Weight", str(tenant.weight)),
            ("Audit", f"rows are kept {retention_told(tenant.audit_retention_days)}"),
            ("Keys", ", ".join(f"{statuses[status]} {status.value}" for status in KeyStatus)),
            *model_facts(tenant),
        ]
    )
    click.echo()
    show_usage(standings)
    click.echo()
    show_policy(tenant)


async def make_tenant(
    stores: Stores,
    name: str,
    policy: Policy | None = None,
    time_zone: str = "UTC",
    models: ModelPolicy | None = None,
    *,
    allow_cloud: bool = False,
    weight: int = 1,
    audit_retention_days: int | None = None,
) -> Tenant:
    """Make a tenant. Raises TenantNameTaken."""
    tenant = Tenant(
        uuid.uuid4().hex,
        name,
        time.time(),
        policy or Policy(),
        time_zone,
        models or ModelPolicy(),
        allow_cloud,
        weight=weight,
        audit_retention_days=audit_retention_days,
    )
    await stores.tenants.add(tenant)
    return tenant


async def _all(stores: Stores) -> list[Tenant]:
    return await stores.tenants.all()


async def _look_at(stores: Stores, name: str, now: float) -> tuple[Tenant, Sequence[Key], Sequence[Standing]]:
    tenant = await stores.tenants.by_name(name)
    return tenant, await stores.keys.all(tenant), await standings_of(stores, tenant, now)


def retention_told(days: int | None) -> str:
    """For how long audit rows are kept."""
    return "as long as all others" if days is None else f"for {counted(days, 'day')}"


def status_of(tenant: Tenant) -> str:
    return "active" if tenant.suspended_at is None else "suspended"


def tenant_as_json(tenant: Tenant) -> dict[str, Any]:
    """A tenant as every command tells it to programs, with the bounds by their own names."""
    return {
        "id": tenant.id,
        "name": tenant.name,
        "created_at": iso(tenant.created_at),
        "status": status_of(tenant),
        "suspended_at": iso(tenant.suspended_at),
        "time_zone": tenant.time_zone,
        **asdict(tenant.policy),
        **asdict(tenant.models),
        "allow_cloud": tenant.allow_cloud,
        "weight": tenant.weight,
        "audit_retention_days": tenant.audit_retention_days,
    }
