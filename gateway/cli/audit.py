"""The command that shows the audit log, and follows it; and what all that read it are asked for."""

import asyncio
import json
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import click
from attrs import asdict, evolve

from gateway.cli.output import json_option, show_json, show_table
from gateway.cli.stores import Stores, with_stores
from gateway.cli.words import Past, Prefix, Statuses, in_zone
from gateway.errors import StoreUnavailable
from gateway.model import AuditRow, Outcome
from gateway.storage.audit_reading import LATE_S, Selection

_Command = Callable[..., None]

_LOOK_S: Final = 1.0
# What was shown already is remembered for as long as it may come up again, and a lot longer.
_MAX_SHOWN: Final = 100_000
_COLUMNS: Final = ("Received", "Tenant", "Key", "From", "Path", "Model", "Status", "Outcome", "Tokens", "ms")
_WIDTHS: Final = (23, 12, 11, 15, 24, 20, 6, 14, 8, 10)

_OPTIONS: Final = (
    click.option("--tenant", help="Only of the tenant of this name, or id."),
    click.option("--prefix", type=Prefix(), help="Only of the key with this public prefix."),
    click.option("--model", help="Only of this model, by its canonical name such as llama3:latest."),
    click.option("--status", type=Statuses(), help="Only with this status, such as 429 or 5xx."),
    click.option("--outcome", type=click.Choice([one.value for one in Outcome]), help="Only what ended so."),
    click.option("--request", metavar="ID", help="Only the request with this x-request-id."),
    click.option("--since", type=Past(), help="As 12h, 30d, or a date such as 2026-11-01; from the first."),
    click.option(
        "--until",
        type=Past(),
        help="The same; without: until now. Dates are of the time zone of --tenant, else UTC.",
    ),
)


def selecting(command: _Command) -> _Command:
    """Give a command the options by which rows are selected."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


async def selection_of(stores: Stores, asked: dict[str, Any]) -> Selection:
    """What is selected by these options. Raises NoSuchTenant."""
    least, most = asked["status"] or (None, None)
    tenant_id = None if asked["tenant"] is None else await stores.tenant_id_of(asked["tenant"])
    known = await stores.tenants.by_ids([] if tenant_id is None else [tenant_id])
    zone = known[0].time_zone if known else "UTC"
    until = time.time() + LATE_S if asked["until"] is None else in_zone(asked["until"], zone)
    return Selection(
        since_us=round(in_zone(asked["since"] or 0.0, zone) * 1e6),
        until_us=round(until * 1e6),
        tenant_id=tenant_id,
        key_prefix=asked["prefix"],
        model=asked["model"],
        outcome=asked["outcome"],
        request_id=asked["request"],
        least_status=least,
        most_status=most,
    )


@click.command()
@selecting
@click.option(
    "--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="The last so many."
)
@click.option("--follow", is_flag=True, help="Then show what comes, until interrupted.")
@json_option
def audit(*, limit: int, follow: bool, as_json: bool, **asked: Any) -> None:
    """Show the last requests, one a line: who, what, when, and how it ended.

    Running gateways write to the audit log moments after the fact. With --follow each row is shown when it
    came in, so a long stream comes when it has ended; with --json it is then one object a line.

    \b
    Examples:
      neuronetz-gateway audit --tenant acme --status 4xx --since 1h
      neuronetz-gateway audit --request req_019a2b3c4d5e6f
      neuronetz-gateway audit --prefix nz_abc12345 --follow --json
    """
    if follow and asked["until"] is not None:
        raise click.UsageError("--follow has no end: leave --until out.")
    try:
        with_stores(lambda stores: _show(stores, asked, limit, follow=follow, as_json=as_json))
    except KeyboardInterrupt:
        if not follow:
            raise


async def _show(stores: Stores, asked: dict[str, Any], limit: int, *, follow: bool, as_json: bool) -> None:
    selection = await selection_of(stores, asked)
    began = await stores.replicas.now()
    rows = await stores.audit.latest(selection, limit)
    names = {tenant.id: tenant.name for tenant in await stores.tenants.all()}
    if follow:
        await _follow(stores, selection, rows, began, _line_of(names, as_json=as_json))
    elif as_json:
        show_json([as_object(row, names) for row in rows])
    elif rows:
        show_table(_COLUMNS, [_cells(row, names) for row in rows])
    else:
        click.echo("There are no such requests.")


async def _follow(
    stores: Stores,
    selection: Selection,
    rows: Sequence[AuditRow],
    began: float,
    line_of: Callable[[AuditRow], str],
) -> None:
    """Show each row once, in the order in which they came in."""
    selection = evolve(selection, until_us=2**62)
    shown: OrderedDict[str, None] = OrderedDict()
    since, is_told = began - LATE_S, False
    while True:
        for row in rows:
            if row.request_id not in shown:
                shown[row.request_id] = None
                click.echo(line_of(row))
        while len(shown) > _MAX_SHOWN:
            shown.popitem(last=False)
        await asyncio.sleep(_LOOK_S)
        try:
            now = await stores.replicas.now()
            rows = await stores.audit.recorded(selection, since)
            since, is_told = now - LATE_S, False
        except StoreUnavailable as error:
            rows = ()
            if not is_told:
                click.echo(f"Warning: {error} Waiting for it.", err=True)
            is_told = True


def _line_of(names: dict[str, str], *, as_json: bool) -> Callable[[AuditRow], str]:
    if as_json:
        return lambda row: json.dumps(as_object(row, names))

    def line(row: AuditRow) -> str:
        cells = zip(_cells(row, names), _WIDTHS, strict=True)
        return "  ".join(f"{cell:<{width}}" for cell, width in cells).rstrip()

    return line


def as_object(row: AuditRow, names: dict[str, str]) -> dict[str, Any]:
    """A row as every command tells it to programs: its fields by their names, and its time as ISO 8601."""
    fields = asdict(row, recurse=False)
    received_at_us = fields.pop("received_at_us")
    return {
        "request_id": fields.pop("request_id"),
        "received_at": received(received_at_us),
        "tenant": names.get(row.tenant_id or ""),
        **fields,
    }


def received(microseconds: int) -> str:
    """ISO 8601, UTC, to the microsecond; a time that no calendar has is a number."""
    try:
        moment = datetime.fromtimestamp(microseconds // 1_000_000, UTC).replace(
            microsecond=microseconds % 1_000_000
        )
    except (ValueError, OverflowError, OSError):
        return f"{microseconds} µs"
    return f"{moment:%Y-%m-%dT%H:%M:%S.%f}Z"


def _cells(row: AuditRow, names: dict[str, str]) -> tuple[str, ...]:
    tokens = None if row.completion_tokens is None else (row.prompt_tokens or 0) + row.completion_tokens
    return (
        received(row.received_at_us).replace("T", " ")[:23],
        names.get(row.tenant_id or "", row.tenant_id or "–"),
        row.key_prefix or "–",
        row.peer or "–",
        f"{row.method} {row.path}",
        row.model or "–",
        str(row.status),
        row.error_code if row.outcome == Outcome.REFUSED.value and row.error_code else row.outcome,
        "–" if tokens is None else f"{tokens:,}",
        f"{row.duration_ms:,.0f}",
    )
