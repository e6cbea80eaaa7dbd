"""Families of metrics that cost a request an addition each; the library's own are made when it asks.

Its counters and histograms take several calls and a lock for each number. These are plain numbers, written
by the event loop alone and read by the thread of a scrape, which may find those of one moment beside those of
the next. They are told under the same names, in the same order and with the same samples as the library's.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

Labels = tuple[str, ...]


class Counts(Collector):
    """A family of counters: add to `of[values of its labels]`."""

    def __init__(self, name: str, told: str, labels: Labels) -> None:
        self.of: defaultdict[Labels, float] = defaultdict(float)
        self._name = name
        self._told = told
        self._labels = labels

    def describe(self) -> Iterator[CounterMetricFamily]:
        yield CounterMetricFamily(self._name, self._told, labels=self._labels)

    def collect(self) -> Iterator[CounterMetricFamily]:
        for family in self.describe():
            for values, counted in list(self.of.items()):
                family.add_metric(values, counted)
            yield family


class Measured:
    """A member of a family of histograms: how many values each bucket has, and what they add up to."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value


class Measures(Collector):
    """A family of histograms: let `of[values of its labels]` observe. The last bucket has no bound."""

    def __init__(self, name: str, told: str, labels: Labels, bounds: tuple[float, ...]) -> None:
        self.of: defaultdict[Labels, Measured] = defaultdict(partial(Measured, bounds))
        self._name = name
        self._told = told
        self._labels = labels
        ends = (*bounds, float("inf"))
        self._ends: list[str] = [floatToGoString(end) for end in ends]  # type: ignore[no-untyped-call]
        if not labels:  # its one member is told of before anything is measured
            self.of[()]

    def describe(self) -> Iterator[HistogramMetricFamily]:
        yield HistogramMetricFamily(self._name, self._told, labels=self._labels)

    def collect(self) -> Iterator[HistogramMetricFamily]:
        for family in self.describe():
            for values, measured in list(self.of.items()):
                up_to = accumulate(map(float, measured.counts))
                family.add_metric(values, list(zip(self._ends, up_to, strict=True)), measured.total)
            yield family
