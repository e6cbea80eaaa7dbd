"""The command that brings the database up to date, or back to what an older version knows."""

import asyncio

import click

from gateway import config
from gateway.cli.actors import this_actor
from gateway.cli.confirming import confirm, refuse_unasked, yes_option
from gateway.cli.output import json_option, show_json
from gateway.storage.actions import Actions, Changes
from gateway.storage.engines import database_at, grant_serving, grant_serving_again, serving
from gateway.storage.migrations import applied_after, migrator_of, roll_back
from gateway.storage.migrations import migrate as apply_migrations
from gateway.storage.refusals import AnotherServes, Refused

# With it came what notes who did what.
_NOTING = "0014_admin_actions"


class GatewaysServe(Refused):
    """What they need would be taken away under them."""

    def __init__(self, database: str) -> None:
        super().__init__(f"A gateway serves on {database}: stop all of them first, then go back.")


@click.command()
@click.option(
    "--back-to",
    metavar="MIGRATION",
    help="Undo all that came after this migration, for an older version to start on.",
)
@click.option(
    "--grant-to",
    metavar="ROLE",
    help="Of Postgres: let this role serve, which then can't change or delete audit rows.",
)
@yes_option
@json_option
def migrate(back_to: str | None, grant_to: str | None, yes: bool, as_json: bool) -> None:
    """Make the database, or bring it up to date. Safe to repeat, and to run twice at once.

    Uses DATABASE_ADMIN_URL where that is set. A role that was once given with --grant-to is given what it
    needs of later versions, too.

    With --back-to, for going back to an older version: run by the newer one, once all gateways have stopped.
    What only the newer version keeps is lost by that; ledger, keys and audit log stay.

    \b
    Examples:
      neuronetz-gateway migrate
      neuronetz-gateway migrate --grant-to gateway_serving
      neuronetz-gateway migrate --back-to 0008_replicas
    """
    database_url = config.load().admin_database_url
    if back_to is not None:
        if grant_to is not None:
            raise click.UsageError("Either --back-to or --grant-to.")
        _go_back(database_url, back_to, yes, as_json)
        return
    applied = bring_up_to_date(database_url)
    if grant_to is not None:
        grant_serving(database_url, grant_to)
        _note(database_url, "grant_serving", {"role": (None, grant_to)})
    database = migrator_of(database_url).name
    if as_json:
        show_json({"database": database, "applied": applied, "granted_to": grant_to})
        return
    if applied:
        click.echo(f"Applied to {database}: {', '.join(applied)}.")
    else:
        click.echo(f"{database} is up to date.")
    if grant_to is not None:
        click.echo(f"The role {grant_to} may serve, and can't change or delete audit rows.")


def bring_up_to_date(database_url: str) -> list[str]:
    """Apply what is pending, and note who did. Raises DatabaseUnusable."""
    applied = apply_migrations(database_url)
    if applied:
        grant_serving_again(database_url)
        _note(database_url, "migrate", {"applied": (None, applied)})
    return applied


def _go_back(database_url: str, to: str, yes: bool, as_json: bool) -> None:
    refuse_unasked(yes=yes, as_json=as_json)
    migrator = migrator_of(database_url)
    with migrator.errors_told():
        todo = applied_after(migrator, to)
        is_noted = bool(todo) and _NOTING in migrator.applied()
    if todo:
        confirm(f"Undo {', '.join(todo)} in {migrator.name}, and lose what they hold?", yes=yes)
    if is_noted:
        _note(database_url, "migrate_back", {"applied": (todo, None)})
    undone = asyncio.run(_alone_rolled_back(database_url, to))
    if as_json:
        show_json({"database": migrator.name, "undone": undone})
    elif undone:
        click.echo(f"Undone in {migrator.name}: {', '.join(undone)}.")
    else:
        click.echo(f"Nothing to do: {migrator.name} has nothing after {to}.")


async def _alone_rolled_back(database_url: str, to: str) -> list[str]:
    """While no gateway serves, and none can start. Raises GatewaysServe."""
    try:
        async with serving(database_url, alone=True, on_lost=_nothing):
            return await asyncio.to_thread(roll_back, database_url, to)
    except AnotherServes as error:
        raise GatewaysServe(migrator_of(database_url).name) from error


def _note(database_url: str, action: str, changes: Changes) -> None:
    async def noted() -> None:
        async with database_at(database_url, connections=1) as database:
            await Actions(database, this_actor()).note(action, None, changes)

    asyncio.run(noted())


def _nothing() -> None:
    """The lock is lost with the database, and then nothing is rolled back either."""
