"""Spans by the OpenTelemetry SDK. Imported only where traces are wanted: see `traces.py`.

Of each request one span as a server has it, and below it one of the model call, by the conventions for
generative AI. All is made of the audit row when that is recorded, so nothing of a prompt or answer can be in
it, and nothing is done while a request runs. A caller's own trace is not taken up: its ids would be a
stranger's word. The request id is in the span, the audit log and our log.
"""

import logging
import threading
import time
from importlib import metadata
from typing import Final

from loguru import logger
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.util.types import AttributeValue

from gateway.model import AuditRow, Operation, Outcome
from gateway.sinks.traces import KindOf

# The conventions are still in motion, so their names are copied: OpenTelemetry semantic conventions 1.39,
# https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/
GEN_AI_OPERATION_NAME: Final = "gen_ai.operation.name"
GEN_AI_PROVIDER_NAME: Final = "gen_ai.provider.name"
GEN_AI_REQUEST_MODEL: Final = "gen_ai.request.model"
GEN_AI_REQUEST_STREAM: Final = "gen_ai.request.stream"
GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
GEN_AI_USAGE_INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
GEN_AI_USAGE_OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
ERROR_TYPE: Final = "error.type"
HTTP_REQUEST_METHOD: Final = "http.request.method"
HTTP_RESPONSE_STATUS_CODE: Final = "http.response.status_code"
HTTP_ROUTE: Final = "http.route"

_OPERATIONS: Final = {
    Operation.CHAT: "chat",
    Operation.CHAT_COMPLETIONS: "chat",
    Operation.MESSAGES: "chat",
    Operation.RESPONSES: "chat",
    Operation.GENERATE: "text_completion",
    Operation.COMPLETIONS: "text_completion",
    Operation.EMBED: "embeddings",
    Operation.EMBEDDINGS: "embeddings",
    Operation.LEGACY_EMBEDDINGS: "embeddings",
}
_NAMES: Final = {operation.value: name for operation, name in _OPERATIONS.items()}
_EXPORT_S: Final = 5.0
_CLOSING_S: Final = 5.0
_TELL_EVERY_S: Final = 60.0


class SpansOfRequests:
    """The adapter behind `traces.Traces`. What the collector does not take in time is dropped by the SDK."""

    is_full = False

    def __init__(self, processor: SpanProcessor, kind_of: KindOf) -> None:
        version = metadata.version("neuronetz-gateway")
        # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win over what is given here.
        known = Resource({SERVICE_NAME: "neuronetz-gateway", SERVICE_VERSION: version})
        self._provider = TracerProvider(resource=known.merge(Resource.create()), shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("neuronetz-gateway", version)
        self._kind_of = kind_of

    def record(self, row: AuditRow) -> None:
        began_ns = row.received_at_us * 1000
        ended_ns = began_ns + round(row.duration_ms * 1e6)
        server = self._tracer.start_span(
            f"{row.method} {row.operation or 'none'}",
            kind=SpanKind.SERVER,
            start_time=began_ns,
            attributes=_present(
                {
                    HTTP_REQUEST_METHOD: row.method,
                    HTTP_ROUTE: row.operation,
                    HTTP_RESPONSE_STATUS_CODE: row.status,
                    ERROR_TYPE: row.error_code,
                    "gateway.request_id": row.request_id,
                    "gateway.tenant_id": row.tenant_id,
                    "gateway.key_prefix": row.key_prefix,
                    "gateway.outcome": row.outcome,
                }
            ),
        )
        if row.status >= 500:
            server.set_status(Status(StatusCode.ERROR))
        if row.backend is not None:
            call = self._tracer.start_span(
                f"{_NAMES.get(row.operation or '', 'chat')} {row.model or ''}".strip(),
                set_span_in_context(server),
                kind=SpanKind.CLIENT,
                # The wait for a slot is ours; what is behind it is the model server's.
                start_time=began_ns + round((row.queue_ms or 0.0) * 1e6),
                attributes=self._of_call(row, row.backend),
            )
            if row.outcome == Outcome.BACKEND_FAILED:
                call.set_status(Status(StatusCode.ERROR))
            call.end(ended_ns)
        server.end(ended_ns)

    def close(self) -> None:
        """Some seconds at most: a collector that hangs keeps no gateway from ending."""
        ending = threading.Thread(target=self._provider.shutdown, daemon=True)
        ending.start()
        ending.join(_CLOSING_S)

    def _of_call(self, row: AuditRow, backend: str) -> dict[str, AttributeValue]:
        first_s = None if row.first_token_ms is None or not row.stream else row.first_token_ms / 1e3
        return _present(
            {
                GEN_AI_OPERATION_NAME: _NAMES.get(row.operation or "", "chat"),
                GEN_AI_PROVIDER_NAME: self._kind_of(backend),
                GEN_AI_REQUEST_MODEL: row.model,
                GEN_AI_REQUEST_STREAM: row.stream,
                GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK: first_s,
                GEN_AI_USAGE_INPUT_TOKENS: row.prompt_tokens,
                GEN_AI_USAGE_OUTPUT_TOKENS: row.completion_tokens,
                ERROR_TYPE: row.error_code if row.outcome == Outcome.BACKEND_FAILED else None,
                "gateway.backend": backend,
                "gateway.queue_ms": row.queue_ms,
                "gateway.tokens_estimated": row.tokens_estimated,
            }
        )


def traces_over_http(endpoint: str, kind_of: KindOf) -> SpansOfRequests:
    """To a collector. Headers, certificates and sampling are those of OpenTelemetry's own variables."""
    _tell_failures()
    exporter = OTLPSpanExporter(endpoint=f"{endpoint}/v1/traces", timeout=_EXPORT_S)
    return SpansOfRequests(BatchSpanProcessor(exporter), kind_of)


def _present(attributes: dict[str, AttributeValue | None]) -> dict[str, AttributeValue]:
    return {name: value for name, value in attributes.items() if value is not None}


class _Failures(logging.Handler):
    """The SDK's own log, as one sentence of ours, and not more often than somebody can read it."""

    _told_at = float("-inf")

    def emit(self, record: logging.LogRecord) -> None:  # noqa: ARG002 - its text may hold an address
        now = time.monotonic()
        if now - self._told_at >= _TELL_EVERY_S:
            self._told_at = now
            logger.warning("traces do not reach the collector; see OTEL_EXPORTER_OTLP_ENDPOINT")


def _tell_failures() -> None:
    theirs = logging.getLogger("opentelemetry")
    theirs.handlers = [_Failures(logging.WARNING)]
    theirs.propagate = False
