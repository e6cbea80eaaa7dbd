"""The ops app: metrics and probes, and nothing else."""

import pytest
from attrs import define, field
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from gateway.accounting import Window
from gateway.model import BackendState
from gateway.ops.app import build
from gateway.ops.budgets import BudgetLeft
from gateway.ops.gauges import PromptLogState, Running, SpoolState
from gateway.proxy.station import StationState
from gateway.rules.breaker import BreakerState
from gateway.server.lifecycle import Lifecycle
from tests.asgi import Answered, call


@define
class Lacking:
    what: list[str] = field(factory=list)

    def missing(self) -> list[str]:
        return self.what

    def backends_lacking(self) -> dict[str, list[str]]:
        return {"gpu": ["reach"]} if self.what else {}


@define
class FakeStanding:
    lifecycle: Lifecycle = field(factory=lambda: Lifecycle(in_flight=3))
    readiness: Lacking = field(factory=Lacking)

    def backends(self) -> list[BackendState]:
        return [BackendState("gpu", "ollama", is_up=True, models=4, loaded=1)]

    def stations(self) -> list[StationState]:
        broken = BreakerState.HALF_OPEN
        return [StationState("gpu", 4, 1, False, running=2, waiting=5, breaker=broken, broken_models=("m",))]

    def spool(self) -> SpoolState:
        return SpoolState(1000, 2, 10_000, 0.5, 0.01, is_full=False, dropped=0, set_aside=1, lost_bytes=0)

    def prompt_log(self) -> PromptLogState:
        return PromptLogState(waiting_bytes=7, kept=5, dropped=1)

    def running(self) -> list[Running]:
        return [Running("acme", "nz_abc12345", "llama3")] * 2

    def settling(self) -> int:
        return 1

    async def budgets(self) -> list[BudgetLeft]:
        return [BudgetLeft("acme", Window.DAY, 100, 40)]


@pytest.fixture
def standing() -> FakeStanding:
    return FakeStanding()


@pytest.fixture
def app(standing: FakeStanding):
    return build(CollectorRegistry(), standing, "0.0.0.0")


def samples_of(answered: Answered) -> dict[str, float]:
    """By name with labels, as they are written."""
    families = text_string_to_metric_families(answered.body.decode())
    return {
        sample.name + str(sorted(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


async def test_metrics_are_read_at_the_scrape(app, standing: FakeStanding):
    standing.readiness.what = ["redis"]
    samples = samples_of(await call(app, target="/metrics"))

    assert samples["gateway_ready[]"] == 0
    assert samples["gateway_missing[('what', 'redis')]"] == 1
    assert samples["gateway_requests_in_flight[]"] == 3
    assert samples["gateway_backend_up[('backend', 'gpu'), ('kind', 'ollama')]"] == 1
    gpu = "[('backend', 'gpu')]"
    assert (samples[f"gateway_backend_running{gpu}"], samples[f"gateway_backend_slots{gpu}"]) == (2, 4)
    assert samples[f"gateway_queue_length{gpu}"] == 5
    assert samples[f"gateway_backend_breaker_open{gpu}"] == 1
    assert samples[f"gateway_backend_broken_models{gpu}"] == 1
    assert samples["gateway_ledger_lag_seconds[]"] == 0.5
    assert samples["gateway_spool_set_aside_total[]"] == 1
    running = "gateway_running[('key', 'nz_abc12345'), ('model', 'llama3'), ('tenant', 'acme')]"
    assert samples[running] == 2
    left = "gateway_budget_remaining_tokens[('tenant', 'acme'), ('window', 'day')]"
    assert samples[left] == 40

    standing.readiness.what = []
    assert samples_of(await call(app, target="/metrics"))["gateway_ready[]"] == 1


async def test_openmetrics_is_written_for_who_asks_for_it(app):
    headers = [(b"accept", b"application/openmetrics-text; version=1.0.0")]

    answered = await call(app, target="/metrics", headers=headers)

    assert answered.headers["content-type"].startswith("application/openmetrics-text")
    assert answered.body.endswith(b"# EOF\n")


@pytest.mark.parametrize(
    ("bind", "host", "status"),
    [
        ("127.0.0.1", b"127.0.0.1:9090", 200),
        ("127.0.0.1", b"localhost:9090", 200),
        ("127.0.0.1", b"LOCALHOST.", 200),
        ("::1", b"[::1]:9090", 200),
        ("::1", b"[::1]", 200),
        ("127.0.0.1", b"evil.example:9090", 421),
        ("127.0.0.1", b"127.0.0.1.evil.example", 421),
        ("127.0.0.1", b"localhost.evil.example:9090", 421),
        ("127.0.0.1", b"", 421),
        ("localhost", b"10.0.0.1:9090", 421),
        ("0.0.0.0", b"gateway.internal:9090", 200),
    ],
)
async def test_a_web_page_that_names_itself_so_reads_nothing(standing, bind, host, status):
    """DNS rebinding: its own name points at the loopback. Where others ask, they have names for it."""
    app = build(CollectorRegistry(), standing, bind)

    for target in ("/metrics", "/healthz"):
        answered = await call(app, target=target, headers=[(b"host", host)])
        assert answered.status == status
        assert (b"gateway_ready" in answered.body) == (status == 200 and target == "/metrics")


async def test_probes_say_what_is_missing(app, standing: FakeStanding):
    health = await call(app, target="/healthz")
    ready = await call(app, target="/readyz")
    standing.readiness.what = ["starting"]
    starting = await call(app, target="/readyz")

    assert (health.status, health.json()) == (200, {"status": "ok"})
    assert (ready.status, ready.json()) == (200, {"status": "ok"})
    assert starting.status == 503
    assert starting.json() == {
        "status": "unavailable",
        "missing": ["starting"],
        "backends": {"gpu": ["reach"]},
    }


@pytest.mark.parametrize("target", ["/", "/metrics/", "/v1/models", "/docs"])
async def test_nothing_else_is_here(app, target: str):
    assert (await call(app, target=target)).status == 404


async def test_nothing_is_changed_here(app):
    assert (await call(app, "POST", "/metrics")).status == 405
