"""The tables of docs/PERFORMANCE.md, made of a run's JSON, so that nobody copies a figure by hand.

python -m bench.figures [bench/results/reference.json]      # writes them into the document
"""

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from bench.measuring import ROWS, Results
from bench.report import PLACE

REFERENCE: Final = PLACE / "reference.json"
DOCUMENT: Final = Path(__file__).parents[1] / "docs/PERFORMANCE.md"
_BEGIN: Final = "<!-- made by python -m bench.figures: change nothing here -->\n"
_END: Final = "<!-- until here -->\n"

# What a row of a table tells of one system.
_Cell = Callable[[Results, str, str], str]
_Lines = Sequence[tuple[str, str, _Cell]]


def inserted(text: str, told: Mapping[str, Any]) -> str:
    """The document with the tables of this run in place of those that it has."""
    before, _, rest = text.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return f"{before}{_BEGIN}\n{markdown(told)}\n{_END}{after}"


def markdown(told: Mapping[str, Any]) -> str:
    """All tables of a run, as `bench.report` wrote it."""
    results = Results.read(told["figures"])
    systems = [name for name in told["systems"] if name != "direct"]
    parts = [
        _table("CPU µs a request: median (lowest–highest)", _requests(), results, systems),
        _table("added ms: p50 / p99", _added(), results, systems),
        _table("streams", _streams(), results, systems),
        _table("process", _process(), results, systems),
        _targets(told["targets"]),
        *(f"{one['system']} failed at {one['row']}: {one['why']}" for one in told["failures"]),
        _about(told, results),
    ]
    return "\n\n".join(parts) + "\n"


def _table(title: str, lines: _Lines, results: Results, systems: Sequence[str]) -> str:
    head = [f"| {title} | {' | '.join(systems)} |", "|---|" + "---|" * len(systems)]
    rows = (
        f"| {label} | {' | '.join(cell(results, name, row) for name in systems)} |"
        for label, row, cell in lines
    )
    return "\n".join([*head, *rows])


def _requests() -> _Lines:
    return [(row.name, row.name, _spread) for row in ROWS if row.callers and not row.is_stream]


def _added() -> _Lines:
    cell = _pair("answer_p50_ms", 2, "answer_p99_ms", 1, is_added=True)
    return [(row.name, row.name, cell) for row in ROWS if row.group == "plain"]


def _streams() -> _Lines:
    streams = [row.name for row in ROWS if row.is_stream and not row.holds]
    lasting = [name for name in streams if not name.startswith("burst")]
    first = _pair("first_p50_ms", 1, "first_p99_ms", 1, is_added=True)
    latency = _pair("token_p50_ms", 2, "token_p99_ms", 1)
    jitter = _pair("jitter_p50_ms", 2, "jitter_p99_ms", 1)
    return [
        *((f"{name}: CPU µs a chunk", name, _one("cpu_us", 1)) for name in streams),
        *((f"{name}: first token, added ms p50 / p99", name, first) for name in lasting),
        *((f"{name}: chunk latency ms p50 / p99", name, latency) for name in lasting),
        *((f"{name}: jitter ms p50 / p99", name, jitter) for name in lasting),
    ]


def _process() -> _Lines:
    held = _pair("memory_mib", 0, "streams", 0)
    return [
        *((f"{row.name}: memory MiB / streams open", row.name, held) for row in ROWS if row.holds),
        ("memory at the end, MiB", "idle", _one("memory_mib")),
        ("idle: CPU ms a second", "idle", _one("cpu_ms_per_s", 1)),
        ("start, s", "idle", _one("start_s", 1)),
    ]


def _one(figure: str, digits: int = 0) -> _Cell:
    return lambda results, system, row: _told(results.median(system, row, figure), digits)


def _pair(figure: str, digits: int, other: str, other_digits: int, *, is_added: bool = False) -> _Cell:
    def cell(results: Results, system: str, row: str) -> str:
        of = results.added if is_added else results.median
        one, two = of(system, row, figure), of(system, row, other)
        return "–" if one is None else f"{_told(one, digits)} / {_told(two, other_digits)}"

    return cell


def _spread(results: Results, system: str, row: str) -> str:
    values = results.values(system, row, "cpu_us")
    median = _told(results.median(system, row, "cpu_us"), 0)
    return f"{median} ({min(values):,.0f}–{max(values):,.0f})" if values else median


def _told(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def _targets(targets: Sequence[Mapping[str, Any]]) -> str:
    lines = (
        f"| {one['text']} | {_told(one['value'], 3)} | {one['most']:,.3f} | {one['verdict']} |"
        for one in targets
    )
    return "\n".join(["| What must hold | Found | At most | |", "|---|---|---|---|", *lines])


def _about(told: Mapping[str, Any], results: Results) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in told["systems"].items() if name != "direct")
    ceilings = " and ".join(_ceilings(results))
    return "\n".join(
        [
            f"- {told['made'][:10]}, {told['machine']}; {told['rounds']} rounds of {told['seconds']} s each.",
            f"- Load average {told['load_before']:.1f} before, {told['load_after']:.1f} after.",
            f"- {versions}.",
            f"- Without anything in between: {ceilings}.",
        ]
    )


def _ceilings(results: Results) -> Iterator[str]:
    for row, unit in (("plain 16", "plain requests"), ("burst 8", "chunks")):
        rate, cost = (results.median("direct", row, figure) for figure in ("per_s", "double_us"))
        if rate is not None and cost is not None:
            yield f"{rate:,.0f} {unit} a second, of which the double takes {cost:.1f} µs each"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.figures",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, nargs="?", default=REFERENCE)
    told = json.loads(parser.parse_args().run.read_text())
    DOCUMENT.write_text(inserted(DOCUMENT.read_text(), told))


if __name__ == "__main__":
    main()
