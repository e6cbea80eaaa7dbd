"""The command that shows what operators did."""

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import click

from gateway.cli.output import iso, json_option, show_json, show_table
from gateway.cli.stores import Stores, with_stores
from gateway.cli.words import Past, Prefix
from gateway.storage.actions import Action

# Of a list: a thousand prompts that were shown at once are a thousand ids. With --json all are told.
_SHOWN: Final = 10


@click.command()
@click.option("--tenant", help="Only what was done to the tenant of this name, or id, and to its keys.")
@click.option("--prefix", type=Prefix(), help="Only what was done to the key with this public prefix.")
@click.option(
    "--since", type=Past(), default="30d", show_default=True, help="As 12h, 30d, or a date, 2026-11-01."
)
@click.option(
    "--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="The last so many."
)
@json_option
def list_actions(tenant: str | None, prefix: str | None, since: float, limit: int, as_json: bool) -> None:
    """Show what was changed by commands: by whom, when, what it was before and what since.

    Every change of tenants, keys, limits and budgets is noted with the change itself, and never altered. The
    user is that of the operating system where the command ran. A key is never in it.

    \b
    Examples:
      neuronetz-gateway list-actions --tenant acme
      neuronetz-gateway list-actions --prefix nz_abc12345 --since 7d --json
    """
    actions = with_stores(lambda stores: _latest(stores, tenant, prefix, since, limit))
    if as_json:
        show_json([_as_json(action) for action in actions])
    elif not actions:
        click.echo("Nothing was changed.")
    else:
        show_table(("When", "Who", "Action", "Of", "What"), [_as_row(action) for action in actions])


async def _latest(
    stores: Stores, tenant: str | None, prefix: str | None, since: float, limit: int
) -> Sequence[Action]:
    tenant_id = None if tenant is None else await stores.tenant_id_of(tenant)
    return await stores.actions.latest(since=since, limit=limit, tenant_id=tenant_id, key_prefix=prefix)


def _as_json(action: Action) -> dict[str, Any]:
    return {
        "id": action.id,
        "at": iso(action.at),
        "os_user": action.actor.os_user,
        "host": action.actor.host,
        "action": action.action,
        "tenant": action.tenant,
        "tenant_id": action.tenant_id,
        "prefix": action.key_prefix,
        "key_name": action.key_name,
        "changes": action.changes,
    }


def _as_row(action: Action) -> tuple[str, ...]:
    key, mark = action.key_name, f"({action.key_prefix})"
    if key and not key.endswith(mark):  # that of a key which has a successor does already
        key = f"{key} {mark}"
    return (
        time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(action.at)),
        f"{action.actor.os_user} at {action.actor.host}",
        action.action.replace("_", "-"),
        ", ".join(filter(None, (action.tenant, key))),
        _told(action.changes),
    )


def _told(changes: Mapping[str, Mapping[str, Any]]) -> str:
    """`rpm: 60, was none; expires_at: …`: what it is now, and what it was if it was anything."""
    return "; ".join(_one_told(field, change) for field, change in changes.items())


def _one_told(field: str, change: Mapping[str, Any]) -> str:
    before = "" if change["before"] is None else f", was {_plain(change['before'])}"
    return f"{field}: {_plain(change['after'])}{before}"


def _plain(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, list):
        more = f" and {len(value) - _SHOWN:,} more" if len(value) > _SHOWN else ""
        return " ".join(map(str, value[:_SHOWN])) + more
    return value if isinstance(value, str) else json.dumps(value)
