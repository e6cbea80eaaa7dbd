"""Usage: what a finished request, and what it has cost, add to the hour that they count in."""

import math
from datetime import datetime, tzinfo
from functools import lru_cache
from typing import Final, NamedTuple

from gateway.accounting import Evidence, LedgerEntry
from gateway.errors import InsufficientQuota
from gateway.model import AuditRow, Outcome

HOUR_S: Final = 3_600
# Zones change their offset on a full minute.
_STEADY_S: Final = 60
# Ollama tells some milliseconds also of a model that is loaded.
_LOAD_MS: Final = 500.0
# More than a century in microseconds: what a mad backend says is brought into range.
_MAX_US: Final = 10**16
# Outcomes that no request has before its model was found. Audit rows of processes that died are cut.
_FOUND: Final = frozenset({Outcome.SERVED.value, Outcome.CUT.value})

REFUSALS: Final = (
    "refused_auth",
    "refused_forbidden",
    "refused_invalid",
    "refused_limit",
    "refused_budget",
    "refused_unavailable",
)
OUTCOMES: Final = ("served", "client_left", "backend_failed", "cut", *REFUSALS)
"""Of each request one: together they are `requests`."""
TOKENS: Final = ("tokens", "prompt_tokens", "completion_tokens")
DURATIONS: Final = ("load_us", "prompt_us", "generation_us")
COUNTS: Final = ("requests", *OUTCOMES, *TOKENS, *DURATIONS, "model_loads")
"""All that is counted, by the names of its columns."""


class Bucket(NamedTuple):
    """Whose usage of what, in one hour. `hour` is seconds since the epoch; "" is what is not known."""

    hour: int
    tenant_id: str
    key_id: str
    model: str
    backend: str


def hour_of(moment: float, zone: tzinfo) -> int:
    """When the hour of a zone began that a moment is in. What no calendar has counts in the hour 0."""
    try:
        shift_s = _shift_s(math.floor(moment / _STEADY_S), zone)
    except (ValueError, OverflowError, OSError):
        return 0
    return math.floor((moment + shift_s) / HOUR_S) * HOUR_S - shift_s


# A batch is of one moment, or of a few.
@lru_cache(maxsize=1024)
def _shift_s(minute: int, zone: tzinfo) -> int:
    """By how much the hours of a zone begin before ours, in a minute since the epoch."""
    offset = datetime.fromtimestamp(minute * _STEADY_S, zone).utcoffset()
    return 0 if offset is None else int(offset.total_seconds()) % HOUR_S


def bucket_of_row(row: AuditRow, zone: tzinfo) -> Bucket:
    return Bucket(
        hour_of(row.received_at_us / 1e6, zone),
        row.tenant_id or "",
        row.key_id or "",
        (row.model or "") if _was_found(row) else "",
        row.backend or "",
    )


def _was_found(row: AuditRow) -> bool:
    """Whether a backend had the model. Else its name may be the caller's own invention, which makes no rows.

    What is served, sent to a backend, over a limit, or cut after it was admitted was looked up before.
    """
    return row.backend is not None or row.outcome in _FOUND or row.status == InsufficientQuota.status


def counts_of_row(row: AuditRow) -> dict[str, int]:
    """One request, how it ended, and how long its backend worked. Its tokens are the ledger's to tell."""
    counts = {"requests": 1, outcome_of(row): 1}
    if row.load_ms is not None:
        counts["load_us"] = _us(row.load_ms)
        counts["model_loads"] = int(row.load_ms >= _LOAD_MS)
    if row.prompt_ms is not None:
        counts["prompt_us"] = _us(row.prompt_ms)
    if row.generation_ms is not None:
        counts["generation_us"] = _us(row.generation_ms)
    return counts


def outcome_of(row: AuditRow) -> str:
    """Which of OUTCOMES it is: a refusal by its reason."""
    if row.outcome != Outcome.REFUSED:
        return row.outcome
    match row.status:
        case 401:
            return "refused_auth"
        case 403:
            return "refused_forbidden"
        case 429:
            return "refused_budget" if row.error_code == InsufficientQuota.code else "refused_limit"
    return "refused_invalid" if row.status < 500 else "refused_unavailable"


def bucket_of_entry(entry: LedgerEntry, hour: int) -> Bucket:
    return Bucket(hour, entry.tenant_id, entry.key_id, entry.model, entry.backend)


def counts_of_entry(entry: LedgerEntry) -> dict[str, int]:
    """What it costs for all that is known; of a request that runs, nothing yet."""
    if entry.evidence is Evidence.INTENT:
        return {}
    values = entry.tokens, entry.prompt_tokens, entry.completion_tokens
    return dict(zip(TOKENS, values, strict=True))


def _us(milliseconds: float) -> int:
    if not math.isfinite(milliseconds):
        return 0
    return max(0, min(round(milliseconds * 1e3), _MAX_US))
