"""Commands for how long audit rows are kept."""

import click

from gateway.cli.changes import fail_untold, tell_gateways
from gateway.cli.output import json_option, show_json, working
from gateway.cli.stores import Stores, with_stores
from gateway.cli.tenants import retention_told, tenant_as_json
from gateway.cli.words import Days
from gateway.model import Tenant
from gateway.storage.audit_retention import Expired
from gateway.storage.refusals import Refused


@click.command()
@click.option("--tenant", required=True, metavar="NAME", help="Whose rows.")
@click.option("--days", required=True, type=Days(), help="For so many days; `default` as all others.")
@json_option
def set_retention(tenant: str, days: int | None, as_json: bool) -> None:
    """Set for how long the audit rows of a tenant are kept.

    Rows older than that are removed by running gateways, or by `apply-retention` where these may not. Without
    one of its own a tenant has that of GATEWAY_AUDIT_RETENTION_DAYS. Usage and ledger stay.

    \b
    Examples:
      neuronetz-gateway set-retention --tenant acme --days 90
      neuronetz-gateway set-retention --tenant acme --days default
    """
    before, after, untold = with_stores(lambda stores: _set(stores, tenant, days))
    if as_json:
        show_json({**tenant_as_json(after), "was": before.audit_retention_days})
    elif before.audit_retention_days == days:
        click.echo(
            f"Nothing to do: the audit rows of '{after.name}' are kept {retention_told(days)} already."
        )
    else:
        was = retention_told(before.audit_retention_days)
        click.echo(f"The audit rows of '{after.name}' are kept {retention_told(days)}; it was {was}.")
    fail_untold(untold)


@click.command()
@json_option
def apply_retention(as_json: bool) -> None:
    """Remove audit rows whose time is over.

    Running gateways do that by themselves, once a day, save where their database role may not: then run this
    once a day with DATABASE_ADMIN_URL. What was removed is noted, so that `verify-audit` does not take it for
    tampering. Usage and ledger stay.

    \b
    Examples:
      neuronetz-gateway apply-retention
      neuronetz-gateway apply-retention --json
    """
    with working("Removing audit rows …") as tell:

        async def remove(stores: Stores) -> Expired:
            retention = await stores.retention()
            if not await retention.may_remove():
                raise click.ClickException(
                    "This database role may not remove audit rows: give one that may as DATABASE_ADMIN_URL."
                )
            expired = Expired()
            async for expired in retention.remove():
                tell(f"Removing audit rows … {expired.rows:,} so far")
            return expired

        expired = with_stores(remove)
    if as_json:
        show_json({"days_removed": expired.days, "rows_removed": expired.rows})
    elif expired.days or expired.rows:
        days = f"{expired.days:,} tables of whole days and " if expired.days else ""
        click.echo(f"Removed {days}{expired.rows:,} rows.")
    else:
        click.echo("Nothing is over its time.")


async def _set(stores: Stores, name: str, days: int | None) -> tuple[Tenant, Tenant, Refused | None]:
    before = await stores.tenants.by_name(name)
    after = await stores.tenants.set_audit_retention(name, days)
    return before, after, await tell_gateways(stores, after)
