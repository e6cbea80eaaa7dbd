"""Commands for the ledger."""

from collections.abc import Mapping, Sequence
from typing import Any

import click

from gateway.accounting import Sum
from gateway.cli.output import json_option, show_json, show_table, working
from gateway.cli.policies import number
from gateway.cli.stores import Stores, with_stores
from gateway.storage.ledger import Difference, UsageDifference


@click.command()
@json_option
def verify_ledger(as_json: bool) -> None:
    """Check that all sums, and the usage by hour, are what the ledger adds up to.

    Exit code 1 when one is not. Reads every row, at one moment; gateways may run meanwhile. Changes nothing.

    \b
    Example:
      neuronetz-gateway verify-ledger
    """
    with working("Adding up the ledger …"):
        differences, of_usage, names = with_stores(_verify)
    count = len(differences) + len(of_usage)
    if as_json:
        shown = [_as_json(difference, names) for difference in differences]
        by_hour = [_usage_as_json(difference, names) for difference in of_usage]
        show_json({"equal": not count, "differences": shown, "usage_differences": by_hour})
    elif not count:
        click.echo("All sums are what the ledger adds up to.")
    if differences and not as_json:
        columns = ("Of the", "Name", "Period", "Spent", "By ledger", "Reserved", "By ledger")
        show_table(columns, [_as_row(difference, names) for difference in differences])
    if of_usage and not as_json:
        of_whom = ("Usage of", "Key", "Model", "Backend", "Tokens", "By ledger")
        show_table(of_whom, [_usage_as_row(difference, names) for difference in of_usage])
    if count:
        raise click.ClickException(_told(count))


async def _verify(
    stores: Stores,
) -> tuple[Sequence[Difference], Sequence[UsageDifference], dict[str, str]]:
    """The differences, and the names of owners by id: a tenant's name, a key's prefix."""
    differences, of_usage = await stores.ledger.verify(), await stores.ledger.verify_usage()
    if not differences and not of_usage:
        return (), (), {}
    names = {tenant.id: tenant.name for tenant in await stores.tenants.all()}
    return differences, of_usage, names | {key.account: key.prefix for key in await stores.keys.all()}


def _told(count: int) -> str:
    sums = "1 sum is" if count == 1 else f"{count:,} sums are"
    return (
        f"{sums} not what the ledger adds up to. Both change in one transaction, so the database was changed "
        "by other means, is damaged, or this is a defect: keep a copy of it, and report it."
    )


def _as_json(difference: Difference, names: Mapping[str, str]) -> dict[str, Any]:
    kept, by_ledger = difference.kept, difference.by_ledger
    return {
        "scope": kept.scope.value,
        "owner": kept.owner,
        "name": names.get(kept.owner),
        "period": kept.period,
        "spent": kept.spent,
        "spent_by_ledger": by_ledger.spent,
        "reserved": kept.reserved,
        "reserved_by_ledger": by_ledger.reserved,
    }


def _usage_as_json(difference: UsageDifference, names: Mapping[str, str]) -> dict[str, Any]:
    return {
        "tenant_id": difference.tenant_id,
        "tenant": names.get(difference.tenant_id),
        "key_id": difference.key_id,
        "prefix": names.get(difference.key_id),
        "model": difference.model,
        "backend": difference.backend,
        **difference.kept,
        **{f"{name}_by_ledger": value for name, value in difference.by_ledger.items()},
    }


def _usage_as_row(difference: UsageDifference, names: Mapping[str, str]) -> tuple[str, ...]:
    return (
        names.get(difference.tenant_id, difference.tenant_id),
        names.get(difference.key_id, difference.key_id),
        difference.model,
        difference.backend,
        *("/".join(map(number, counts.values())) for counts in (difference.kept, difference.by_ledger)),
    )


def _as_row(difference: Difference, names: Mapping[str, str]) -> tuple[str, ...]:
    kept, by_ledger = difference.kept, difference.by_ledger
    return (
        kept.scope.value,
        _name(kept, names),
        kept.period,
        number(kept.spent),
        number(by_ledger.spent),
        number(kept.reserved),
        number(by_ledger.reserved),
    )


def _name(kept: Sum, names: Mapping[str, str]) -> str:
    """Of an owner that is not known any more, the id."""
    return names.get(kept.owner, kept.owner)
