"""What `top` shows: tables of what is now, and of what happened since the last look."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from gateway.ops.reading import Change

# As many as a terminal of common height has room for.
MAX_ROWS: Final = 10
_BAR: Final = 12
_WINDOWS: Final = ("day", "month", "total")


def report(change: Change) -> dict[str, Any]:
    """All that is shown, for programs: stable names, rates a second."""
    now = change.now
    return {
        "ready": bool(now.total("gateway_ready")),
        "missing": sorted(what for (what,), value in now.by("gateway_missing", "what").items() if value),
        "requests_per_s": change.rate("gateway_requests_total"),
        "refusals_per_s": change.rate("gateway_refusals_total"),
        "tokens_per_s": change.rate("gateway_tokens_total"),
        "in_flight": int(now.total("gateway_requests_in_flight")),
        "running": int(now.total("gateway_running")),
        "waiting": int(now.total("gateway_queue_length")),
        "spool_bytes": int(now.total("gateway_spool_bytes")),
        "ledger_lag_s": now.total("gateway_ledger_lag_seconds"),
        "tenants": _tenants(change),
        "keys": _keys(change),
        "streams": _streams(change),
        "backends": _backends(change),
        "budgets": _budgets(change),
    }


def _tenants(change: Change) -> list[dict[str, Any]]:
    asked = change.rates("gateway_tenant_requests_total", "tenant")
    refused = change.rates("gateway_tenant_requests_total", "tenant", outcome="refused")
    tokens = change.rates("gateway_tenant_tokens_total", "tenant")
    running = change.now.by("gateway_running", "tenant")
    rows = [
        {
            "tenant": name,
            "running": int(running.get((name,), 0)),
            "requests_per_s": asked.get((name,), 0.0),
            "refused_per_s": refused.get((name,), 0.0),
            "tokens_per_s": tokens.get((name,), 0.0),
            "requests": int(change.now.total("gateway_tenant_requests_total", tenant=name)),
            "tokens": int(change.now.total("gateway_tenant_tokens_total", tenant=name)),
        }
        for (name,) in asked.keys() | running.keys()
    ]
    return _busiest(rows, "running", "tokens_per_s", "requests_per_s", "requests")


def _keys(change: Change) -> list[dict[str, Any]]:
    asked = change.rates("gateway_key_requests_total", "tenant", "key")
    tokens = change.rates("gateway_key_tokens_total", "tenant", "key")
    running = change.now.by("gateway_running", "tenant", "key")
    rows = [
        {
            "tenant": tenant,
            "key": key,
            "running": int(running.get((tenant, key), 0)),
            "requests_per_s": asked.get((tenant, key), 0.0),
            "tokens_per_s": tokens.get((tenant, key), 0.0),
            "requests": int(change.now.total("gateway_key_requests_total", tenant=tenant, key=key)),
        }
        for tenant, key in asked.keys() | running.keys()
    ]
    return _busiest(rows, "running", "tokens_per_s", "requests_per_s", "requests")


def _streams(change: Change) -> list[dict[str, Any]]:
    running = change.now.by("gateway_running", "tenant", "key", "model")
    rows = [
        {"tenant": tenant, "key": key, "model": model, "running": int(number)}
        for (tenant, key, model), number in running.items()
    ]
    return _busiest(rows, "running")


def _backends(change: Change) -> list[dict[str, Any]]:
    now = change.now
    answers = change.rates("gateway_backend_requests_total", "backend")
    return [
        {
            "backend": name,
            "kind": kind,
            "up": bool(up),
            "models": int(now.total("gateway_backend_models", backend=name)),
            "loaded": int(now.total("gateway_backend_loaded_models", backend=name)),
            "running": int(now.total("gateway_backend_running", backend=name)),
            "slots": int(now.total("gateway_backend_slots", backend=name)) or None,
            "waiting": int(now.total("gateway_queue_length", backend=name)),
            "breaker_open": bool(now.total("gateway_backend_breaker_open", backend=name)),
            "broken_models": int(now.total("gateway_backend_broken_models", backend=name)),
            "draining": bool(now.total("gateway_backend_draining", backend=name)),
            "requests_per_s": answers.get((name,), 0.0),
        }
        for (name, kind), up in sorted(now.by("gateway_backend_up", "backend", "kind").items())
    ]


def _budgets(change: Change) -> list[dict[str, Any]]:
    left = change.now.by("gateway_budget_remaining_tokens", "tenant", "window")
    limits = change.now.by("gateway_budget_tokens", "tenant", "window")
    rows = [
        {"tenant": tenant, "window": window, "limit": int(limit), "remaining": int(left[tenant, window])}
        for (tenant, window), limit in limits.items()
        if (tenant, window) in left
    ]
    return sorted(rows, key=lambda row: (_share_left(row), row["tenant"], _WINDOWS.index(row["window"])))


def _share_left(row: dict[str, Any]) -> float:
    return float(row["remaining"]) / row["limit"] if row["limit"] else 0.0


def _busiest(rows: Iterable[dict[str, Any]], *by: str) -> list[dict[str, Any]]:
    names = ("tenant", "key", "model")
    return sorted(
        rows, key=lambda row: (*(-row[name] for name in by), *(row.get(name, "") for name in names))
    )


# ── for people ───────────────────────────────────────────────────────────────────────────


def rendered(told: dict[str, Any], where: str) -> RenderableType:
    """A screenful."""
    state = Text("ready", "green") if told["ready"] else Text("NOT READY", "bold red")
    if told["missing"]:
        state.append(f" (missing: {', '.join(told['missing'])})")
    head = Text.assemble(
        ("neuronetz-gateway ", "bold"), (f"{where}  ", "dim"), state, "\n",
        f"{told['requests_per_s']:.1f} requests/s   {told['refusals_per_s']:.1f} refused/s   "
        f"{told['tokens_per_s']:.0f} tokens/s   {told['running']} running   {told['waiting']} waiting   "
        f"spool {_short(told['spool_bytes'])}B, {told['ledger_lag_s']:.1f} s behind",
    )  # fmt: skip
    return Group(
        head,
        _table(
            ("TENANT", "RUNNING", "REQ/S", "REFUSED/S", "TOKENS/S", "REQUESTS", "TOKENS"),
            (
                (one["tenant"], one["running"], _rate(one["requests_per_s"]), _rate(one["refused_per_s"]),
                 _rate(one["tokens_per_s"]), _short(one["requests"]), _short(one["tokens"]))
                for one in told["tenants"]
            ),
        ),
        _table(
            ("KEY", "TENANT", "RUNNING", "REQ/S", "TOKENS/S", "REQUESTS"),
            (
                (one["key"], one["tenant"], one["running"], _rate(one["requests_per_s"]),
                 _rate(one["tokens_per_s"]), _short(one["requests"]))
                for one in told["keys"]
            ),
        ),
        _table(
            ("STREAMS OF", "KEY", "MODEL", "RUNNING"),
            ((one["tenant"], one["key"], one["model"], one["running"]) for one in told["streams"]),
        ),
        _table(
            ("BACKEND", "STATE", "MODELS", "LOADED", "RUNNING", "SLOTS", "QUEUE", "REQ/S"),
            (
                (one["backend"], _state(one), one["models"], one["loaded"], one["running"],
                 one["slots"] or "-", one["waiting"], _rate(one["requests_per_s"]))
                for one in told["backends"]
            ),
        ),
        _table(
            ("BUDGET OF", "WINDOW", "LEFT", "TOKENS LEFT", "OF"),
            (
                (one["tenant"], one["window"], _bar(_share_left(one)), _short(one["remaining"]),
                 _short(one["limit"]))
                for one in told["budgets"]
            ),
        ),
    )  # fmt: skip


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold reverse", expand=True)
    for column in columns:
        table.add_column(column, no_wrap=True, overflow="ellipsis", ratio=2 if column == columns[0] else 1)
    shown = list(rows)
    for row in shown[:MAX_ROWS]:
        # Text, not str: a name is no markup.
        table.add_row(*(cell if isinstance(cell, Text) else Text(str(cell)) for cell in row))
    if len(shown) > MAX_ROWS:
        table.add_row(Text(f"… and {len(shown) - MAX_ROWS} more", "dim"))
    return table


def _state(backend: dict[str, Any]) -> Text:
    if not backend["up"]:
        return Text("DOWN", "bold red")
    if backend["breaker_open"] or backend["broken_models"]:
        return Text("broken", "red")
    return Text("draining", "yellow") if backend["draining"] else Text("up", "green")


def _bar(share: float) -> Text:
    full = round(_BAR * min(1.0, share))
    colour = "green" if share > 0.25 else "yellow" if share > 0.1 else "red"
    return Text.assemble(("█" * full, colour), ("░" * (_BAR - full), "dim"), f" {share:.0%}")


def _rate(value: float) -> str:
    return f"{value:.1f}" if value < 1000 else _short(value)


def _short(value: float) -> str:
    """4 digits at most: 950, 12.3k, 4.5M."""
    for unit in ("", "k", "M", "G"):
        if abs(value) < 1000:
            return f"{value:.0f}{unit}" if not unit or value >= 100 else f"{value:.1f}{unit}"
        value /= 1000
    return f"{value:.0f}T"
