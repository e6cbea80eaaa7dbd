"""Traces for an OpenTelemetry collector, where one is named and the extra [otel] is installed; else nothing.

The SDK is a library of an extra: it is imported by `otlp.py`, and that only where traces are wanted.
"""

import importlib
from collections.abc import Callable
from typing import Protocol

from loguru import logger

from gateway.model import AuditRow

KindOf = Callable[[str], str]


class Traces(Protocol):
    """A sink that makes spans of finished requests."""

    def record(self, row: AuditRow) -> None: ...

    @property
    def is_full(self) -> bool: ...

    def close(self) -> None:
        """Send what is left, within some seconds. Blocks: for a thread."""


def traces_to(endpoint: str | None, kind_of: KindOf) -> Traces | None:
    """`endpoint` is the collector's root, `kind_of` tells the kind of a backend by its name."""
    if endpoint is None:
        return None
    try:
        otlp = importlib.import_module("gateway.sinks.otlp")
    except ModuleNotFoundError:
        logger.warning(
            "OTEL_EXPORTER_OTLP_ENDPOINT is set, but there will be no traces: "
            "pip install 'neuronetz-gateway[otel]'"
        )
        return None
    made: Traces = otlp.traces_over_http(endpoint, kind_of)
    return made
