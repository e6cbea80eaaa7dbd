"""The audit log verified, and kept for its time: what operators and programs are told."""

import json
from pathlib import Path

import pytest

from gateway.config import load
from tests.cli.conftest import Commands
from tests.cli.test_audit import row
from tests.cli.test_usage import record
from tests.databases import ask
from tests.storage.samples import SECRET


@pytest.fixture
def run(run: Commands, monkeypatch: pytest.MonkeyPatch) -> Commands:
    """Under the secret of the rows that tests record."""
    monkeypatch.setenv("GATEWAY_SECRET", SECRET.decode())
    return run


def tamper(statement: str) -> None:
    url = load().database_url
    ask(url, "INSERT INTO meta (name, value) VALUES ('audit_open', '1')")
    ask(url, statement)
    ask(url, "DELETE FROM meta WHERE name = 'audit_open'")


def test_a_log_that_is_what_was_written(run: Commands):
    """With how much was verified; programs get each day, and the ends of its chains."""
    record(row(1), row(2, tenant_id=None))

    assert run("verify-audit").stdout == "The audit log is what was written: 2 rows of 1 day.\n"
    told = run.json("verify-audit")
    assert told["intact"]
    assert [(day["day"], day["rows"], day["seals"], day["faults"]) for day in told["days"]] == [
        ("register", 0, 1, []),
        ("2025-11-24", 2, 2, []),
    ]
    assert [(head["day"], head["seq"]) for head in told["heads"]] == [("register", 1), ("2025-11-24", 2)]
    assert run.json("verify-audit", "--day", "2025-11-24")["days"][1]["rows"] == 2
    assert run.json("verify-audit", "--day", "2025-11-25")["days"][1]["rows"] == 0


def test_a_log_that_is_not_names_the_day_and_the_first_bad_row(run: Commands):
    """Exit code 1, on standard error in a sentence."""
    record(row(1), row(2), row(3))
    tamper("UPDATE audit SET status = 500 WHERE request_id = 'r2'")

    failed = run("verify-audit")
    programs = json.loads(run("verify-audit", "--json").stdout)

    assert failed.exit_code == 1
    assert failed.stderr == (
        "Error: The audit log is not what was written: 1 fault, the first of 2025-11-24: r2 was changed.\n"
    )
    assert failed.stdout.splitlines()[1].split() == ["2025-11-24", "3", "1", "r2", "was", "changed"]
    assert not programs["intact"]
    assert programs["days"][1]["faults"] == [{"what": "was changed", "request_id": "r2", "seal": 1}]


def test_what_was_kept_elsewhere_tells_of_an_earlier_state(run: Commands, empty: Path):
    """The whole log taken away looks like a new one, save to whoever knows where it ended."""
    record(row(1), row(2))
    (empty / "heads.json").write_text(run("verify-audit", "--json").stdout)
    assert run("verify-audit", "--against", "heads.json").exit_code == 0
    for table in ("audit", "audit_seals", "audit_heads"):
        tamper(f"DELETE FROM {table}")
    record(row(3))

    failed = run("verify-audit", "--against", "heads.json")

    assert run("verify-audit").exit_code == 0
    assert failed.exit_code == 1
    assert "in the register of days: the chain is not the one that was anchored (seal 1)" in failed.stderr


def test_a_file_that_is_no_answer_of_it_is_refused(run: Commands, empty: Path):
    (empty / "heads.json").write_text('{"heads": [1]}')

    failed = run("verify-audit", "--against", "heads.json")

    assert (failed.exit_code, failed.stdout) == (1, "")
    assert failed.stderr == "Error: heads.json is not what `verify-audit --json` printed.\n"


def test_a_tenants_rows_are_kept_for_as_long_as_is_said(run: Commands):
    """Told before and after; what is over is removed, counted, and no fault."""
    tenant = run.json("list-tenants")[0]["id"]
    record(row(1, tenant_id=tenant), row(2, tenant_id="other"))

    said = run("set-retention", "--tenant", "acme", "--days", "90")
    again = run("set-retention", "--tenant", "acme", "--days", "90")
    removed = run("apply-retention")
    none = run("apply-retention")
    back = run.json("set-retention", "--tenant", "acme", "--days", "default")

    assert said.stdout == "The audit rows of 'acme' are kept for 90 days; it was as long as all others.\n"
    assert again.stdout == "Nothing to do: the audit rows of 'acme' are kept for 90 days already.\n"
    assert removed.stdout == "Removed 1 rows.\n"
    assert none.stdout == "Nothing is over its time.\n"
    assert (back["audit_retention_days"], back["was"]) == (None, 90)
    assert [one["request_id"] for one in run.json("audit")] == ["r2"]
    told = run("verify-audit")
    assert told.exit_code == 0
    assert "1 removed, for their time was over" in told.stdout


@pytest.mark.parametrize("arguments", [["apply-retention"], ["purge-tenant", "--name", "acme", "--yes"]])
def test_under_another_secret_nothing_is_removed_or_noted(run: Commands, arguments: list[str], monkeypatch):
    """A machine without the secret makes one of its own, and its notes would look forged."""
    tenant = run.json("list-tenants")[0]["id"]
    run("verify-audit")
    record(row(1, tenant_id=tenant))
    run("set-retention", "--tenant", "acme", "--days", "90")
    monkeypatch.setenv("GATEWAY_SECRET", "0f1e2d3c4b5a69788796a5b4c3d2e1f0")

    refused = run(*arguments)

    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "were made under another secret" in refused.stderr
    assert ask(load().database_url, "SELECT * FROM audit_removals") == []
    assert len(run.json("audit")) == 1


@pytest.mark.parametrize("days", ["0", "-1", "x", "99999", "9" * 200])
def test_a_time_that_is_none_is_refused(run: Commands, days: str):
    refused = run("set-retention", "--tenant", "acme", f"--days={days}")

    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "expected days, 1 to 36525, or `default`." in refused.stderr
