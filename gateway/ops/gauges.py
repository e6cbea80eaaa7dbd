"""How things stand at the moment of a scrape: read from the adapters, kept by nobody."""

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from importlib import metadata
from typing import Final, Protocol

from attrs import frozen
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.model import BackendState
from gateway.ops.budgets import BudgetLeft
from gateway.ports import Readiness
from gateway.proxy.station import StationState
from gateway.rules.breaker import BreakerState
from gateway.server.lifecycle import Lifecycle

# What /readyz may name.
COMPONENTS: Final = ("starting", "draining", "database", "redis", "backend", "spool")
# Of the keys that have requests running: those with the most.
MAX_RUNNING: Final = 50


@frozen
class SpoolState:
    """What waits for the database, and what is lost. Bytes, records, seconds."""

    waiting_bytes: int
    waiting_records: int
    max_bytes: int
    ledger_lag_s: float
    disk_lag_s: float
    is_full: bool
    dropped: int
    set_aside: int
    lost_bytes: int


@frozen
class PromptLogState:
    """What waits to be written, in bytes; and how many requests were kept, and not kept."""

    waiting_bytes: int
    kept: int
    dropped: int


@frozen
class Running:
    """Admitted requests that run, of one key."""

    tenant: str
    key: str
    model: str


class Standing(Protocol):
    """What is asked of a process. Everything in it is a look into memory, save `budgets`."""

    @property
    def lifecycle(self) -> Lifecycle: ...
    @property
    def readiness(self) -> Readiness: ...
    def backends(self) -> Iterable[BackendState]: ...
    def stations(self) -> Iterable[StationState]: ...
    def spool(self) -> SpoolState: ...
    def prompt_log(self) -> PromptLogState: ...
    def running(self) -> Iterable[Running]: ...
    def settling(self) -> int: ...
    async def budgets(self) -> Iterable[BudgetLeft]: ...


class Gauges(Collector):
    """`read` in the event loop, where the adapters live; `collect` in whatever thread renders."""

    def __init__(self, standing: Standing) -> None:
        self._standing = standing
        self._families: list[Metric] = []

    async def read(self) -> None:
        budgets = tuple(await self._standing.budgets())
        self._families = [
            *_of_process(self._standing),
            *_of_backends(tuple(self._standing.backends())),
            *_of_queues(tuple(self._standing.stations())),
            *_of_spool(self._standing.spool()),
            *_of_prompt_log(self._standing.prompt_log()),
            *_of_requests(self._standing),
            *_of_budgets(budgets),
        ]

    def describe(self) -> Iterable[Metric]:
        return ()  # what is read first is not known when the process begins

    def collect(self) -> Iterable[Metric]:
        return self._families


def _gauge(name: str, told: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"gateway_{name}", told, value=value)


def _of_process(standing: Standing) -> Iterator[Metric]:
    build = GaugeMetricFamily("gateway_build_info", "What runs.", labels=("version", "python"))
    build.add_metric((metadata.version("neuronetz-gateway"), ".".join(map(str, sys.version_info[:3]))), 1)
    yield build
    missing = set(standing.readiness.missing())
    yield _gauge("ready", "1 while new work is taken.", not missing)
    lacking = GaugeMetricFamily("gateway_missing", "1 for what /readyz says is missing.", labels=("what",))
    for what in COMPONENTS:
        lacking.add_metric((what,), what in missing)
    yield lacking


def _of_requests(standing: Standing) -> Iterator[Metric]:
    yield _gauge("requests_in_flight", "Requests that are not answered yet.", standing.lifecycle.in_flight)
    yield _gauge("settling", "Ended requests that the counters do not know of yet.", standing.settling())
    running = GaugeMetricFamily(
        "gateway_running", "Admitted requests that run.", labels=("tenant", "key", "model")
    )
    counted = Counter((one.tenant, one.key, one.model) for one in standing.running())
    for names, number in counted.most_common(MAX_RUNNING):
        running.add_metric(names, number)
    yield running


def _of_backends(states: tuple[BackendState, ...]) -> Iterator[Metric]:
    up = GaugeMetricFamily("gateway_backend_up", "1 while it answers.", labels=("backend", "kind"))
    models = GaugeMetricFamily("gateway_backend_models", "Models that it has.", labels=("backend",))
    loaded = GaugeMetricFamily(
        "gateway_backend_loaded_models", "Models that it has in memory.", labels=("backend",)
    )
    for state in states:
        up.add_metric((state.name, state.kind), state.is_up)
        models.add_metric((state.name,), state.models)
        loaded.add_metric((state.name,), state.loaded)
    yield from (up, models, loaded)


def _of_queues(states: tuple[StationState, ...]) -> Iterator[Metric]:
    running = GaugeMetricFamily(
        "gateway_backend_running", "Requests that it has from this gateway.", labels=("backend",)
    )
    slots = GaugeMetricFamily(
        "gateway_backend_slots", "Requests at the same time that it is sent at most.", labels=("backend",)
    )
    queue = GaugeMetricFamily("gateway_queue_length", "Requests that wait for it.", labels=("backend",))
    draining = GaugeMetricFamily(
        "gateway_backend_draining", "1 while it gets no new requests.", labels=("backend",)
    )
    breaker = GaugeMetricFamily(
        "gateway_backend_breaker_open", "1 while it is left alone after failures.", labels=("backend",)
    )
    broken = GaugeMetricFamily(
        "gateway_backend_broken_models",
        "Models of it that are left alone after failures.",
        labels=("backend",),
    )
    for state in states:
        running.add_metric((state.name,), state.running)
        if state.slots is not None:
            slots.add_metric((state.name,), state.slots)
        queue.add_metric((state.name,), state.waiting)
        draining.add_metric((state.name,), state.is_draining)
        breaker.add_metric((state.name,), state.breaker is not BreakerState.CLOSED)
        broken.add_metric((state.name,), len(state.broken_models))
    yield from (running, slots, queue, draining, breaker, broken)


def _of_spool(spool: SpoolState) -> Iterator[Metric]:
    yield _gauge("spool_bytes", "Bytes that the database does not have yet.", spool.waiting_bytes)
    yield _gauge("spool_records", "Records that the database does not have yet.", spool.waiting_records)
    yield _gauge("spool_max_bytes", "How large the spool may grow.", spool.max_bytes)
    yield _gauge("spool_full", "1 while no new work is taken for it.", spool.is_full)
    yield _gauge(
        "ledger_lag_seconds", "For how long the database has lacked the oldest record.", spool.ledger_lag_s
    )
    yield _gauge("spool_disk_lag_seconds", "The longest that a record waited for the disk.", spool.disk_lag_s)
    yield _count("spool_dropped", "Records that are lost: neither disk nor memory took them.", spool.dropped)
    yield _count(
        "spool_set_aside", "Records in quarantine: the database does not take them.", spool.set_aside
    )
    yield _count("spool_lost_bytes", "Bytes of damaged files.", spool.lost_bytes)


def _of_prompt_log(log: PromptLogState) -> Iterator[Metric]:
    yield _gauge("prompt_log_bytes", "About what waits in memory to be kept.", log.waiting_bytes)
    yield _count("prompts_kept", "Requests that were kept, encrypted, of keys that opted in.", log.kept)
    yield _count("prompts_dropped", "Requests of such keys that could not be kept.", log.dropped)


def _of_budgets(budgets: tuple[BudgetLeft, ...]) -> Iterator[Metric]:
    limit = GaugeMetricFamily("gateway_budget_tokens", "A tenant's budget.", labels=("tenant", "window"))
    left = GaugeMetricFamily(
        "gateway_budget_remaining_tokens",
        "What of it is neither spent nor reserved, by the ledger.",
        labels=("tenant", "window"),
    )
    for budget in budgets:
        limit.add_metric((budget.tenant, budget.window), budget.limit)
        left.add_metric((budget.tenant, budget.window), budget.remaining)
    yield from (limit, left)


def _count(name: str, told: str, value: float) -> CounterMetricFamily:
    return CounterMetricFamily(f"gateway_{name}", told, value=value)
