"""A run as a document: versions, machine and method beside every figure; and the chart made from it."""

import datetime
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from attrs import asdict, frozen

from bench import machine
from bench.chart import Bar, chart
from bench.measuring import Results, Row
from bench.systems import System
from bench.targets import EMBEDDED, GATEWAY, judged

PLACE: Final = Path(__file__).parent / "results"
CHART: Final = Path(__file__).parents[1] / "docs/performance.svg"
_ROW: Final = "plain 16"
_METHOD: Final = (
    "One process each on a core of its own; callers, the backend's double, Redis and Postgres on the others. "
    "Rounds take turns; medians, lowest and highest of all rounds. CPU is user and kernel time of the "
    "process tree, from /proc. The gateway has every control on: keys, limits and budgets of each kind on "
    "tenant and key, audit log, metrics, a log line a request. nginx looks at nothing; LiteLLM has a master "
    "key and no database, Portkey no key at all."
)


@frozen
class Run:
    """What was asked for, and under what load of the machine."""

    seconds: float
    rounds: int
    load_before: float
    load_after: float


def document(results: Results, systems: Sequence[System], rows: Iterable[Row], run: Run) -> dict[str, Any]:
    return {
        "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine.description(),
        "method": _METHOD,
        **asdict(run),
        "systems": {system.name: system.version for system in systems},
        "rows": {row.name: {"callers": row.callers, "surface": str(row.surface)} for row in rows},
        "figures": results.as_json(),
        "failures": [
            {"system": system, "row": row, "why": why} for (system, row), why in results.failures.items()
        ],
        "targets": [{**asdict(one), "verdict": one.verdict} for one in judged(results)],
    }


def write(told: dict[str, Any], file: Path) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(told, indent=1) + "\n")


def drawn(results: Results, systems: Sequence[System]) -> str | None:
    """The chart, where the run has what it shows."""
    bars = []
    for system in systems:
        value = results.median(system.name, _ROW, "cpu_us")
        if value:
            bars.append(
                Bar(f"{system.name} {_short(system)}".strip(), value, system.name in (EMBEDDED, GATEWAY))
            )
    if not bars:
        return None
    note = (
        f"16 connections, {machine.description().partition(',')[0]}; logarithmic. Method: docs/PERFORMANCE.md"
    )
    title = "CPU time per plain chat request: less is better"
    return chart(title, note, sorted(bars, key=lambda bar: bar.value), "µs")


def _short(system: System) -> str:
    return "" if system.name in (EMBEDDED, GATEWAY) else system.version
