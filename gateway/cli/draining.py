"""The command that takes a backend out of service, for all gateways that share the database."""

import click

from gateway import config
from gateway.cli.backend_line import BackendLine
from gateway.cli.output import json_option, show_json
from gateway.cli.stores import Stores, with_stores


@click.command()
@click.argument("name_or_url", metavar="NAME-or-URL")
@click.option("--undo", is_flag=True, help="Take it back into service.")
@json_option
def drain_backend(name_or_url: str, undo: bool, as_json: bool) -> None:
    """Let a backend get no new requests, from any gateway that shares the database.

    Within one second; what runs there finishes, what waits for it goes elsewhere. A model that no other
    backend has is refused with 503 meanwhile. It holds over restarts, until --undo.

    \b
    Examples:
      neuronetz-gateway drain-backend gpu-2
      neuronetz-gateway drain-backend gpu-2 --undo
    """
    line = BackendLine.of(config.values())
    name, is_changed = with_stores(lambda stores: _drain(stores, line, name_or_url, undo=undo))
    if as_json:
        show_json({"name": name, "draining": not undo, "changed": is_changed})
    elif not is_changed:
        click.echo(f"Nothing to do: '{name}' is {'in service' if undo else 'being drained'} already.")
    elif undo:
        click.echo(f"'{name}' is back in service: running gateways send it requests within one second.")
    else:
        click.echo(
            f"'{name}' gets no new requests, from running gateways within one second; those that run there "
            f"finish.\nTo take it back: neuronetz-gateway drain-backend {name} --undo"
        )


async def _drain(stores: Stores, line: BackendLine, name_or_url: str, *, undo: bool) -> tuple[str, bool]:
    """The backend's name, and whether something changed. Raises ClickException for one that is not there."""
    # One that is in the line no more can still be taken back.
    is_left = undo and name_or_url in await stores.drains.all()
    name = name_or_url if is_left else line.named(name_or_url).name
    return name, await (stores.drains.end(name) if undo else stores.drains.begin(name))
