"""The command that finds out whether the audit log was tampered with."""

import json
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import click

from gateway.cli.output import json_option, show_json, show_table, working
from gateway.cli.policies import number
from gateway.cli.stores import Stores, with_stores
from gateway.rules.audit_chain import REGISTER
from gateway.rules.limits import counted
from gateway.storage.audit_verifying import Day, Fault, Head

_EPOCH: Final = date(1970, 1, 1)


@click.command()
@click.option(
    "--day", type=click.DateTime(["%Y-%m-%d"]), help="Only this day (UTC), as 2026-11-23; else all."
)
@click.option(
    "--against",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="What an earlier run printed with --json: the chains must still have their ends of then.",
)
@json_option
def verify_audit(day: datetime | None, against: Path | None, as_json: bool) -> None:
    """Check that no audit row was changed, deleted, added or moved.

    Rows are chained by day, under a key made of GATEWAY_SECRET: who has the database alone can't make them
    right again. Told are rows and seals that are not what they were; what retention and purge-tenant removed
    is noted, and no fault. Exit code 1 when there is a fault. Gateways may run meanwhile; changes nothing.

    Who restores the database to an earlier state restores its chains, too: keep what --json prints somewhere
    else, and give it to --against.

    \b
    Examples:
      neuronetz-gateway verify-audit
      neuronetz-gateway verify-audit --day 2026-11-23
      neuronetz-gateway verify-audit --json
    """
    anchors = [] if against is None else _anchors(against)
    only = None if day is None else (day.date() - _EPOCH).days
    with working("Verifying the audit log …") as tell:

        async def verify(stores: Stores) -> tuple[list[Day], list[Head]]:
            rows = 0

            def on_rows(more: int) -> None:
                nonlocal rows
                rows += more
                tell(f"Verifying the audit log … {rows:,} rows so far")

            verifying = await stores.audit_verifying(anchors, on_rows)
            return [one async for one in verifying.days(only)], verifying.heads

        days, heads = with_stores(verify)
    count = sum(one.fault_count for one in days)
    if as_json:
        show_json(_as_json(days, heads))
    else:
        _show(days)
    if count:
        raise click.ClickException(
            f"The audit log is not what was written: {counted(count, 'fault')}, the first {_first(days)}."
        )


def _anchors(path: Path) -> Sequence[Head]:
    try:
        told = json.loads(path.read_text())
        return [
            Head(_number(one["day"]), int(one["seq"]), bytes.fromhex(one["mac"])) for one in told["heads"]
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise click.ClickException(f"{path} is not what `verify-audit --json` printed.") from error


def _show(days: Sequence[Day]) -> None:
    dated = [one for one in days if one.day != REGISTER]
    if rows := [_as_row(one) for one in days if one.fault_count]:
        show_table(("Day", "Rows", "Faults", "The first"), rows)
        return
    rows_told = number(sum(one.rows for one in dated))
    days_told = counted(len(dated), "day")
    click.echo(f"The audit log is what was written: {rows_told} rows of {days_told}.")
    for count, what in (
        (sum(one.purged for one in dated), "without what was personal in them, which was purged"),
        (sum(one.expired for one in dated), "removed, for their time was over"),
        (sum(one.unsealed for one in dated), "from before rows were sealed: they can't be verified"),
    ):
        if count:
            click.echo(f"  {number(count)} {what}")


def _as_row(one: Day) -> tuple[str, ...]:
    return _date(one.day), number(one.rows), number(one.fault_count), _sentence(one.faults[0])


def _first(days: Sequence[Day]) -> str:
    day = next(one for one in days if one.fault_count)
    where = "in the register of days" if day.day == REGISTER else f"of {_date(day.day)}"
    return f"{where}: {_sentence(day.faults[0])}"


def _sentence(fault: Fault) -> str:
    if fault.request_id is not None:
        return f"{fault.request_id} {fault.what}"
    return fault.what if fault.seq is None else f"{fault.what} (seal {fault.seq})"


def _as_json(days: Sequence[Day], heads: Sequence[Head]) -> dict[str, Any]:
    return {
        "intact": not any(one.fault_count for one in days),
        "verified_at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "days": [
            {
                "day": _date(one.day),
                "rows": one.rows,
                "seals": one.seals,
                "purged": one.purged,
                "expired": one.expired,
                "unsealed": one.unsealed,
                "fault_count": one.fault_count,
                "faults": [
                    {"what": fault.what, "request_id": fault.request_id, "seal": fault.seq}
                    for fault in one.faults
                ],
            }
            for one in days
        ],
        "heads": [{"day": _date(head.day), "seq": head.seq, "mac": head.mac.hex()} for head in heads],
    }


def _date(day: int) -> str:
    """ISO 8601; of a day that no calendar has, its number."""
    if day == REGISTER:
        return "register"
    try:
        return (_EPOCH + timedelta(days=day)).isoformat()
    except OverflowError:
        return str(day)


def _number(day: str) -> int:
    if day == "register":
        return REGISTER
    return int(day) if day.isdecimal() else (date.fromisoformat(day) - _EPOCH).days
