"""The command that brings the database up to date, or back to what an older version knows."""

import asyncio

import click

from gateway import config
from gateway.cli.output import json_option, show_json
from gateway.storage.engines import serving
from gateway.storage.migrations import applied_after, migrator_of, roll_back
from gateway.storage.migrations import migrate as apply_migrations
from gateway.storage.refusals import AnotherServes, Refused


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
@click.option("--yes", is_flag=True, help="Do not ask, before something is undone.")
@json_option
def migrate(back_to: str | None, yes: bool, as_json: bool) -> None:
    """Make the database, or bring it up to date. Safe to repeat, and to run twice at once.

    With --back-to, for going back to an older version: run by the newer one, once all gateways have stopped.
    What only the newer version keeps is lost by that; ledger, keys and audit log stay.

    \b
    Examples:
      neuronetz-gateway migrate
      neuronetz-gateway migrate --back-to 0008_replicas
    """
    database_url = config.load().database_url
    if back_to is not None:
        _go_back(database_url, back_to, yes, as_json)
        return
    applied = apply_migrations(database_url)
    database = migrator_of(database_url).name
    if as_json:
        show_json({"database": database, "applied": applied})
    elif applied:
        click.echo(f"Applied to {database}: {', '.join(applied)}.")
    else:
        click.echo(f"{database} is up to date.")


def _go_back(database_url: str, to: str, yes: bool, as_json: bool) -> None:
    if as_json and not yes:
        raise click.UsageError("--json asks nothing: give --yes with it.")
    migrator = migrator_of(database_url)
    with migrator.errors_told():
        todo = applied_after(migrator, to)
    if todo and not yes:
        click.confirm(f"Undo {', '.join(todo)} in {migrator.name}, and lose what they hold?", abort=True)
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


def _nothing() -> None:
    """The lock is lost with the database, and then nothing is rolled back either."""
