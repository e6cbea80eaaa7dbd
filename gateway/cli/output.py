"""What commands print: tables for people, JSON for programs. Nothing else of `rich` is used elsewhere."""

import contextlib
import csv
import io
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import click
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

# Where there is no terminal nothing is cut or folded: a line stays a line for grep and awk.
_PIPE_COLUMNS: Final = 10_000
_STATUS_STYLES: Final = {"active": "green", "suspended": "yellow", "expired": "yellow", "revoked": "red"}

json_option: Final[Callable[[Any], Any]] = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON, for programs."
)


def show_json(value: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> None:
    """One object, or one list of objects. ASCII, so that it passes through any terminal and pipe."""
    click.echo(json.dumps(value, indent=2))


def show_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under their columns. A column called Prefix is never cut, however narrow the terminal."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        whole = column == "Prefix"
        table.add_column(column, no_wrap=whole, min_width=11 if whole else None, overflow="fold")
    for row in rows:
        # Text, not str: a name is no markup.
        table.add_row(*(Text(cell, style=_STATUS_STYLES.get(cell, "")) for cell in row))
    _console().print(table)


def show_facts(facts: Sequence[tuple[str, str]]) -> None:
    """Print what is known of one thing, a line each."""
    width = max(len(name) for name, _ in facts)
    for name, value in facts:
        click.echo(f"{name:<{width}}  {value}")


@contextlib.contextmanager
def working(sentence: str) -> Iterator[Callable[[str], None]]:
    """Show on standard error that work goes on, where somebody may be watching; call it to say how far."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    with Console(stderr=True).status(sentence) as status:
        yield status.update


@contextlib.contextmanager
def progress(sentence: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on standard error, where somebody may be watching; call it with how many more are done."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    with Progress(console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task(sentence, total=total)
        yield lambda more: shown.advance(task, more)


def iso(moment: float | None) -> str | None:
    """Seconds since the epoch as ISO 8601, UTC, for programs: 2026-11-23T15:04:05Z."""
    return None if moment is None else f"{_utc(moment):%Y-%m-%dT%H:%M:%SZ}"


def when(moment: float | None, otherwise: str) -> str:
    """Seconds since the epoch for people: 2026-11-23 15:04 UTC."""
    return otherwise if moment is None else f"{_utc(moment):%Y-%m-%d %H:%M} UTC"


_BLOCKS: Final = " ▁▂▃▄▅▆▇█"
_PLAIN_BLOCKS: Final = " .:-=+*%#"


def bar(value: float, most: float, width: int = 12) -> str:
    """As long as a value is of the largest one; what is there at all is seen."""
    if value <= 0 or most <= 0:
        return ""
    return _blocks()[-1] * max(1, round(width * value / most))


def gauge(share: float, width: int = 8) -> str:
    """How full something is, 0 to 1: what is left can be seen too. Full is only what has nothing left."""
    full, left = (_BLOCKS[-1], "░") if _blocks() == _BLOCKS else (_PLAIN_BLOCKS[-1], ".")
    filled = width if share >= 1 else min(width - 1, round(width * share))
    filled = max(filled, 1 if share > 0 else 0)
    return full * filled + left * (width - filled)


def sparkline(values: Sequence[float]) -> str:
    """A character for each value, as high as it is of the largest one; what is there at all is seen."""
    blocks, most = _blocks(), max(values, default=0)
    if most <= 0:
        return ""
    steps = len(blocks) - 1
    return "".join(
        blocks[0 if value <= 0 else max(1, round(steps * value / most))] for value in values
    ).rstrip()


def _blocks() -> str:
    """Where a terminal's encoding has no blocks, what it has."""
    try:
        _BLOCKS.encode(sys.stdout.encoding or "ascii")
    except (UnicodeError, LookupError):
        return _PLAIN_BLOCKS
    return _BLOCKS


def csv_of(rows: Iterable[Sequence[Any]]) -> str:
    """CSV that is safe to open: no text in it is taken for a formula by a spreadsheet."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([harmless(value) for value in row] for row in rows)
    return text.getvalue()


def harmless(value: Any) -> Any:
    """Text that a spreadsheet would run gets an apostrophe before it (OWASP, CSV injection)."""
    if isinstance(value, str) and value.startswith(_FORMULA_STARTS):
        return f"'{value}"
    return value


_FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def _utc(moment: float) -> datetime:
    return datetime.fromtimestamp(moment, UTC)


def _console() -> Console:
    # rich itself honours NO_COLOR and prints no colours where there is no terminal.
    return Console(width=None if sys.stdout.isatty() else _PIPE_COLUMNS)
