"""What Prometheus counts of finished requests: all from the audit row, nothing per piece of a stream.

Labels are bounded. Operations, outcomes, status classes and reasons are words of ours; tenants, keys and
models are told apart up to a number, and all others are counted together as OTHER. A name that a caller made
up never becomes a label: a model is named only where a backend has it.
"""

from collections import defaultdict
from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry

from gateway.model import AuditRow, Outcome
from gateway.sinks.families import Counts, Labels, Measured, Measures

OTHER: Final = "_other"
MAX_TENANTS: Final = 100
MAX_KEYS: Final = 100
MAX_MODELS: Final = 50

# Seconds. A refusal takes a millisecond, a long answer minutes.
_DURATIONS: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
# From a warm small model to one that is loaded first.
_FIRST_TOKENS: Final = (0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1, 2, 5, 10, 30, 60, 120, 300)
# 500 tokens a second down to less than one.
_BETWEEN_TOKENS: Final = (0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1, 5)
_STORES: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)
_LAGS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)

Observe = Callable[[float], None]


class Names(dict[str, str]):
    """Label values for ids: the first `most` are told apart, those after them are OTHER."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def __missing__(self, identity: str) -> str:
        return self.label(identity, identity)

    def label(self, identity: str, name: str | None) -> str:
        """Of one that has none yet, whose name is known apart from its id."""
        if len(self) >= self._most:
            return OTHER
        self[identity] = name or identity
        return self[identity]


class Metrics:
    """A sink. `tenant_of` tells the name of the tenant that a key's prefix belongs to, if it is known."""

    is_full = False

    def __init__(self, tenant_of: Callable[[str], str | None]) -> None:
        self._tenant_of = tenant_of
        self.registry = CollectorRegistry()
        self.tenants = Names(MAX_TENANTS)
        self._keys = Names(MAX_KEYS)
        self._models = Names(MAX_MODELS)
        count, measure = self._counters, self._histograms
        self._requests = count("requests", "Finished requests.", "operation", "status", "outcome")
        self._refusals = count("refusals", "Requests that were refused, by why.", "reason")
        self._durations = measure("request_duration", "Until the last byte.", _DURATIONS, "operation")
        self._of_tenants = count("tenant_requests", "Finished requests.", "tenant", "outcome")
        self._tenants_tokens = count("tenant_tokens", "Tokens used.", "tenant", "kind")
        self._of_keys = count("key_requests", "Finished requests.", "tenant", "key")
        self._keys_tokens = count("key_tokens", "Tokens used.", "tenant", "key")
        self._tokens = count("tokens", "Tokens used.", "model", "kind")
        self._first_tokens = measure(
            "time_to_first_token", "Of streams, from the request's head.", _FIRST_TOKENS, "model"
        )
        self._between_tokens = measure(
            "time_between_tokens", "Of each stream, the mean after its first token.", _BETWEEN_TOKENS, "model"
        )
        self._of_backends = count("backend_requests", "Requests that a backend had.", "backend", "outcome")
        self._at_backends = measure(
            "backend_request_duration", "Of requests that a backend had.", _DURATIONS, "backend"
        )
        self._waits = measure("queue_wait", "Of those that had to wait for a slot.", _DURATIONS, "backend")
        self._work = count("backend_work_seconds", "What backends say that they worked.", "backend", "phase")
        self._stores = measure("store_latency", "How long a store was used.", _STORES, "store", "use")
        self._lag = measure("event_loop_lag", "How late the event loop was.", _LAGS)

    def record(self, row: AuditRow) -> None:
        operation = row.operation or "none"
        self._requests[operation, f"{row.status // 100}xx", row.outcome] += 1
        self._durations[(operation,)].observe(row.duration_ms / 1e3)
        if row.outcome == Outcome.REFUSED and row.error_code is not None:
            self._refusals[(row.error_code,)] += 1
        if row.tenant_id is not None:
            self._record_caller(row, row.tenant_id)
        if row.backend is not None:
            self._record_answer(row, row.backend)

    def store(self, store: str, use: str) -> Observe:
        """Takes the seconds that each use of a store took."""
        return self._stores[store, use].observe

    def observe_lag(self, seconds: float) -> None:
        self._lag[()].observe(seconds)

    def _record_caller(self, row: AuditRow, tenant_id: str) -> None:
        prefix = row.key_prefix or ""
        tenant = self.tenants.get(tenant_id) or self.tenants.label(tenant_id, self._tenant_of(prefix))
        key = self._keys[prefix]
        owner = tenant if key is not OTHER else OTHER
        self._of_tenants[tenant, row.outcome] += 1
        self._of_keys[owner, key] += 1
        prompt, completion = row.prompt_tokens or 0, row.completion_tokens or 0
        if prompt > 0:
            self._tenants_tokens[tenant, "prompt"] += prompt
        if completion > 0:
            self._tenants_tokens[tenant, "completion"] += completion
        if prompt + completion > 0:
            self._keys_tokens[owner, key] += prompt + completion

    def _record_answer(self, row: AuditRow, backend: str) -> None:
        model = self._models[row.model or ""]
        self._of_backends[backend, row.outcome] += 1
        self._at_backends[(backend,)].observe(row.duration_ms / 1e3)
        if row.queue_ms is not None:
            self._waits[(backend,)].observe(row.queue_ms / 1e3)
        for phase, took_ms in (
            ("load", row.load_ms),
            ("prompt", row.prompt_ms),
            ("generation", row.generation_ms),
        ):
            if took_ms is not None and took_ms > 0:
                self._work[backend, phase] += took_ms / 1e3
        completion = row.completion_tokens or 0
        if row.prompt_tokens is not None and row.prompt_tokens > 0:
            self._tokens[model, "prompt"] += row.prompt_tokens
        if completion > 0:
            self._tokens[model, "completion"] += completion
        if row.stream and row.first_token_ms is not None:
            self._first_tokens[(model,)].observe(row.first_token_ms / 1e3)
            if completion > 1:
                streamed_ms = max(0.0, row.duration_ms - row.first_token_ms)
                self._between_tokens[(model,)].observe(streamed_ms / 1e3 / (completion - 1))

    def _counters(self, name: str, told: str, *labels: str) -> defaultdict[Labels, float]:
        family = Counts(f"gateway_{name}", told, labels)
        self.registry.register(family)
        return family.of

    def _histograms(
        self, name: str, told: str, bounds: tuple[float, ...], *labels: str
    ) -> defaultdict[Labels, Measured]:
        family = Measures(f"gateway_{name}_seconds", told, labels, bounds)
        self.registry.register(family)
        return family.of
