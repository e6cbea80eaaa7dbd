"""What is measured of a system: one load, and what it cost meanwhile."""

import json
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

from attrs import define, field, frozen

from bench import machine
from bench.programs import Call, Load, Told, start_load, told_by
from bench.systems import BURST, PACED, PACED_S, PLAIN, SLOW, Backends, Caller, Surface, System

Figures = dict[str, float]
_WARM_UP_S: Final = 0.5
_RUSH_S: Final = 0.1
# Words of English prose have about four letters and a space for a token; a line end now and then is escaped.
_PROSE: Final = "The quick brown fox jumps over the lazy dog, and nobody knows why it should.\n"


@frozen
class Row:
    """One kind of load. `figures` says what is told of it."""

    name: str
    callers: int
    model: str = PLAIN
    surface: Surface = Surface.OPENAI
    caller: Caller = Caller.KNOWN
    body_bytes: int = 0
    factor: float = 1.0
    """How much longer it takes than others, to have enough to measure."""
    spread_s: float = 0.0
    """Over how long its callers begin: those of streams that last keep these distances from then on."""
    holds: bool = False
    """What counts is the memory that so many streams take at the same time."""

    @property
    def is_stream(self) -> bool:
        return self.model != PLAIN

    @property
    def group(self) -> str:
        return self.name.partition(" ")[0]


ROWS: Final = (
    *(Row(f"plain {callers}", callers) for callers in (1, 16, 64)),
    # Before the large bodies: what their parsing took stays with the process.
    *(Row(f"slow {streams}", streams, model=SLOW, holds=True) for streams in (200, 1000)),
    Row("native 16", 16, surface=Surface.NATIVE),
    Row("translated 16", 16, surface=Surface.TRANSLATED),
    *(Row(f"body {kib} KB", 16, body_bytes=kib * 1024) for kib in (1, 100, 400)),
    Row("401", 16, caller=Caller.UNKNOWN),
    Row("429", 16, caller=Caller.LIMITED),
    Row("burst 8", 8, model=BURST, spread_s=_RUSH_S),
    Row("burst-native 8", 8, model=BURST, surface=Surface.NATIVE, spread_s=_RUSH_S),
    # Callers who know nothing of each other; then all of them in one moment, as after an outage.
    *(Row(f"paced {streams}", streams, model=PACED, factor=3, spread_s=PACED_S) for streams in (20, 200)),
    Row("rush 200", 200, model=PACED, factor=2, spread_s=_RUSH_S),
    Row("idle", 0),
)


def serves(system: System, row: Row) -> bool:
    return row.surface in system.ports and row.caller in system.headers


def measured(system: System, row: Row, backends: Backends, seconds: float, folder: Path) -> Figures:
    """One round. Raises RuntimeError when the answers were not those that were to be measured."""
    if not row.callers:
        return _idle(system, seconds)
    call = Call(system.ports[row.surface], row.surface.path, body_of(row, folder), system.headers[row.caller])
    if row.holds:
        return _held(system, row, call)
    seconds *= row.factor
    _told(call, Load(row.callers, min(_WARM_UP_S, seconds)), row)
    before, used = _cpu(system, backends, row), time.perf_counter()
    told = _told(call, Load(row.callers, seconds, spread_s=row.spread_s), row)
    after, used = _cpu(system, backends, row), time.perf_counter() - used
    return _figures(told, row, {name: after[name] - before[name] for name in after}, used)


def _told(call: Call, load: Load, row: Row) -> Told:
    return _checked(told_by(start_load(call, load)), row)


def _checked(told: Told, row: Row) -> Told:
    wanted, other = (told.ok, told.refused) if row.caller is Caller.KNOWN else (told.refused, told.ok)
    # The one request of the minute of the one whose limit is used up.
    allowed = 2 if row.caller is Caller.LIMITED else 0
    if told.errors > 0.001 * wanted or other > allowed or not (wanted or told.tokens):
        raise RuntimeError(f"{told.errors} errors, {other} unwanted answers: {told.refusal}")
    return told


def _cpu(system: System, backends: Backends, row: Row) -> dict[str, float]:
    return {
        "system": machine.cpu_s(system.pid) if system.pid else 0.0,
        "stores": sum(machine.cpu_s(root) for root in system.stores),
        "double": machine.cpu_s(backends.of(row.surface).pid),
    }


def _figures(told: Told, row: Row, cpu_s: Mapping[str, float], took_s: float) -> Figures:
    what = told.tokens if row.is_stream else told.ok + told.refused
    found: Figures = {
        "cpu_us": cpu_s["system"] * 1e6 / what,
        "stores_us": cpu_s["stores"] * 1e6 / what,
        "double_us": cpu_s["double"] * 1e6 / what,
        "per_s": what / told.seconds,
        "busy": cpu_s["system"] / took_s,
    }
    timings = {"first": told.first_token, "token": told.token, "jitter": told.jitter}
    for name, timing in (timings if row.is_stream else {"answer": told.answer}).items():
        for quantile in ("p50", "p99"):
            value = getattr(timing, quantile)
            if value is not None:
                found[f"{name}_{quantile}_ms"] = value
    return found


def _held(system: System, row: Row, call: Call) -> Figures:
    """Memory once all streams are under way."""
    if system.pid is None:
        return {}
    before = machine.memory_bytes(system.pid)
    opening_s = max(2.0, row.callers / 100)
    load = Load(row.callers, opening_s + 6.0, grace_s=0.0, spread_s=opening_s)
    process = start_load(call, load)
    time.sleep(opening_s + 4.0)
    during = machine.memory_bytes(system.pid)
    told = told_by(process)
    return {
        "memory_mib": during / 2**20,
        "per_stream_kib": (during - before) / 1024 / row.callers,
        "streams": float(told.first_token.count),
    }


def _idle(system: System, seconds: float) -> Figures:
    if system.pid is None:
        return {}
    began, used = time.perf_counter(), machine.cpu_s(system.pid)
    time.sleep(seconds)
    took, used = time.perf_counter() - began, machine.cpu_s(system.pid) - used
    return {
        "start_s": system.started_s,
        "memory_mib": machine.memory_bytes(system.pid) / 2**20,
        "cpu_ms_per_s": used / took * 1e3,
    }


def body_of(row: Row, folder: Path) -> Path:
    messages = [{"role": "user", "content": "Why is the sky blue?"}]
    while row.body_bytes and len(json.dumps(messages)) < row.body_bytes:
        text = _PROSE * max(1, min(30, (row.body_bytes - len(json.dumps(messages))) // len(_PROSE)))
        messages.insert(0, {"role": ("assistant", "user")[len(messages) % 2], "content": text})
    body = {"model": row.surface.model(row.model), "stream": row.is_stream, "messages": messages}
    written = folder / f"{row.name.replace(' ', '-')}.json"
    written.write_text(json.dumps(body, separators=(",", ":")))
    return written


@define
class Results:
    """What all rounds gave: the figures of each system in each row."""

    rounds: dict[tuple[str, str], list[Figures]] = field(factory=dict)
    failures: dict[tuple[str, str], str] = field(factory=dict)

    @classmethod
    def read(cls, told: Sequence[Mapping[str, Any]]) -> Self:
        """Of what `as_json` told."""
        return cls({(one["system"], one["row"]): list(one["rounds"]) for one in told})

    def add(self, system: str, row: str, figures: Figures) -> None:
        self.rounds.setdefault((system, row), []).append(figures)

    def fail(self, system: str, row: str, why: str) -> None:
        self.failures[system, row] = why

    def median(self, system: str, row: str, figure: str) -> float | None:
        values = self.values(system, row, figure)
        return statistics.median(values) if values else None

    def values(self, system: str, row: str, figure: str) -> list[float]:
        return [one[figure] for one in self.rounds.get((system, row), []) if figure in one]

    def added(self, system: str, row: str, figure: str) -> float | None:
        """By how much it is above what there is without anything in between, round by round."""
        pairs = zip(self.values(system, row, figure), self.values("direct", row, figure), strict=False)
        differences = [own - without for own, without in pairs]
        return statistics.median(differences) if differences else None

    def as_json(self) -> list[dict[str, Any]]:
        return [
            {
                "system": system,
                "row": row,
                "rounds": [{n: round(v, 4) for n, v in one.items()} for one in rounds],
            }
            for (system, row), rounds in self.rounds.items()
        ]


def measure(
    systems: Sequence[System],
    rows: Iterable[Row],
    backends: Backends,
    *,
    seconds: float,
    rounds: int,
    folder: Path,
    say: Callable[[str], None],
) -> Results:
    """All systems in turn, round by round, so that what disturbs one disturbs all."""
    results = Results()
    for row in rows:
        asked = [system for system in systems if serves(system, row)]
        for number in range(1 if row.holds else rounds):
            for system in asked[number % len(asked) :] + asked[: number % len(asked)]:
                if (system.name, row.name) in results.failures:
                    continue
                say(f"{row.name}: round {number + 1}, {system.name}")
                try:
                    results.add(system.name, row.name, measured(system, row, backends, seconds, folder))
                except RuntimeError as error:
                    results.fail(system.name, row.name, str(error))
    return results
