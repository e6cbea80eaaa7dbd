"""Commands for tenants."""

import shlex
import time
import uuid
from typing import Any

import click

from gateway.cli.output import iso, json_option, show_json, show_table, when
from gateway.cli.stores import Stores, with_stores
from gateway.cli.words import Name
from gateway.model import Tenant


@click.command()
@click.option("--name", required=True, type=Name(), help="1 to 64 characters; unique, whatever the case.")
@json_option
def create_tenant(name: str, as_json: bool) -> None:
    """Make a tenant: who owns keys.

    \b
    Example:
      neuronetz-gateway create-tenant --name acme
    """
    tenant = with_stores(lambda stores: make_tenant(stores, name))
    if as_json:
        show_json(_as_json(tenant))
        return
    click.echo(f"Made the tenant '{tenant.name}'. Its first key:")
    click.echo(f"  neuronetz-gateway create-key --tenant {shlex.quote(tenant.name)} --name my-first-key")


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
        show_json([_as_json(tenant) for tenant in tenants])
    elif not tenants:
        click.echo("There are no tenants yet; `neuronetz-gateway create-tenant --name acme` makes one.")
    else:
        show_table(("Name", "Created"), [(tenant.name, when(tenant.created_at, "")) for tenant in tenants])


async def make_tenant(stores: Stores, name: str) -> Tenant:
    """Make a tenant. Raises TenantNameTaken."""
    tenant = Tenant(id=uuid.uuid4().hex, name=name, created_at=time.time())
    await stores.tenants.add(tenant)
    return tenant


async def _all(stores: Stores) -> list[Tenant]:
    return await stores.tenants.all()


def _as_json(tenant: Tenant) -> dict[str, Any]:
    return {"id": tenant.id, "name": tenant.name, "created_at": iso(tenant.created_at)}
