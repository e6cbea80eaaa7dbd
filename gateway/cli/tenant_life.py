"""Commands for what a tenant goes through: suspended, let in again, deleted."""

from collections.abc import Awaitable, Callable

import click

from gateway.cli.changes import fail_untold, tell_gateways
from gateway.cli.clearing import clear
from gateway.cli.confirming import confirm, refuse_unasked, yes_option
from gateway.cli.output import json_option, show_json, when
from gateway.cli.stores import Stores, with_stores
from gateway.cli.tenants import tenant_as_json
from gateway.model import Tenant
from gateway.rules.limits import counted
from gateway.storage.refusals import Refused

_name = click.option("--name", required=True, help="The name of the tenant.")


@click.command()
@_name
@json_option
def suspend_tenant(name: str, as_json: bool) -> None:
    """Refuse all keys of a tenant, until it is resumed.

    Running gateways answer 403 within one second, and end its running streams within 10. Nothing is lost:
    keys, limits, budgets and what was used stay as they are.

    \b
    Example:
      neuronetz-gateway suspend-tenant --name acme
    """
    before, after, untold = with_stores(lambda stores: _changed(stores, name, stores.tenants.suspend))
    if as_json:
        show_json({**tenant_as_json(after), "already_suspended": before.suspended_at is not None})
    elif before.suspended_at is not None:
        since = when(before.suspended_at, "")
        click.echo(f"Nothing to do: the tenant '{after.name}' has been suspended since {since}.")
    else:
        click.echo(
            f"Suspended the tenant '{after.name}'. Running gateways refuse its keys within one second."
        )
        click.echo("`neuronetz-gateway resume-tenant` lets them in again.")
    fail_untold(untold)


@click.command()
@_name
@json_option
def resume_tenant(name: str, as_json: bool) -> None:
    """Let the keys of a suspended tenant in again.

    \b
    Example:
      neuronetz-gateway resume-tenant --name acme
    """
    before, after, untold = with_stores(lambda stores: _changed(stores, name, stores.tenants.resume))
    if as_json:
        show_json({**tenant_as_json(after), "was_suspended": before.suspended_at is not None})
    elif before.suspended_at is None:
        click.echo(f"Nothing to do: the tenant '{after.name}' is not suspended.")
    else:
        click.echo(f"Resumed the tenant '{after.name}'. Running gateways let its keys in within one second.")
    fail_untold(untold)


@click.command()
@_name
@yes_option
@json_option
def delete_tenant(name: str, yes: bool, as_json: bool) -> None:
    """Delete a tenant and all of its keys, for good.

    Running gateways refuse the keys within one second, and end its running streams within 10. The ledger, the
    usage and the audit log keep what it did, under its id: they are the record of what was served. Its name
    is free again; a new tenant of that name is another one, with budgets of its own.

    \b
    Examples:
      neuronetz-gateway delete-tenant --name acme
      neuronetz-gateway delete-tenant --name acme --yes --json
    """
    refuse_unasked(yes=yes, as_json=as_json)
    tenant, count = with_stores(lambda stores: _look_at(stores, name))
    confirm(f"Delete the tenant '{tenant.name}' and its {counted(count, 'key')} for good?", yes=yes)
    deleted, prefixes, untold = with_stores(lambda stores: _delete(stores, tenant.name))
    if as_json:
        show_json({**tenant_as_json(deleted), "deleted_keys": prefixes})
    else:
        click.echo(f"Deleted the tenant '{deleted.name}' and its {counted(len(prefixes), 'key')}.")
        click.echo(f"Ledger, usage and audit log keep what it did, under its id {deleted.id}.")
    fail_untold(untold)


async def _changed(
    stores: Stores, name: str, change: Callable[[str], Awaitable[Tenant]]
) -> tuple[Tenant, Tenant, Refused | None]:
    before = await stores.tenants.by_name(name)
    after = await change(name)
    return before, after, await tell_gateways(stores, after)


async def _look_at(stores: Stores, name: str) -> tuple[Tenant, int]:
    tenant = await stores.tenants.by_name(name)
    return tenant, len(await stores.keys.all(tenant))


async def _delete(stores: Stores, name: str) -> tuple[Tenant, list[str], Refused | None]:
    kept = await stores.prompts.count(await stores.tenants.by_name(name))
    tenant, prefixes = await stores.tenants.delete(name)
    untold = await tell_gateways(stores, tenant)
    await clear(stores, kept)
    return tenant, prefixes, untold
