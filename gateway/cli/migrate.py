"""The command that brings the database up to date."""

import click

from gateway import config
from gateway.cli.output import json_option, show_json
from gateway.storage.migrations import migrate as apply_migrations
from gateway.storage.migrations import migrator_of


@click.command()
@json_option
def migrate(as_json: bool) -> None:
    """Make the database, or bring it up to date. Safe to repeat, and to run twice at once.

    \b
    Example:
      neuronetz-gateway migrate
    """
    database_url = config.load().database_url
    applied = apply_migrations(database_url)
    database = migrator_of(database_url).name
    if as_json:
        show_json({"database": database, "applied": applied})
    elif applied:
        click.echo(f"Applied to {database}: {', '.join(applied)}.")
    else:
        click.echo(f"{database} is up to date.")
