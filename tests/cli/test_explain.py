"""What would become of a request: by the ledger, by Redis, and by both."""

import shlex
from datetime import datetime
from typing import Any

import pytest
from attrs import evolve

from gateway.accounting import LedgerEntry
from tests.cli.conftest import Commands, write
from tests.gateways import SECRET
from tests.servers import RedisServer
from tests.storage.samples import intent, settled

NOW = datetime.fromisoformat("2026-11-23T15:00:00Z").timestamp()
TODAY = {"day": "2026-11-23", "month": "2026-11"}
MIDNIGHT = "2026-11-24T00:00:00Z"


@pytest.fixture
def made(run: Commands, prefix: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The key of acme's, as show-key has it, which spent 700 tokens today and has 100 reserved."""
    shown: dict[str, Any] = run.json("show-key", "--prefix", prefix)
    tenant = run.json("show-tenant", "--name", "acme")
    monkeypatch.setattr("time.time", lambda: NOW)
    write(*entries(tenant["id"], shown["id"]))
    return shown


def entries(tenant_id: str, key_id: str) -> tuple[LedgerEntry, LedgerEntry]:
    owners: dict[str, Any] = {"tenant_id": tenant_id, "key_id": key_id, **TODAY}
    return (
        evolve(settled("r1", tokens=700), **owners),
        evolve(intent("r2", reserved=100), **owners),
    )


def explained(run: Commands, made: dict[str, Any], *arguments: str) -> Any:
    return run.json("explain-key", "--prefix", made["prefix"], *arguments)


def bound(found: Any, name: str, scope: str = "key") -> Any:
    (one,) = [each for each in found["bounds"] if (each["bound"], each["scope"]) == (name, scope)]
    return one


# ── by the ledger ────────────────────────────────────────────────────────────────────────


def test_a_key_without_bounds_is_let_in(run, made):
    """What was used is told all the same."""
    found = explained(run, made, "--prompt-tokens", "1_000", "--max-tokens", "50")

    assert (found["admitted"], found["refusal"], found["next_bound"], found["unknown"]) == (
        True,
        None,
        None,
        [],
    )
    assert found["request"] == {"prompt_tokens": 1000, "max_tokens": 50}
    assert found["grant"] == {"tokens": 1050, "max_tokens": 50, "clamped_by": None}
    assert (found["counted_by"], found["agrees"], found["as_of"]) == ("ledger", None, "2026-11-23T15:00:00Z")
    assert bound(found, "daily_tokens", "tenant") == {
        "scope": "tenant",
        "bound": "daily_tokens",
        "limit": None,
        "used": 700,
        "reserved": 100,
        "remaining": None,
        "resets_at": MIDNIGHT,
        "ledger": {"used": 700, "reserved": 100},
    }


@pytest.mark.parametrize(
    ("change", "holder", "refusal"),
    [
        ("set-limits --rpm 0", "--prefix", {"scope": "key", "bound": "rpm", "limit": 0, "retry_at": None}),
        ("set-limits --tpm 0", "--tenant", {"scope": "tenant", "bound": "tpm", "limit": 0, "retry_at": None}),
        (
            "set-limits --concurrent 1",
            "--tenant",
            {"scope": "tenant", "bound": "concurrent", "used": 1, "retry_at": "2026-11-23T15:00:01Z"},
        ),
        (
            "set-budgets --daily-tokens 800",
            "--prefix",
            {"scope": "key", "bound": "daily_tokens", "used": 700, "reserved": 100, "retry_at": MIDNIGHT},
        ),
        (
            "set-budgets --monthly-tokens 900",
            "--tenant",
            {"scope": "key", "bound": "monthly_tokens", "remaining": 100, "retry_at": "2026-12-01T00:00:00Z"},
        ),
        (
            "set-budgets --total-tokens 1_000",
            "--prefix",
            {"scope": "key", "bound": "total_tokens", "remaining": 200, "resets_at": None},
        ),
    ],
    ids=["rpm", "tpm", "concurrent", "day", "month", "total"],
)
def test_what_refuses_is_told_with_its_numbers_and_what_to_do(run, made, change, holder, refusal):
    """The command that it names is taken as it stands, and then the request is let in."""
    run(*change.split(), holder, made["prefix"] if holder == "--prefix" else "acme")

    found = explained(run, made)

    assert (found["admitted"], found["grant"], found["next_bound"]) == (False, None, None)
    assert refusal.items() <= found["refusal"].items()
    assert (found["refusal"]["status"], found["refusal"]["reason"]) == (429, refusal["bound"])
    _, command, _ = found["refusal"]["advice"].split("`")
    assert holder in command
    assert run(*shlex.split(command.replace(" N", " 1_000_000"))[1:]).exit_code == 0
    assert explained(run, made)["admitted"] in (True, None)


def test_the_callers_sentence_is_the_one_of_admission(run, made):
    run("set-budgets", "--prefix", made["prefix"], "--daily-tokens", "800")

    refusal = explained(run, made)["refusal"]

    assert refusal["message"] == (
        "The key 'ci' may use 800 tokens per day: 700 are used, 100 are held by requests that run, and this "
        "one may need 288; come back at 2026-11-24T00:00:00Z, or ask the operator of this gateway for more."
    )
    assert (refusal["code"], refusal["retry_after_s"]) == ("insufficient_quota", 9 * 60 * 60)


def test_a_prompt_that_never_fits_is_told(run, made):
    run("set-budgets", "--tenant", "acme", "--daily-tokens", "5_000")

    refusal = explained(run, made, "--prompt-tokens", "6_000")["refusal"]

    assert (refusal["status"], refusal["code"], refusal["retry_at"]) == (400, "request_too_expensive", None)
    assert refusal["advice"].endswith("allows more; else its prompt must be shorter.")


@pytest.mark.parametrize(("ended", "cause"), [("revoked", "was revoked on"), ("expired", "expired on")])
def test_a_key_that_ended_is_refused_whatever_its_budgets_are(run, made, monkeypatch, ended, cause):
    """Before any limit is asked: all wrong keys look alike to callers, not to operators."""
    run("set-limits", "--tenant", "acme", "--rpm", "0")
    if ended == "revoked":
        run("revoke-key", "--prefix", made["prefix"])
    else:
        made = run.json("create-key", "--tenant", "acme", "--name", "short", "--expires", "365d")
        monkeypatch.setattr("time.time", lambda: NOW + 800 * 24 * 60 * 60)

    found = explained(run, made)

    refusal = found["refusal"]
    assert (found["status"], refusal["reason"], refusal["bound"]) == (ended, ended, None)
    assert (refusal["status"], refusal["code"], refusal["limit"]) == (401, "invalid_api_key", None)
    assert refusal["advice"].startswith("`neuronetz-gateway create-key --tenant acme --name NAME`")
    assert cause in run("explain-key", "--prefix", made["prefix"]).stdout


def test_what_is_left_clamps_the_output(run, made):
    """By what, to how much, and what refuses next: here the day of the key, which 400 tokens are left of."""
    run("set-budgets", "--prefix", made["prefix"], "--daily-tokens", "1_200", "--monthly-tokens", "3_000")

    found = explained(run, made)

    day = {"scope": "key", "bound": "daily_tokens"}
    assert found["grant"] == {"tokens": 400, "max_tokens": 128, "clamped_by": day}
    assert found["next_bound"] == {**day, "requests": 1}
    assert explained(run, made, "--max-tokens", "28")["next_bound"] == {**day, "requests": 1}
    assert explained(run, made, "--prompt-tokens", "10", "--max-tokens", "30")["next_bound"]["requests"] == 10


def test_without_redis_nobody_here_knows_of_minutes(run, made):
    """So it is not guessed: neither the numbers, nor that it is let in."""
    run("set-limits", "--prefix", made["prefix"], "--rpm", "60", "--tpm", "10_000")

    found = explained(run, made)
    told = run("explain-key", "--prefix", made["prefix"]).stdout

    unknown = dict.fromkeys(("used", "reserved", "remaining", "resets_at", "ledger"))
    assert (found["admitted"], found["unknown"]) == (None, ["rpm", "tpm"])
    assert bound(found, "rpm") == {"scope": "key", "bound": "rpm", "limit": 60, **unknown}
    assert (
        "requests per minute and tokens per minute are used up: only the running gateway knows, "
        "GET /v1/usage tells\n"
    ) in told


def test_a_refusal_is_told_to_people(run, made):
    """What is asked, what the caller is told, what to do, and where everything stands."""
    run("set-budgets", "--prefix", made["prefix"], "--daily-tokens", "800")

    shown = run("explain-key", "--prefix", made["prefix"])

    assert (shown.exit_code, shown.stderr) == (0, "")
    lines = [line.rstrip() for line in shown.stdout.splitlines()]
    assert lines[:3] == [
        f"Key      'ci' ({made['prefix']}) of the tenant 'acme'",
        "Request  272 tokens for its prompt, 4,096 for its output",
        "Now      refused: 429 insufficient_quota, by tokens per day of the key",
    ]
    assert lines[3].startswith("Told     The key 'ci' may use 800 tokens per day: 700 are used, ")
    assert lines[4] == (
        f"To do    `neuronetz-gateway set-budgets --prefix {made['prefix']} --daily-tokens N` allows more; "
        "else it may fit at 2026-11-24T00:00:00Z."
    )
    assert lines[6:9] == [
        "At most           Of the  Limit  Used  Reserved  Left      Whole at",
        "tokens per day    key     800    700   100       0         2026-11-24 00:00 UTC",
        "tokens per day    tenant  none   700   100       no limit  2026-11-24 00:00 UTC",
    ]
    assert lines[-1] == "By the ledger, which running gateways write to moments after the fact."


def test_a_grant_is_told_to_people(run, made):
    run("set-budgets", "--tenant", "acme", "--total-tokens", "2_000")

    lines = run("explain-key", "--prefix", made["prefix"], "--max-tokens", "28").stdout.splitlines()

    assert lines[2:4] == [
        "Now      let in, with 28 tokens of output",
        "Next     tokens in total of the key: room for 4 such requests at once",
    ]


# ── by Redis ─────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def counted(shared: RedisServer, run: Commands, prefix: str) -> dict[str, Any]:
    """A key that spent 700 tokens and has 100 reserved, by ledger and Redis; its total is 2,000."""
    shown: dict[str, Any] = run.json("show-key", "--prefix", prefix)
    tenant = run.json("show-tenant", "--name", "acme")
    write(*entries(tenant["id"], shown["id"]))
    run("set-budgets", "--prefix", prefix, "--total-tokens", "2_000")
    run("rebuild-counters", "--tenant", "acme")
    return {**shown, "tenant_id": tenant["id"]}


def test_redis_and_the_ledger_tell_the_same(run, counted):
    found = explained(run, counted)
    told = run("explain-key", "--prefix", counted["prefix"]).stdout

    total = bound(found, "total_tokens")
    assert (found["admitted"], found["counted_by"], found["agrees"]) == (True, "redis", True)
    assert (total["used"], total["reserved"], total["ledger"]) == (700, 100, {"used": 700, "reserved": 100})
    assert "Limit  Used  By ledger  Reserved  By ledger  Left" in told
    assert told.endswith("Counted by Redis; the ledger tells the same.\n")


def test_what_redis_counts_decides_and_differences_are_told(run, counted, shared):
    """Admission asks Redis; the ledger is beside it."""
    account = f"total:key:{counted['id']}"
    shared.ask("HSET", f"{{t:{counted['tenant_id']}}}:sums", account, "total 0 1900 100")

    found = explained(run, counted)
    told = run("explain-key", "--prefix", counted["prefix"]).stdout

    total = bound(found, "total_tokens")
    assert (found["admitted"], found["refusal"]["bound"], found["agrees"]) == (False, "total_tokens", False)
    assert (total["used"], total["ledger"]) == (1900, {"used": 700, "reserved": 100})
    assert told.endswith("if it stays so, run `neuronetz-gateway rebuild-counters --tenant acme`.\n")


def test_minutes_are_told_by_when_they_are_whole_again(run, counted, shared):
    """Places come back at any time."""
    run("set-limits", "--prefix", counted["prefix"], "--rpm", "2", "--tpm", "1_000", "--concurrent", "3")
    # One request short of full, as of a time that has not come.
    shared.ask("HSET", f"{{t:{counted['tenant_id']}}}:sums", f"rate:key:{counted['id']}", f"1 {10**16} 2")

    shown = run("explain-key", "--prefix", counted["prefix"]).stdout

    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert "requests per minute key 2 1 0 1 in 30s" in lines
    assert "tokens per minute key 1,000 0 0 1,000 now" in lines
    assert "requests at the same time key 3 1 1 0 0 2 at any time" in lines


def test_a_tenant_that_redis_does_not_know_is_told_by_the_ledger(run, counted, shared):
    """As its next request will find it; nothing is restored by looking."""
    run("set-limits", "--tenant", "acme", "--rpm", "60")
    shared.ask("FLUSHALL")

    found = explained(run, counted)

    assert (found["admitted"], found["counted_by"], found["agrees"]) == (True, "ledger", None)
    assert (bound(found, "total_tokens")["used"], bound(found, "rpm", "tenant")["used"]) == (700, 0)
    assert shared.ask("DBSIZE") == b":0"


def test_a_redis_that_does_not_answer_is_a_sentence(run, made, monkeypatch):
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1")
    monkeypatch.setenv("GATEWAY_SECRET", SECRET)

    failed = run("explain-key", "--prefix", made["prefix"])

    assert (failed.exit_code, failed.stdout) == (1, "")
    assert failed.stderr.endswith("Error: Redis does not answer at 127.0.0.1:1: see REDIS_URL.\n")


def test_who_is_not_known_is_told(run):
    failed = run("explain-key", "--prefix", "nz_00000000")

    assert (failed.exit_code, failed.stdout) == (1, "")
    assert failed.stderr.startswith("Error: There is no key with the prefix 'nz_00000000';")
