"""Spans of finished requests, with the names of the conventions and nothing of the payload."""

import importlib
import logging

import pytest
from loguru import logger
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from gateway.model import AuditRow
from gateway.sinks import otlp
from gateway.sinks.otlp import SpansOfRequests
from gateway.sinks.traces import traces_to
from tests.sinks.test_metrics import served


def spans_of(*rows: AuditRow) -> tuple[ReadableSpan, ...]:
    exporter = InMemorySpanExporter()
    sink = SpansOfRequests(SimpleSpanProcessor(exporter), lambda _: "ollama")
    for row in rows:
        sink.record(row)
    sink.close()
    return exporter.get_finished_spans()


def test_a_served_stream_is_a_span_of_the_server_and_one_of_the_model_call():
    """With the times of the request, however much later it is recorded."""
    call, server = spans_of(served())

    assert (server.name, server.kind) == ("POST chat", SpanKind.SERVER)
    assert (call.name, call.kind) == ("chat llama3:latest", SpanKind.CLIENT)
    assert call.parent is not None
    assert call.parent.span_id == server.context.span_id
    assert server.start_time == 1_800_000_000_000_000_000
    assert server.end_time == server.start_time + 1_500_000_000
    assert dict(call.attributes or {}) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "ollama",
        "gen_ai.request.model": "llama3:latest",
        "gen_ai.request.stream": True,
        "gen_ai.response.time_to_first_chunk": 0.5,
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.output_tokens": 11,
        "gateway.backend": "gpu",
        "gateway.tokens_estimated": False,
    }
    assert dict(server.attributes or {}) == {
        "http.request.method": "POST",
        "http.route": "chat",
        "http.response.status_code": 200,
        "gateway.request_id": "r1",
        "gateway.tenant_id": "t1",
        "gateway.key_prefix": "nz_abc12345",
        "gateway.outcome": "served",
    }


def test_a_wait_for_a_slot_is_before_the_model_call():
    call, server = spans_of(served(queue_ms=500.0))

    assert call.start_time is not None
    assert server.start_time is not None
    assert call.start_time - server.start_time == 500_000_000
    assert call.end_time == server.end_time


def test_what_no_backend_had_is_one_span():
    (server,) = spans_of(
        served(backend=None, model="canary", status=429, error_code="rate_limit_exceeded", outcome="refused")
    )

    assert server.attributes is not None
    assert server.attributes["error.type"] == "rate_limit_exceeded"
    assert server.status.status_code is StatusCode.UNSET
    assert "canary" not in server.to_json()


def test_a_backend_that_broke_is_an_error_of_both():
    call, server = spans_of(served(status=502, error_code="backend_failed", outcome="backend_failed"))

    assert call.status.status_code is server.status.status_code is StatusCode.ERROR


@pytest.mark.parametrize("name", sorted(name for name in vars(otlp) if name.startswith("GEN_AI_")))
def test_names_are_those_of_the_conventions(name: str):
    """Copied, because the module that has them is not meant to be imported by others than tests."""
    theirs = importlib.import_module("opentelemetry.semconv._incubating.attributes.gen_ai_attributes")

    assert getattr(otlp, name) == getattr(theirs, name)


def test_without_a_collector_there_is_nothing():
    """Not even the library is imported."""
    assert traces_to(None, str) is None


def test_a_missing_extra_is_told_and_is_no_reason_not_to_serve(monkeypatch: pytest.MonkeyPatch):
    told: list[str] = []
    sink = logger.add(told.append, format="{message}")

    def missing(_: str) -> None:
        raise ModuleNotFoundError

    monkeypatch.setattr(importlib, "import_module", missing)
    try:
        assert traces_to("http://127.0.0.1:4318", str) is None
    finally:
        logger.remove(sink)
    assert "neuronetz-gateway[otel]" in told[0]


def test_the_librarys_own_words_are_one_sentence_of_ours():
    """They may hold addresses, and come many times a second."""
    told: list[str] = []
    sink = logger.add(told.append, format="{message}")
    otlp._tell_failures()
    try:
        for _ in range(3):
            logging.getLogger("opentelemetry.sdk").error("http://user:canary@collector broke")
    finally:
        logger.remove(sink)
        logging.getLogger("opentelemetry").handlers = []

    assert told == ["traces do not reach the collector; see OTEL_EXPORTER_OTLP_ENDPOINT\n"]
