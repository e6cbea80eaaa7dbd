"""What was used, for people, spreadsheets and programs: by whom, of what, when."""

import asyncio
import csv
import io
from datetime import UTC, datetime

import pytest
from attrs import evolve

from gateway.accounting import LedgerEntry
from gateway.cli.output import bar, harmless, sparkline
from gateway.config import load
from gateway.model import AuditRow
from gateway.storage.audit import AuditLog
from gateway.storage.engines import database_at
from tests.cli.conftest import write
from tests.storage.samples import CHAIN, audit_row, settled

# 23:30 in UTC, and so the next day in Berlin.
AT = datetime(2026, 11, 23, 23, 30, tzinfo=UTC).timestamp()
SINCE = ("--since", "2026-11-20", "--until", "2026-11-28")


def record(*rows: AuditRow) -> None:
    async def recorded() -> None:
        async with database_at(load().database_url, connections=1) as database:
            await AuditLog(database, CHAIN).write(rows)

    asyncio.run(recorded())


@pytest.fixture
def used(run, prefix):
    """Two requests of acme's, of two models, an hour apart; one refusal, and one that nobody made."""
    run("set-budgets", "--tenant", "acme", "--time-zone", "Europe/Berlin", "--total-tokens", "1_000")
    tenant = run.json("list-tenants")[0]["id"]
    key = run.json("show-key", "--prefix", prefix)["account_id"]
    who = {"tenant_id": tenant, "key_id": key}
    entries: list[LedgerEntry] = [
        evolve(settled("r1", tokens=30), **who, model="a", backend="gpu1", admitted_at=AT),
        evolve(settled("r2", tokens=60), **who, model="b", backend="gpu2", admitted_at=AT + 3600),
    ]
    write(*entries)
    at = round(AT * 1e6)
    record(
        audit_row(1, **who, model="a", received_at_us=at, load_ms=800),
        audit_row(2, **who, model="b", backend="gpu2", received_at_us=at + 3_600_000_000),
        audit_row(3, **who, model="b", backend=None, received_at_us=at, status=429, outcome="refused"),
        audit_row(
            4, tenant_id=None, key_id=None, model=None, backend=None, received_at_us=at, status=401,
            outcome="refused",
        ),
    )  # fmt: skip
    return prefix


def test_programs_are_told_every_number_by_its_name(run, used):
    """One list of objects; what nobody with a key did has no tenant."""
    acme, nobody = run.json("usage", *SINCE)

    budgets = acme.pop("budgets")
    assert acme == {
        "tenant": "acme",
        "tenant_id": acme["tenant_id"],
        "requests": 3,
        "served": 2,
        "client_left": 0,
        "backend_failed": 0,
        "cut": 0,
        "refused_auth": 0,
        "refused_forbidden": 0,
        "refused_invalid": 0,
        "refused_limit": 1,
        "refused_budget": 0,
        "refused_unavailable": 0,
        "refused": 1,
        "tokens": 90,
        "prompt_tokens": 20,
        "completion_tokens": 40,
        "gpu_load_s": 0.8,
        "gpu_prompt_s": 0.006,
        "gpu_generation_s": 0.01,
        "gpu_s": 0.816,
        "model_loads": 1,
    }
    assert budgets["total_tokens"]["tenant"] == {"limit": 1_000, "used": 90, "reserved": 0, "remaining": 910}
    assert (nobody["tenant"], nobody["tenant_id"], nobody["refused_auth"]) == (None, None, 1)


@pytest.mark.parametrize(
    ("by", "shown"),
    [
        (["model"], [{"model": "b"}, {"model": "a"}, {"model": None}]),
        (["backend"], [{"backend": "gpu2"}, {"backend": "gpu1"}, {"backend": None}]),
        (["day"], [{"day": "2026-11-23"}, {"day": "2026-11-24"}]),
    ],
)
def test_usage_is_told_by_what_was_asked_for(run, used, by, shown):
    """The most first; by time from the earliest. Of nobody the day is that of UTC."""
    told = run.json("usage", *SINCE, *(word for name in by for word in ("--by", name)))

    assert [{name: line[name] for name in by} for line in told] == shown


def test_a_date_begins_in_the_time_zone_of_the_tenant_that_is_asked_for(run, used):
    """Of Berlin its 24th begins at 23:00 in UTC; without a tenant, dates are of UTC."""
    day = ("--since", "2026-11-24", "--until", "2026-11-25")
    (of_acme,) = run.json("usage", *day, "--tenant", "acme")
    (of_all,) = run.json("usage", *day)
    said = run.json("usage", "--since", "2026-11-24T00:00Z", "--until", "2026-11-25", "--tenant", "acme")

    assert (of_acme["tokens"], of_all["tokens"], said[0]["tokens"]) == (90, 60, 60)
    assert len(run.json("audit", *day, "--tenant", "acme")) == 3
    assert len(run.json("audit", *day)) == 1


def test_what_is_not_before_what_is_judged_in_the_zone_of_the_tenant(run, used, monkeypatch):
    """A day that began in Berlin has begun, though not in UTC; what is inverted there is refused."""
    began = datetime(2026, 11, 27, 23, 30, tzinfo=UTC).timestamp()
    monkeypatch.setattr("gateway.cli.usage.time.time", lambda: began)

    today = run("usage", "--since", "2026-11-28", "--tenant", "acme")
    inverted = run("usage", "--since", "2026-11-27T23:30Z", "--until", "2026-11-28", "--tenant", "acme")

    assert (today.exit_code, today.stdout) == (0, "Nothing was used.\n")
    assert inverted.exit_code == 2
    assert "--since is not before --until." in inverted.stderr


def test_days_and_hours_are_those_of_the_tenants_zone(run, used):
    """Half past eleven at night in UTC is the next day in Berlin."""
    days = run.json("usage", *SINCE, "--tenant", "acme", "--by", "day", "--by", "model")
    hours = run.json("usage", *SINCE, "--tenant", "acme", "--by", "hour")

    assert [(line["day"], line["model"], line["tokens"]) for line in days] == [
        ("2026-11-24", "b", 60),
        ("2026-11-24", "a", 30),
    ]
    assert [(line["hour"], line["requests"]) for line in hours] == [
        ("2026-11-24T00:00+01:00", 2),
        ("2026-11-24T01:00+01:00", 1),
    ]


def test_a_key_has_its_name_and_both_ends_of_a_rotation_are_one(run, used):
    """What the old key used is its successor's: the line has the latest prefix."""
    new = run.json("rotate-key", "--prefix", used)["prefix"]

    by_key = run.json("usage", *SINCE, "--by", "key", "--prefix", used)

    assert [(line["tenant"], line["key"], line["prefix"], line["tokens"]) for line in by_key] == [
        ("acme", "ci", new, 90)
    ]
    assert run.json("usage", *SINCE, "--by", "key", "--prefix", new) == by_key


@pytest.mark.parametrize(
    ("filters", "tokens"),
    [
        (["--model", "a"], [30]),
        (["--backend", "gpu2"], [60]),
        (["--model", "c"], []),
        (["--tenant", "acme", "--model", "b"], [60]),
    ],
)
def test_filters_leave_what_was_asked_for(run, used, filters, tokens):
    assert [line["tokens"] for line in run.json("usage", *SINCE, *filters)] == tokens


def test_an_hour_that_is_cut_counts_whole(run, used):
    """Usage knows hours, not minutes."""
    told = run.json(
        "usage", "--since", "2026-11-23T23:45Z", "--until", "2026-11-23T23:50Z", "--tenant", "acme"
    )

    assert [line["tokens"] for line in told] == [30]


def test_people_get_a_table_with_bars_and_a_total(run, used):
    lines = run("usage", *SINCE, "--by", "model").stdout.splitlines()

    assert lines[0].split() == [
        *("Model", "Requests", "Refused", "Failed", "Prompt", "Output", "Tokens", "GPU", "s", "Loads"),
        *("Over", "time"),
    ]
    assert lines[1].split()[:8] == ["b", "2", "1", "0", "10", "20", "60", "█" * 12]
    assert lines[2].split()[:8] == ["a", "1", "0", "0", "10", "20", "30", "█" * 6]
    assert lines[-1].split()[:7] == ["Total", "4", "2", "0", "20", "40", "90"]


def test_budgets_are_told_by_how_much_of_them_is_used(run, used):
    """The one of which the least is left, of the tenant or the key."""
    run("set-budgets", "--prefix", used, "--total-tokens", "100")

    assert run("usage", *SINCE, "--tenant", "acme").stdout.splitlines()[1].endswith("total █░░░░░░░ 9%")
    by_key = run("usage", *SINCE, "--by", "key", "--tenant", "acme").stdout.splitlines()
    assert by_key[1].endswith("total ███████░ 90%")
    assert by_key[1].startswith(f"acme/ci ({used})")


def test_spreadsheets_get_csv_that_runs_no_formula(run, prefix):
    """A model's name is whatever a backend says it is."""
    evil = '=HYPERLINK("http://x")'
    write(evolve(settled("r1", tokens=30), model=evil, admitted_at=AT))

    rows = list(csv.DictReader(io.StringIO(run("usage", *SINCE, "--by", "model", "--csv").stdout)))

    assert [(row["model"], row["tokens"]) for row in rows] == [(f"'{evil}", "30")]


def test_nothing_used_is_told(run):
    """To programs by an empty list, to spreadsheets by a head alone."""
    assert run("usage").stdout == "Nothing was used.\n"
    assert run.json("usage") == []
    assert run("usage", "--by", "model", "--csv").stdout.startswith("model,requests,served,")


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["--csv", "--json"], 2, "Either --csv or --json."),
        (["--since", "2026-11-02", "--until", "2026-11-01"], 2, "--since is not before --until."),
        (["--since", "yesterday"], 2, "'yesterday' is no time"),
        (["--by", "colour"], 2, "'colour' is not one of"),
        (["--tenant", "acmee"], 1, "There is no tenant 'acmee'; did you mean 'acme'?"),
        (["--prefix", "nz_00000000"], 1, "There is no key with the prefix 'nz_00000000'"),
    ],
)
def test_mistakes_are_sentences(run, arguments, code, sentence):
    failed = run("usage", *arguments)

    assert (failed.exit_code, failed.stdout) == (code, "")
    assert sentence in failed.stderr


def test_a_deleted_tenant_is_shown_by_its_id(run, used):
    """What it used stays; its name is gone."""
    deleted = run.json("delete-tenant", "--name", "acme", "--yes")["id"]

    assert [line["tokens"] for line in run.json("usage", *SINCE, "--tenant", deleted)] == [90]
    assert run("usage", *SINCE, "--tenant", deleted).stdout.splitlines()[1].startswith(deleted)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("=1+1", "'=1+1"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@A1", "'@A1"),
        ("\t=1", "'\t=1"),
        ("a=1", "a=1"),
        (-1, -1),
    ],
)
def test_what_a_spreadsheet_would_run_is_text(text, kept):
    """OWASP: an apostrophe before it; numbers stay numbers."""
    assert harmless(text) == kept


def test_bars_and_lines_show_what_is_there_at_all():
    """One in a million is not nothing."""
    assert (bar(1, 10**6), bar(0, 5), bar(5, 5), bar(0, 0)) == ("█", "", "█" * 12, "")
    assert sparkline([0, 1, 500, 1000, 0, 0]) == " ▁▄█"
    assert sparkline([0, 0]) == ""
