"""What must hold: ratios of figures of one run, so that they mean the same on any machine."""

from collections.abc import Callable, Iterator
from typing import Final

from attrs import frozen

from bench.measuring import Results

GATEWAY: Final = "gateway, fleet"
EMBEDDED: Final = "gateway, embedded"
Figure = Callable[[Results], float | None]


@frozen
class Target:
    """A figure, and the most that it may be."""

    text: str
    figure: Figure
    most: float


@frozen
class Judged:
    """`value` is None where the run did not measure what it takes."""

    text: str
    value: float | None
    most: float

    @property
    def verdict(self) -> str:
        if self.value is None:
            return "not measured"
        return "holds" if self.value <= self.most else "does not hold"


def _median(system: str, row: str, figure: str) -> Figure:
    return lambda results: results.median(system, row, figure)


def _added(row: str, figure: str) -> Figure:
    return lambda results: results.added(GATEWAY, row, figure)


def _ratio(above: Figure, below: Figure) -> Figure:
    def ratio(results: Results) -> float | None:
        one, other = above(results), below(results)
        return one / other if one is not None and other else None

    return ratio


def _cpu(row: str, other: str, *, system: str = GATEWAY, other_row: str | None = None) -> Figure:
    return _ratio(_median(system, row, "cpu_us"), _median(other, other_row or row, "cpu_us"))


TARGETS: Final = (
    Target("CPU of a plain request, of LiteLLM's", _cpu("plain 16", "LiteLLM"), 1 / 60),
    Target("CPU of a plain request, of Portkey's", _cpu("plain 16", "Portkey"), 1 / 9),
    Target("CPU of a plain request, of nginx'", _cpu("plain 16", "nginx"), 9),
    Target("added p50 at one connection, ms", _added("plain 1", "answer_p50_ms"), 0.45),
    Target("CPU of a chunk in a burst, of nginx'", _cpu("burst 8", "nginx"), 1.4),
    Target("CPU of a chunk at 50 tokens/s, of Portkey's", _cpu("paced 20", "Portkey"), 1 / 2),
    Target("chunk latency p99 at 200 streams, ms", _median(GATEWAY, "paced 200", "token_p99_ms"), 1),
    Target("added first token p50 at 200 streams, ms", _added("paced 200", "first_p50_ms"), 1.5),
    Target("added first token p99 at 200 streams, ms", _added("paced 200", "first_p99_ms"), 5),
    Target("memory with 1,000 slow streams, MiB", _median(GATEWAY, "slow 1000", "memory_mib"), 143),
    Target("CPU of a body of 400 KB, of nginx'", _cpu("body 400 KB", "nginx"), 4),
    Target("CPU of a 401, of an admitted request's", _cpu("401", GATEWAY, other_row="plain 16"), 1 / 3),
    Target("CPU of embedded mode, of the fleet's", _cpu("plain 16", GATEWAY, system=EMBEDDED), 1),
)


def judged(results: Results) -> Iterator[Judged]:
    for target in TARGETS:
        yield Judged(target.text, target.figure(results), target.most)
