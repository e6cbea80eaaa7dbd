"""The command that removes what is personal of a tenant."""

from collections.abc import Sequence

import click
from attrs import asdict

from gateway.cli.clearing import clear
from gateway.cli.confirming import confirm, refuse_unasked, yes_option
from gateway.cli.output import json_option, progress, show_json
from gateway.cli.stores import Stores, with_stores
from gateway.model import Tenant
from gateway.rules.audit_chain import Chain
from gateway.storage.audit_purging import Personal


@click.command()
@click.option(
    "--name", required=True, help="The name of the tenant, or its id, also of one that was deleted."
)
@yes_option
@json_option
def purge_tenant(name: str, yes: bool, as_json: bool) -> None:
    """Remove a tenant's personal data from the audit log and the prompt log, for good.

    That is what says who sent a request: addresses, user agents, request ids of the caller's own; what of it
    stands in records that could not be stored; and all prompts and answers that are kept. What was used
    stays, under the ids of tenant and keys: times, models, tokens, outcomes. Requests that come later are
    recorded as ever, and those of the last moments may still be on their way: suspend or delete the tenant
    first.

    \b
    Examples:
      neuronetz-gateway purge-tenant --name acme
      neuronetz-gateway purge-tenant --name acme --yes --json
    """
    refuse_unasked(yes=yes, as_json=as_json)
    tenant, found = with_stores(lambda stores: _look_at(stores, name))
    confirm(f"Remove from the rows of {_told(tenant)}: {', '.join(_lines(found))}?", yes=yes)
    removed, rows = with_stores(lambda stores: _purge(stores, tenant))
    if as_json:
        show_json({"tenant": tenant.name or None, "tenant_id": tenant.id, "rows": rows, **asdict(removed)})
        return
    click.echo(f"Removed from {rows:,} rows of {_told(tenant)}:")
    for line in _lines(removed):
        click.echo(f"  {line}")
    click.echo("What was used stays, under the ids of tenant and keys.")


async def _look_at(stores: Stores, name: str) -> tuple[Tenant, Personal]:
    tenant_id = await stores.tenant_id_of(name)
    known = {tenant.id: tenant for tenant in await stores.tenants.all()}
    tenant = known.get(tenant_id) or Tenant(tenant_id, "", 0.0)
    return tenant, await stores.purging.personal(tenant_id)


async def _purge(stores: Stores, tenant: Tenant) -> tuple[Personal, int]:
    chain = Chain(await stores.secret())
    kept = await stores.prompts.count(tenant)
    purge, rows = await stores.purging.begin(tenant, chain), 0
    removed = Personal(0, 0, 0, purge.found.quarantined, purge.found.prompts)  # these at once, by `begin`
    with progress("Removing personal data", purge.found.addresses) as advance:
        async for count, of_page in stores.purging.rows(tenant.id, chain):
            rows += count
            removed += of_page
            advance(count)
    await stores.purging.end(tenant.id, purge)
    await clear(stores, kept)
    return removed, rows


def _told(tenant: Tenant) -> str:
    return f"the tenant '{tenant.name}'" if tenant.name else f"the deleted tenant {tenant.id}"


def _lines(found: Personal) -> Sequence[str]:
    return (
        f"{found.addresses:,} addresses",
        f"{found.user_agents:,} user agents",
        f"{found.client_request_ids:,} request ids of the caller's own",
        f"{found.quarantined:,} records that could not be stored",
        f"{found.prompts:,} prompts with their answers",
    )
