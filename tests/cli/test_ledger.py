"""What is used by the ledger: shown for a tenant and a key, and verified."""

import json
from datetime import datetime

import pytest
from attrs import evolve

from gateway.config import load
from tests.cli.conftest import NO_BOUNDS, NO_MODEL_BOUNDS, write
from tests.databases import ask
from tests.storage.samples import intent, settled

# In Berlin it is half past midnight.
NOW = datetime.fromisoformat("2026-11-23T23:30:00Z").timestamp()
IN_BERLIN = {"day": "2026-11-24", "month": "2026-11"}


def tamper(statement: str) -> None:
    ask(load().database_url, statement)


@pytest.fixture
def used(run, prefix, monkeypatch):
    """The prefix of a key of acme's, by Berlin's clock, that spent 30 tokens today and has 100 reserved.

    Another key of acme's spent 200 today, and both did yesterday.
    """
    other = run.json("create-key", "--tenant", "acme", "--name", "other")["prefix"]
    run("set-budgets", "--tenant", "acme", "--time-zone", "Europe/Berlin", "--daily-tokens", "1_000")
    ci, others = run.json("show-key", "--prefix", prefix), run.json("show-key", "--prefix", other)
    acme = run.json("show-tenant", "--name", "acme")
    of_ci = {"tenant_id": acme["id"], "key_id": ci["id"], **IN_BERLIN}
    of_other = {**of_ci, "key_id": others["id"]}
    write(
        evolve(settled("r1", tokens=30), **of_ci),
        evolve(intent("r2", reserved=100), **of_ci),
        evolve(settled("r3", tokens=200), **of_other),
        evolve(settled("r4", tokens=5), **of_ci | {"day": "2026-11-23"}),
        evolve(settled("r5", tokens=6), **of_other | {"day": "2026-11-23"}),
    )
    monkeypatch.setattr("time.time", lambda: NOW)
    return prefix


# ── show-tenant, show-key ────────────────────────────────────────────────────────────────


def test_a_tenant_is_shown_whole_to_programs(run, used):
    """What it is, what applies, and what is used in the windows of its own time zone."""
    shown = run.json("show-tenant", "--name", "ACME")
    none = {"own": None, "effective": None, "source": None}

    assert shown == {
        "id": shown["id"],
        "name": "acme",
        "created_at": shown["created_at"],
        "status": "active",
        "suspended_at": None,
        "time_zone": "Europe/Berlin",
        **NO_BOUNDS,
        **NO_MODEL_BOUNDS,
        "allow_cloud": False,
        "weight": 1,
        "audit_retention_days": None,
        "daily_tokens": 1_000,
        "keys": {"active": 2, "suspended": 0, "expired": 0, "revoked": 0},
        "limits": {"rpm": none, "tpm": none, "concurrent": none},
        "budgets": {
            "daily_tokens": {"own": 1_000, "effective": 1_000, "source": "own"},
            "monthly_tokens": none,
            "total_tokens": none,
        },
        "usage": {
            "daily_tokens": {
                "period": "2026-11-24",
                "ends_at": "2026-11-24T23:00:00Z",
                "remaining": 670,
                "tenant": {"limit": 1_000, "used": 230, "reserved": 100, "remaining": 670},
            },
            "monthly_tokens": {
                "period": "2026-11",
                "ends_at": "2026-11-30T23:00:00Z",
                "remaining": None,
                "tenant": {"limit": None, "used": 241, "reserved": 100, "remaining": None},
            },
            "total_tokens": {
                "period": "total",
                "ends_at": None,
                "remaining": None,
                "tenant": {"limit": None, "used": 241, "reserved": 100, "remaining": None},
            },
        },
    }


def test_a_key_is_shown_with_what_its_tenant_has_left(run, used):
    """What remains is the lesser of the two: the key may have more of its own than all keys together."""
    run("set-budgets", "--prefix", used, "--total-tokens", "120")

    shown = run.json("show-key", "--prefix", used)

    assert (shown["tenant"], shown["status"], shown["time_zone"]) == ("acme", "active", "Europe/Berlin")
    assert shown["usage"]["daily_tokens"] == {
        "period": "2026-11-24",
        "ends_at": "2026-11-24T23:00:00Z",
        "remaining": 670,
        "key": {"limit": 1_000, "used": 30, "reserved": 100, "remaining": 870},
        "tenant": {"limit": 1_000, "used": 230, "reserved": 100, "remaining": 670},
    }
    assert shown["usage"]["total_tokens"] == {
        "period": "total",
        "ends_at": None,
        "remaining": 0,  # overspent by what was reserved before the budget was set
        "key": {"limit": 120, "used": 35, "reserved": 100, "remaining": 0},
        "tenant": {"limit": None, "used": 241, "reserved": 100, "remaining": None},
    }


def test_a_key_is_shown_whole_to_people(run, used):
    """Who it is, what is used, what applies."""
    run("set-limits", "--tenant", "acme", "--rpm", "60")

    lines = [line.rstrip() for line in run("show-key", "--prefix", used).stdout.splitlines()]

    facts = dict(line.split(maxsplit=1) for line in lines[:5])
    assert (facts["Key"], facts["Prefix"], facts["Tenant"], facts["Status"]) == ("ci", used, "acme", "active")
    assert lines[15:] == [
        "Tokens     Of the  Limit  Used  Reserved  Left      Until",
        "per day    key     1,000  30    100       870       2026-11-24 23:00 UTC",
        "per day    tenant  1,000  230   100       670       2026-11-24 23:00 UTC",
        "per month  key     none   35    100       no limit  2026-11-30 23:00 UTC",
        "per month  tenant  none   241   100       no limit  2026-11-30 23:00 UTC",
        "in total   key     none   35    100       no limit  never",
        "in total   tenant  none   241   100       no limit  never",
        "",
        "At most                    Own   Tenant's  Applies",
        "requests per minute        none  60        60, inherited",
        "tokens per minute          none  none      no limit",
        "requests at the same time  none  none      no limit",
        "tokens per day             none  1,000     1,000, inherited",
        "tokens per month           none  none      no limit",
        "tokens in total            none  none      no limit",
    ]


def test_a_tenant_is_shown_whole_to_people(run, used):
    """With how many keys it has, and that nothing gets through where it is so."""
    run("revoke-key", "--prefix", used)
    run("set-limits", "--tenant", "acme", "--tpm", "0")

    lines = [line.rstrip() for line in run("show-tenant", "--name", "acme").stdout.splitlines()]

    assert lines[4:13] == [
        "Time zone  Europe/Berlin",
        "Weight     1",
        "Audit      rows are kept as long as all others",
        "Keys       1 active, 0 suspended, 0 expired, 1 revoked",
        "Models     all",
        "Cloud      refused",
        "",
        "Tokens     Of the  Limit  Used  Reserved  Left      Until",
        "per day    tenant  1,000  230   100       670       2026-11-24 23:00 UTC",
    ]
    assert lines[18] == "tokens per minute          0: denies all"
    assert lines[-1] == "0 denies: all requests of the tenant 'acme' to models are refused by --tpm 0."


def test_who_is_not_known_is_told(run):
    """Exit code 1, with the nearest name or where to look."""
    tenant, key = run("show-tenant", "--name", "acmee"), run("show-key", "--prefix", "nz_00000000")

    assert (tenant.exit_code, key.exit_code) == (1, 1)
    assert tenant.stderr == "Error: There is no tenant 'acmee'; did you mean 'acme'?\n"
    assert key.stderr.startswith("Error: There is no key with the prefix 'nz_00000000';")


def test_a_zone_that_this_machine_lacks_is_told(run):
    """It was known where it was set: time zones come and go with the system's updates."""
    tamper("UPDATE tenants SET time_zone = 'Europe/Atlantis'")

    refused = run("show-tenant", "--name", "acme")

    assert (refused.exit_code, refused.stdout) == (1, "")
    assert refused.stderr.startswith(
        "Error: The time zone of the tenant 'acme' is not known here. There is no time zone 'Europe/Atlantis'"
    )


# ── verify-ledger ────────────────────────────────────────────────────────────────────────


def test_a_ledger_that_adds_up_is_told(run, used):
    """Exit code 0."""
    verified = run("verify-ledger")

    assert (verified.exit_code, verified.stderr) == (0, "")
    assert verified.stdout == "All sums are what the ledger adds up to.\n"
    assert run.json("verify-ledger") == {"equal": True, "differences": [], "usage_differences": []}


def test_sums_that_are_not_the_ledgers_are_a_table_and_a_failure(run, used):
    """Exit code 1, for scripts; what to do, for people. The prefix of a key, the name of a tenant."""
    tamper("UPDATE sums SET spent = spent - 1 WHERE scope = 'tenant' AND period = 'total'")
    tamper("UPDATE sums SET reserved = 99 WHERE period = '2026-11-24' AND scope = 'key' AND reserved = 100")

    failed = run("verify-ledger")

    assert failed.exit_code == 1
    assert [line.rstrip() for line in failed.stdout.splitlines()] == [
        "Of the  Name         Period      Spent  By ledger  Reserved  By ledger",
        f"key     {used}  2026-11-24  30     30         99        100",
        "tenant  acme         total       240    241        100       100",
    ]
    assert failed.stderr.startswith("Error: 2 sums are not what the ledger adds up to. ")


def test_usage_that_is_not_the_ledgers_is_a_table_and_a_failure(run, used):
    """What `usage` shows is checked with the rest."""
    tamper("UPDATE usage_hours SET tokens = tokens + 5")

    failed, told = run("verify-ledger"), json.loads(run("verify-ledger", "--json").stdout)

    assert failed.exit_code == 1
    assert failed.stdout.splitlines()[0].split() == [
        "Usage",
        "of",
        "Key",
        "Model",
        "Backend",
        "Tokens",
        "By",
        "ledger",
    ]
    assert told["equal"] is False
    assert {one["tokens"] - one["tokens_by_ledger"] for one in told["usage_differences"]} == {5}
    assert {one["tenant"] for one in told["usage_differences"]} == {"acme"}


def test_programs_get_the_differences_and_the_exit_code(run, used):
    """An owner that is not known any more has no name."""
    acme = run.json("show-tenant", "--name", "acme")
    tamper(
        "INSERT INTO sums (tenant_id, period, scope, owner, spent, reserved) "
        f"VALUES ('{acme['id']}', 'total', 'key', 'gone', 5, 6)"
    )

    failed = run("verify-ledger", "--json")

    assert failed.exit_code == 1
    assert failed.stderr.startswith("Error: 1 sum is not what the ledger adds up to. ")
    assert json.loads(failed.stdout) == {
        "equal": False,
        "usage_differences": [],
        "differences": [
            {
                "scope": "key",
                "owner": "gone",
                "name": None,
                "period": "total",
                "spent": 5,
                "spent_by_ledger": 0,
                "reserved": 6,
                "reserved_by_ledger": 0,
            }
        ],
    }
