"""What Prometheus is told of finished requests, under labels whose number is bounded."""

from typing import Any

from attrs import evolve
from prometheus_client import generate_latest

from gateway.errors import RateLimited
from gateway.model import AuditRow, Operation, Timings, Usage
from gateway.rules.audit import row_of
from gateway.sinks.metrics import MAX_KEYS, MAX_MODELS, MAX_TENANTS, OTHER, Metrics
from tests.asgi import PRINCIPAL, exchange

NAMES = {"nz_abc12345": "acme"}


def served(**changes: Any) -> AuditRow:
    """A stream of 11 tokens to a prompt of 7: the first after 0.5 s, the last after 1.5 s."""
    one = exchange(
        status=200,
        started=100.0,
        first_token=100.5,
        operation=Operation.CHAT,
        principal=PRINCIPAL,
        model="llama3:latest",
        backend="gpu",
        stream=True,
        usage=Usage(7, 11),
        timings=Timings(load_ns=2_000_000_000, prompt_ns=None, generation_ns=1_000_000_000),
    )
    return evolve(row_of(one, ended=101.5), **changes)


def counted(*rows: AuditRow) -> Metrics:
    metrics = Metrics(NAMES.get)
    for row in rows:
        metrics.record(row)
    return metrics


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"gateway_{name}", labels)


def test_a_served_stream_is_counted_under_each_of_its_names():
    """By operation, tenant, key, model and backend."""
    metrics = counted(served())

    assert value(metrics, "requests_total", operation="chat", status="2xx", outcome="served") == 1
    assert value(metrics, "tenant_requests_total", tenant="acme", outcome="served") == 1
    assert value(metrics, "key_requests_total", tenant="acme", key="nz_abc12345") == 1
    assert value(metrics, "key_tokens_total", tenant="acme", key="nz_abc12345") == 18
    assert value(metrics, "tenant_tokens_total", tenant="acme", kind="prompt") == 7
    assert value(metrics, "tokens_total", model="llama3:latest", kind="completion") == 11
    assert value(metrics, "backend_requests_total", backend="gpu", outcome="served") == 1
    assert value(metrics, "backend_work_seconds_total", backend="gpu", phase="load") == 2
    assert value(metrics, "backend_work_seconds_total", backend="gpu", phase="prompt") is None


def test_latencies_are_seconds():
    """Of a stream also until its first token, and between the ten that follow it."""
    metrics = counted(served())

    assert value(metrics, "request_duration_seconds_sum", operation="chat") == 1.5
    assert value(metrics, "time_to_first_token_seconds_sum", model="llama3:latest") == 0.5
    assert value(metrics, "time_between_tokens_seconds_sum", model="llama3:latest") == 0.1
    assert value(metrics, "backend_request_duration_seconds_count", backend="gpu") == 1


def test_a_wait_for_a_slot_is_told_of_those_who_waited():
    metrics = counted(served(), served(queue_ms=2500.0))

    assert value(metrics, "queue_wait_seconds_count", backend="gpu") == 1
    assert value(metrics, "queue_wait_seconds_sum", backend="gpu") == 2.5


def test_a_plain_answer_has_no_first_token_that_anybody_saw():
    metrics = counted(served(stream=False))

    assert value(metrics, "time_to_first_token_seconds_count", model="llama3:latest") is None


def test_a_refusal_is_counted_by_its_reason():
    error = RateLimited("Too many.", retry_after_s=1)
    metrics = counted(
        row_of(exchange(status=429, error=error, principal=PRINCIPAL, operation=Operation.CHAT), 101.0)
    )

    assert value(metrics, "refusals_total", reason="rate_limit_exceeded") == 1
    assert value(metrics, "tenant_requests_total", tenant="acme", outcome="refused") == 1


def test_a_caller_that_is_not_known_makes_no_label():
    """Neither by a path, nor by a model that no backend has."""
    metrics = counted(row_of(exchange(status=401, path="/canary", model="canary"), 101.0))

    assert b"canary" not in generate_latest(metrics.registry)
    assert value(metrics, "requests_total", operation="none", status="4xx", outcome="served") == 1


def test_labels_are_bounded():
    """Whoever comes after the first hundred is counted with all others; those who have a name keep it."""
    many = [
        served(tenant_id=f"t{n}", key_prefix=f"nz_{n:08}", model=f"m{n}")
        for n in range(max(MAX_TENANTS, MAX_KEYS, MAX_MODELS) + 10)
    ]
    metrics = counted(*many, many[0])

    assert value(metrics, "tenant_requests_total", tenant="t0", outcome="served") == 2
    assert value(metrics, "tenant_requests_total", tenant=OTHER, outcome="served") == 10
    assert value(metrics, "key_requests_total", tenant=OTHER, key=OTHER) == 10
    assert value(metrics, "tokens_total", model=OTHER, kind="prompt") == 7 * 60


def test_what_a_mad_backend_counts_stops_nothing():
    """A sink never raises: 10^30 tokens are told, fewer than none are not."""
    metrics = counted(served(prompt_tokens=10**30, completion_tokens=-5, duration_ms=0.0))

    assert value(metrics, "tokens_total", model="llama3:latest", kind="prompt") == 1e30
    assert value(metrics, "tokens_total", model="llama3:latest", kind="completion") is None
