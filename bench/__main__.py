"""What this gateway costs beside others, in one run on one machine.

    python -m bench [--systems direct nginx embedded fleet] [--rows plain "body 400 KB"] [--seconds 3]

Each system runs on a core of its own; callers, the backend's double, Redis and Postgres share the others. All
take turns, round by round, so compare within one run: CPU per request more than anything that a clock says.
BENCH_GATEWAY_X=… in the environment is GATEWAY_X=… for the gateways, to compare settings.
"""

import argparse
import os
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from rich.console import Console

from bench import machine, report
from bench.measuring import ROWS, Results, Row, measure
from bench.others import litellm, portkey
from bench.systems import Backends, Missing, Start, System, direct, embedded, fleet, nginx
from bench.tables import tables, verdicts

SYSTEMS: Final[dict[str, Start]] = {
    "direct": direct,
    "nginx": nginx,
    "embedded": embedded,
    "fleet": fleet,
    "portkey": portkey,
    "litellm": litellm,
}


def main() -> None:
    given = _given()
    if given.nice:
        os.setpriority(os.PRIO_PROCESS, 0, given.nice)
    rows = [row for row in ROWS if not given.rows or row.group in given.rows or row.name in given.rows]
    console = Console()
    if not console.is_terminal:
        console.width = 140
    load = machine.load_average()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gw-bench-")))
        backends = stack.enter_context(Backends().started())
        systems = _started(stack, given.systems, backends, folder, console)
        status = stack.enter_context(console.status("measuring"))
        results = measure(
            systems,
            rows,
            backends,
            seconds=given.seconds,
            rounds=given.rounds,
            folder=folder,
            say=status.update,
        )
    run = report.Run(given.seconds, given.rounds, load, machine.load_average())
    _tell(console, results, systems, rows, run)
    report.write(report.document(results, systems, rows, run), given.output)
    if given.chart and (svg := report.drawn(results, systems)):
        given.chart.write_text(svg)


def _tell(
    console: Console, results: Results, systems: Sequence[System], rows: Sequence[Row], run: report.Run
) -> None:
    for table in tables(results, rows, [system.name for system in systems]):
        console.print(table)
    console.print(verdicts(results))
    for system in systems:
        console.print(f"{system.name}: {system.version}")
    console.print(f"{machine.description()}; load average {run.load_before:.1f} to {run.load_after:.1f}")


def _started(
    stack: ExitStack, names: Sequence[str], backends: Backends, folder: Path, console: Console
) -> list[System]:
    systems = []
    for name in names:
        place = folder / name
        place.mkdir()
        try:
            systems.append(stack.enter_context(SYSTEMS[name](backends, place)))
        except Missing as error:
            console.print(f"{name} is left out: {error}")
    return systems


def _given() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--rows", nargs="+", default=[], help="names or their first words; all without it")
    parser.add_argument("--seconds", type=float, default=3.0, help="how long a round of a row takes")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--nice", type=int, default=0, help="below 0: ahead of what else the machine does, for root"
    )
    parser.add_argument(
        "--output", type=Path, default=report.PLACE / "latest.json", help="all of it, as JSON"
    )
    parser.add_argument("--chart", type=Path, help=f"draw the README's chart, which is {report.CHART.name}")
    given = parser.parse_args()
    known = {row.name for row in ROWS} | {row.group for row in ROWS}
    if unknown := set(given.rows) - known:
        there = ", ".join(row.name for row in ROWS)
        parser.error(f"no such rows: {', '.join(sorted(unknown))}; there are {there}")
    return given


if __name__ == "__main__":
    main()
