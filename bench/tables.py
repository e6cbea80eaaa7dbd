"""What was measured, as tables for a terminal."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from attrs import frozen
from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from bench.measuring import Results, Row
from bench.targets import judged


@frozen
class Column:
    title: str
    figure: str
    digits: int = 0
    is_added: bool = False
    """It is told as the difference to what there is without anything in between."""
    is_spread: bool = False
    """The lowest and the highest of all rounds, not their median."""


_CPU: Final = Column("CPU µs", "cpu_us", 1)
_SPREAD: Final = Column("from – to", "cpu_us", 0, is_spread=True)
_STORES: Final = Column("stores µs", "stores_us", 1)
_RATE: Final = Column("per s", "per_s")
_PLAIN: Final = (
    _CPU,
    _SPREAD,
    _STORES,
    _RATE,
    Column("p50 ms", "answer_p50_ms", 2),
    Column("p99 ms", "answer_p99_ms", 2),
    Column("+ p50", "answer_p50_ms", 2, is_added=True),
    Column("+ p99", "answer_p99_ms", 2, is_added=True),
)
_STREAM: Final = (
    _CPU,
    _SPREAD,
    _STORES,
    _RATE,
    Column("1st + p50", "first_p50_ms", 2, is_added=True),
    Column("1st + p99", "first_p99_ms", 2, is_added=True),
    Column("p50 ms", "token_p50_ms", 2),
    Column("p99 ms", "token_p99_ms", 2),
    Column("jitter", "jitter_p50_ms", 3),
    Column("j. p99", "jitter_p99_ms", 2),
)
_HELD: Final = (
    Column("memory MiB", "memory_mib"),
    Column("KiB a stream", "per_stream_kib", 1),
    Column("streams", "streams"),
)
_IDLE: Final = (
    Column("start s", "start_s", 2),
    Column("memory MiB", "memory_mib"),
    Column("CPU ms per s", "cpu_ms_per_s", 1),
)


def columns_of(row: Row) -> tuple[Column, ...]:
    if not row.callers:
        return _IDLE
    if row.holds:
        return _HELD
    return _STREAM if row.is_stream else _PLAIN


def tables(results: Results, rows: Iterable[Row], systems: Sequence[str]) -> Iterator[RenderableType]:
    for row in rows:
        yield _table(results, row, systems)
        for system in systems:
            if why := results.failures.get((system, row.name)):
                yield Text(f"  {system} failed: {why[:200]}", style="yellow")


def _table(results: Results, row: Row, systems: Sequence[str]) -> Table:
    unit = "chunk" if row.is_stream else "request"
    title = f"{row.name} ({row.callers} callers; per {unit})" if row.callers else row.name
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.add_column("", no_wrap=True, min_width=18)
    for column in columns_of(row):
        table.add_column(column.title, justify="right", no_wrap=True)
    for system in systems:
        if (system, row.name) in results.rounds:
            table.add_row(system, *(_cell(results, system, row.name, column) for column in columns_of(row)))
    return table


def _cell(results: Results, system: str, row: str, column: Column) -> str:
    if column.is_spread:
        values = results.values(system, row, column.figure)
        return f"{min(values):,.{column.digits}f}–{max(values):,.{column.digits}f}" if values else "–"
    median: Callable[[str, str, str], float | None] = results.added if column.is_added else results.median
    value = median(system, row, column.figure)
    return "–" if value is None else f"{value:,.{column.digits}f}"


def verdicts(results: Results) -> Table:
    """What must hold, with what was found; without rows that were not measured, it says so."""
    table = Table(title="What must hold", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for title in ("", "value", "at most", ""):
        table.add_column(title, justify="right" if title else "left", no_wrap=True)
    for one in judged(results):
        value = "–" if one.value is None else f"{one.value:,.3f}"
        table.add_row(one.text, value, f"{one.most:,.3f}", one.verdict)
    return table
