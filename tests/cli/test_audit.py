"""The audit log for people and programs: shown, followed, exported, and rid of what is personal."""

import csv
import importlib
import io
import json
import os
import signal
import stat
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import audit_export
from gateway.cli.audit import received
from gateway.config import load
from gateway.storage import audit_reading
from tests.cli.test_usage import record
from tests.databases import ask
from tests.engines import wait_until
from tests.storage.samples import audit_row

AT = 1_764_000_000_000_000  # 2025-11-24T16:00:00Z


def row(number: int, **changes: Any) -> Any:
    return audit_row(number, **{"received_at_us": AT + number * 1_000_000, **changes})


@pytest.fixture
def tenant(run) -> str:
    found: str = run.json("list-tenants")[0]["id"]
    return found


@pytest.fixture
def recorded(run, tenant) -> None:
    """Four requests: of acme served and refused; of nobody; and one that a backend broke."""
    record(
        row(1, tenant_id=tenant),
        row(2, tenant_id=tenant, status=429, outcome="refused", error_code="rate_limit_exceeded", model="b"),
        row(3, tenant_id=None, key_id=None, key_prefix=None, model=None, status=401, outcome="refused"),
        row(4, tenant_id="other", key_prefix="nz_other123", status=502, outcome="backend_failed"),
    )


# ── audit ────────────────────────────────────────────────────────────────────────────────


def test_programs_get_rows_whole_the_last_one_last(run, tenant, recorded):
    """Every field by its name; the time as ISO 8601, and the tenant by its name, too."""
    rows = run.json("audit")

    assert [one["request_id"] for one in rows] == ["r1", "r2", "r3", "r4"]
    assert rows[0] == {
        "request_id": "r1",
        "received_at": "2025-11-24T16:00:01.000000Z",
        "tenant": "acme",
        "tenant_id": tenant,
        "key_id": "k1",
        "key_prefix": "nz_abc12345",
        "peer": "192.0.2.7",
        "client_request_id": None,
        "user_agent": "curl/8",
        "method": "POST",
        "path": "/api/chat",
        "operation": "chat",
        "surface": "ollama",
        "model": "llama3",
        "backend": "gpu1",
        "stream": True,
        "status": 200,
        "outcome": "served",
        "error_code": None,
        "prompt_tokens": 12,
        "completion_tokens": 34,
        "tokens_estimated": False,
        "first_token_ms": 1.5,
        "queue_ms": 0.5,
        "load_ms": None,
        "prompt_ms": 2.0,
        "generation_ms": 3.25,
        "duration_ms": 9.75,
        "bytes_in": 100,
        "bytes_out": 2000,
    }


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        (["--tenant", "acme"], ["r1", "r2"]),
        (["--tenant", "acme", "--status", "4xx"], ["r2"]),
        (["--status", "4xx"], ["r2", "r3"]),
        (["--status", "502"], ["r4"]),
        (["--outcome", "served"], ["r1"]),
        (["--model", "b"], ["r2"]),
        (["--prefix", "nz_other123"], ["r4"]),
        (["--request", "r3"], ["r3"]),
        (["--since", "2025-11-24T16:00:02", "--until", "2025-11-24T16:00:04"], ["r2", "r3"]),
        (["--limit", "2"], ["r3", "r4"]),
        (["--request", "r9"], []),
    ],
)
def test_filters_leave_what_was_asked_for(run, recorded, filters, found):
    assert [one["request_id"] for one in run.json("audit", *filters)] == found


def test_people_get_a_line_for_each(run, recorded):
    """A refusal by its reason; what is not known is a dash."""
    lines = run("audit").stdout.splitlines()

    assert lines[1].split() == [
        *("2025-11-24", "16:00:01.000", "acme", "nz_abc12345", "192.0.2.7", "POST", "/api/chat", "llama3"),
        *("200", "served", "46", "10"),
    ]
    assert "429     rate_limit_exceeded" in lines[2]
    assert lines[3].split()[2:4] == ["–", "–"]
    assert run("audit", "--request", "r9").stdout == "There are no such requests.\n"


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["audit", "--status", "600"], 2, "'600' is no status such as 200 or 429"),
        (["audit", "--status", "4x"], 2, "'4x' is no status"),
        (["audit", "--follow", "--until", "1h"], 2, "--follow has no end"),
        (["audit", "--tenant", "acmee"], 1, "did you mean 'acme'?"),
        (["export-audit", "--format", "parquet"], 2, "Parquet is no text"),
        (["export-audit", "--json"], 2, "--json tells of a file"),
        (["export-audit", "--output", "no/such/folder/a.jsonl"], 1, "can't be written: No such file"),
        (["purge-tenant", "--name", "acme", "--json"], 2, "--json asks nothing"),
        (["purge-tenant", "--name", "acmee", "--yes"], 1, "did you mean 'acme'?"),
    ],
)
def test_mistakes_are_sentences(run, arguments, code, sentence):
    failed = run(*arguments)

    assert (failed.exit_code, failed.stdout) == (code, "")
    assert sentence in failed.stderr


def test_who_follows_sees_each_row_once_when_it_came_in(run, tenant, recorded, empty):
    """Also one that was received long before, as of a long stream; and interrupted, it is done."""
    file = empty / "followed"
    with file.open("w") as out:
        following = subprocess.Popen(
            [sys.executable, "-m", "gateway", "audit", "--follow", "--json", "--limit", "1"],
            stdout=out,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )

    def shown() -> list[str]:
        return [json.loads(line)["request_id"] for line in file.read_text().splitlines()]

    try:
        assert wait_until(lambda: "r4" in shown(), 60)
        record(row(9, tenant_id=tenant))
        record(row(-5_000, tenant_id=tenant, request_id="late"))
        assert wait_until(lambda: {"r9", "late"} <= set(shown()), 60)
    finally:
        following.send_signal(signal.SIGINT)
        _, errors = following.communicate(timeout=60)
    assert (following.returncode, errors) == (0, b"")
    assert len(shown()) == len(set(shown()))
    assert shown()[0] == "r4"


def test_a_pipe_that_closes_is_no_traceback(run, tenant):
    """`audit | head -1`: the reader has what it wanted."""
    record(*(row(number, tenant_id=tenant) for number in range(3_000)))

    with subprocess.Popen(
        [sys.executable, "-m", "gateway", "export-audit"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as piped:
        assert piped.stdout is not None
        assert piped.stderr is not None
        piped.stdout.readline()
        piped.stdout.close()
        errors = piped.stderr.read()

    assert piped.returncode == 1
    assert b"Traceback" not in errors
    assert b"defect" not in errors


# ── export-audit ─────────────────────────────────────────────────────────────────────────


def test_json_lines_are_all_rows_in_their_order(run, recorded, monkeypatch):
    """Page by page, with none twice and none left out, also where times are the same."""
    record(*(row(50, request_id=f"s{number}") for number in range(7)))
    monkeypatch.setattr(audit_reading.AuditReading.pages, "__defaults__", (2,))

    lines = [json.loads(line) for line in run("export-audit").stdout.splitlines()]

    assert [one["request_id"] for one in lines] == ["r1", "r2", "r3", "r4", *(f"s{n}" for n in range(7))]
    assert lines[0] == run.json("audit", "--request", "r1")[0]


def test_csv_runs_no_formula(run, tenant):
    """A caller's user agent is whatever it says."""
    record(row(1, tenant_id=tenant, user_agent="=cmd|' /C calc'!A0", client_request_id="-1"))

    (one,) = csv.DictReader(io.StringIO(run("export-audit", "--format", "csv").stdout))

    assert (one["user_agent"], one["client_request_id"]) == ("'=cmd|' /C calc'!A0", "'-1")
    assert (one["tenant"], one["status"], one["received_at"]) == (
        "acme",
        "200",
        "2025-11-24T16:00:01.000000Z",
    )


def test_parquet_has_types(run, recorded, empty):
    """Numbers are numbers, times are times in UTC, and what is not known is null."""
    parquet = importlib.import_module("pyarrow.parquet")

    told = run.json("export-audit", "--format", "parquet", "--output", "rows.parquet")

    table = parquet.read_table(empty / "rows.parquet")
    assert told == {"rows": 4, "format": "parquet", "output": "rows.parquet"}
    assert str(table.schema.field("received_at").type) == "timestamp[us, tz=UTC]"
    assert str(table.schema.field("stream").type) == "bool"
    assert table.column("request_id").to_pylist() == ["r1", "r2", "r3", "r4"]
    assert table.column("model").to_pylist() == ["llama3", "b", None, "llama3"]
    assert table.column("prompt_tokens").to_pylist() == [12] * 4


def test_parquet_without_pyarrow_says_what_to_install(run, recorded, monkeypatch, empty):
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)

    failed = run("export-audit", "--format", "parquet", "--output", "rows.parquet")

    assert (failed.exit_code, failed.stdout) == (1, "")
    assert "pip install 'neuronetz-gateway[parquet]'" in failed.stderr
    assert not (empty / "rows.parquet").exists()


def test_a_file_is_there_when_all_is_written_and_its_owners_alone(run, recorded, empty, monkeypatch):
    """An export that fails leaves what was there before, and nothing beside it."""
    told = run("export-audit", "--output", "rows.jsonl")
    before = (empty / "rows.jsonl").read_text()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(audit_export._JsonLines, "write", fail)
    failed = run("export-audit", "--output", "rows.jsonl")

    assert told.stdout == "Wrote 4 rows to rows.jsonl.\n"
    assert stat.S_IMODE((empty / "rows.jsonl").stat().st_mode) == 0o600
    assert (failed.exit_code, failed.stderr) == (
        1,
        "Error: rows.jsonl can't be written: No space left on device.\n",
    )
    assert (empty / "rows.jsonl").read_text() == before
    assert [file.name for file in Path(empty).iterdir() if file.name.startswith(".rows")] == []


def test_memory_does_not_grow_with_what_is_exported(unmigrated):
    """Ten times the rows, about the same peak: a page of them."""
    unmigrated("migrate")
    peaks: list[int] = []
    for rows in (2_000, 18_000):
        start = len(peaks) * 10_000
        record(*(row(start + number, request_id=f"m{start + number}") for number in range(rows)))
        tracemalloc.start()
        unmigrated("export-audit", "--output", "rows.jsonl")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()

    assert peaks[1] < 2 * peaks[0]


# ── purge-tenant ─────────────────────────────────────────────────────────────────────────


def test_what_is_personal_of_a_tenant_is_removed_and_told(run, tenant, recorded):
    """Of its rows and of nobody else's; what it used stays."""
    ask(
        load().database_url,
        "INSERT INTO quarantine (digest, kind, record, reason, kept_at) VALUES (:d, 'audit', :r, 'x', 1)",
        d=b"1",
        r=f'["audit", {{"tenant_id": "{tenant}"}}]'.encode(),
    )
    before = run.json("usage", "--since", "2025-11-01", "--until", "2025-12-01", "--by", "model")

    purged = run.json("purge-tenant", "--name", "acme", "--yes")
    again = run.json("purge-tenant", "--name", "acme", "--yes")

    assert purged == {
        "tenant": "acme",
        "tenant_id": tenant,
        "rows": 2,
        "addresses": 2,
        "user_agents": 2,
        "client_request_ids": 0,
        "quarantined": 1,
        "prompts": 0,
    }
    assert (again["addresses"], again["user_agents"], again["quarantined"]) == (0, 0, 0)
    rows = run.json("audit")
    assert [(one["peer"], one["user_agent"]) for one in rows] == [("", None)] * 2 + [
        ("192.0.2.7", "curl/8")
    ] * 2
    assert [one["prompt_tokens"] for one in rows] == [12] * 4
    assert run.json("usage", "--since", "2025-11-01", "--until", "2025-12-01", "--by", "model") == before
    noted = run.json("list-actions", "--tenant", "acme")
    assert [one["action"] for one in noted] == ["create_tenant", "purge_tenant", "purge_tenant"]
    assert noted[1]["changes"]["user_agents"] == {"before": 2, "after": 0}


def test_purging_asks_first_and_says_what_it_removed(run, recorded):
    asked = run("purge-tenant", "--name", "acme")
    kept = run.json("audit")[0]["peer"]
    told = run("purge-tenant", "--name", "acme", "--yes")

    assert asked.exit_code == 1
    assert (
        "Remove from the rows of the tenant 'acme': 2 addresses, 2 user agents, 0 request ids" in asked.stdout
    )
    assert kept == "192.0.2.7"
    assert told.stdout.startswith(
        "Removed from 2 rows of the tenant 'acme':\n  2 addresses\n  2 user agents\n"
    )


def test_a_deleted_tenant_is_purged_by_its_id(run, tenant, recorded):
    run("delete-tenant", "--name", "acme", "--yes")

    told = run("purge-tenant", "--name", tenant, "--yes")

    assert told.stdout.startswith(f"Removed from 2 rows of the deleted tenant {tenant}:")
    assert ask(load().database_url, "SELECT count(*) AS n FROM audit WHERE peer = ''") == [{"n": 2}]


def test_a_time_that_no_calendar_has_is_a_number():
    """A row of a mad clock must not hide the others."""
    assert received(AT + 1) == "2025-11-24T16:00:00.000001Z"
    assert received(2**62) == f"{2**62} µs"
