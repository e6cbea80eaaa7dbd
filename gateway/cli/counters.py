"""Commands for what Redis counts: a view of the ledger that can be made anew."""

from collections.abc import Sequence
from typing import Any

import click

from gateway.cli.output import json_option, show_json, show_table, working
from gateway.cli.policies import BOUNDS, number
from gateway.cli.rebuilding import Account, Rebuilt, rebuild
from gateway.cli.standings import field_of
from gateway.cli.stores import with_stores


@click.command()
@click.option("--tenant", metavar="NAME", help="What is counted of the tenant of this name.")
@click.option("--all", "is_all", is_flag=True, help="What is counted of all tenants.")
@json_option
def rebuild_counters(tenant: str | None, is_all: bool, as_json: bool) -> None:
    """Have Redis count by the ledger again.

    For counters that differ from the ledger and stay so. Gateways may run: what their requests have reserved
    is held again. What is used of limits per minute is forgotten. Shows what was counted before, what is now,
    and what the ledger has. Exit code 1 when less is counted than that.

    \b
    Examples:
      neuronetz-gateway rebuild-counters --tenant acme
      neuronetz-gateway rebuild-counters --all --json
    """
    if is_all == (tenant is not None):
        raise click.UsageError("Whose? Give either --tenant or --all.")
    with working("Rebuilding what is counted …") as tell:
        rebuilt = with_stores(lambda stores: rebuild(stores, tenant, tell))
    if as_json:
        show_json(_as_json(rebuilt))
    else:
        _show(rebuilt)
    lower = sum(account.is_lower for one in rebuilt for account in one.accounts)
    if lower:
        raise click.ClickException(
            f"{_accounts(lower)} less than the ledger. Run it again; if that stays so while nobody else "
            "writes to this Redis, it is a defect: report it."
        )


def _accounts(count: int) -> str:
    return "1 account counts" if count == 1 else f"{count:,} accounts count"


def _as_json(rebuilt: Sequence[Rebuilt]) -> dict[str, Any]:
    equal = all(one.is_equal for one in rebuilt)
    return {"equal": equal, "tenants": [_tenant_as_json(one) for one in rebuilt]}


def _tenant_as_json(rebuilt: Rebuilt) -> dict[str, Any]:
    """Of its accounts, those that counted something else before, or do now."""
    return {
        "tenant": rebuilt.tenant.name,
        "was_counted": rebuilt.was_counted,
        "equal": rebuilt.is_equal,
        "accounts": len(rebuilt.accounts),
        "changed": [_account_as_json(account) for account in rebuilt.changed],
    }


def _account_as_json(account: Account) -> dict[str, Any]:
    beside = {"before": account.before, "after": account.after, "ledger": account.by_ledger}
    return {
        "scope": account.take.scope.value,
        "name": account.name,
        "bound": field_of(account.take),
        **{moment: {"used": used, "reserved": reserved} for moment, (used, reserved) in beside.items()},
    }


def _show(rebuilt: Sequence[Rebuilt]) -> None:
    """A table of what changed, and a sentence."""
    rows = [_row(account) for one in rebuilt for account in one.changed]
    if rows:
        columns = ("Of the", "Name", "Counted", "Used before", "Now", "By ledger", "Reserved before", "Now")
        show_table((*columns, "By ledger"), rows)
        click.echo()
    whose = f"the tenant '{rebuilt[0].tenant.name}'" if len(rebuilt) == 1 else f"{len(rebuilt):,} tenants"
    save = "" if all(one.is_equal for one in rebuilt) else ", save for what requests change meanwhile"
    count = sum(len(one.accounts) for one in rebuilt)
    click.echo(f"Redis counts by the ledger{save}: {whose}, {len(rows):,} of {count:,} accounts changed.")


def _row(account: Account) -> tuple[str, ...]:
    moments = account.before, account.after, account.by_ledger
    return (
        account.take.scope.value,
        account.name,
        BOUNDS[field_of(account.take)],
        *(number(used) for used, _ in moments),
        *(number(reserved) for _, reserved in moments),
    )
