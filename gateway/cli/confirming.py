"""Asking before what can't be undone."""

from collections.abc import Callable
from typing import Any, Final

import click

yes_option: Final[Callable[[Any], Any]] = click.option("--yes", is_flag=True, help="Do not ask.")


def refuse_unasked(*, yes: bool, as_json: bool) -> None:
    """A program can't be asked, so it has to say that it means it. Raises UsageError."""
    if as_json and not yes:
        raise click.UsageError("--json asks nothing: give --yes with it.")


def confirm(question: str, *, yes: bool) -> None:
    """Ask, unless it was said beforehand. Raises Abort where the answer is no."""
    if not yes:
        click.confirm(question, abort=True)
