"""A gateway's metrics as somebody reads them who watches it: what is now, and what happened since before."""

import http.client
from collections.abc import Iterator, Mapping
from typing import Final

from attrs import field, frozen
from prometheus_client.parser import text_string_to_metric_families

from gateway.config import Address

_WAIT_S: Final = 5.0
_MAX_BYTES: Final = 16 * 1024 * 1024

Labels = frozenset[tuple[str, str]]


class Unreadable(Exception):
    """There are no metrics of a gateway: a sentence says what is there instead."""


@frozen
class Reading:
    """All samples of one moment, by name and labels. `at` is seconds on a monotonic clock."""

    at: float
    samples: Mapping[str, Mapping[Labels, float]] = field(repr=False)

    def total(self, name: str, **labels: str) -> float:
        """The sum of all that have these labels."""
        wanted = labels.items()
        return sum(value for found, value in self.samples.get(name, {}).items() if wanted <= found)

    def by(self, name: str, *labels: str, **wanted: str) -> dict[tuple[str, ...], float]:
        """Sums by the values of these labels."""
        sums: dict[tuple[str, ...], float] = {}
        for found, value in self.samples.get(name, {}).items():
            values = dict(found)
            if wanted.items() <= found:
                group = tuple(values.get(label, "") for label in labels)
                sums[group] = sums.get(group, 0.0) + value
        return sums


@frozen
class Change:
    """Two readings: what is a counter becomes a rate. A process that began anew began at 0."""

    before: Reading | None
    now: Reading

    def rate(self, name: str, **labels: str) -> float:
        """A second."""
        return sum(self.rates(name, **labels).values())

    def rates(self, name: str, *by: str, **wanted: str) -> dict[tuple[str, ...], float]:
        now = self.now.by(name, *by, **wanted)
        if self.before is None or self.now.at <= self.before.at:
            return dict.fromkeys(now, 0.0)
        before, seconds = self.before.by(name, *by, **wanted), self.now.at - self.before.at
        return {group: _grown(value, before.get(group, 0.0)) / seconds for group, value in now.items()}


def _grown(now: float, before: float) -> float:
    return now - before if now >= before else now


def read(text: str, at: float) -> Reading:
    """Raises Unreadable for what is no metrics of a gateway."""
    samples: dict[str, dict[Labels, float]] = {}
    try:
        for name, labels, value in _samples(text):
            samples.setdefault(name, {})[labels] = value
    except ValueError as error:
        raise Unreadable("what is answered there are no metrics") from error
    if "gateway_ready" not in samples:
        raise Unreadable("what is answered there are not the metrics of a gateway")
    return Reading(at, samples)


def _samples(text: str) -> Iterator[tuple[str, Labels, float]]:
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if not sample.name.endswith("_bucket"):
                yield sample.name, frozenset(sample.labels.items()), sample.value


def fetch(address: Address) -> str:
    """The metrics at an address for operators. Raises Unreadable."""
    connection = http.client.HTTPConnection(address.host, address.port, timeout=_WAIT_S)
    try:
        connection.request("GET", "/metrics", headers={"Accept": "text/plain"})
        answer = connection.getresponse()
        body = answer.read(_MAX_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise Unreadable("nobody answers there") from error
    finally:
        connection.close()
    if answer.status != 200:
        raise Unreadable(f"{answer.status} is answered there")
    return body.decode("utf-8", "replace")
