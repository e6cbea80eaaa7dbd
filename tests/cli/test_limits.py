"""Commands for limits and budgets: only what is given changes, and what applies is told."""

import json
import subprocess
import sys

import pytest

from gateway.accounting import Policy
from gateway.config import load
from gateway.state.hasher import Hasher
from gateway.state.key_cache import VerifiedKeys
from gateway.state.secret import load_secret
from gateway.storage.engines import database_at
from gateway.storage.keys import Keys
from tests.cli.conftest import NO_BOUNDS
from tests.state.doubles import SetClock

ALL_SIX = (
    *("--rpm", "60", "--tpm", "10_000", "--concurrent", "4"),
    *("--daily-tokens", "1_000", "--monthly-tokens", "20_000", "--total-tokens", "300_000"),
)
SIX = {
    "rpm": 60,
    "tpm": 10_000,
    "concurrent": 4,
    "daily_tokens": 1_000,
    "monthly_tokens": 20_000,
    "total_tokens": 300_000,
}


def own(shown: dict[str, object]) -> dict[str, object]:
    """The bounds of its own that a command tells programs."""
    return {field: shown[field] for field in SIX}


def written(bound: int | None) -> str:
    return "none" if bound is None else str(bound)


# ── made with a policy ───────────────────────────────────────────────────────────────────


def test_a_tenant_is_made_with_its_policy(run):
    """All six, and where its days begin; programs see them in the list too."""
    made = run.json("create-tenant", "--name", "other", *ALL_SIX, "--time-zone", "Europe/Berlin")

    assert (own(made), made["time_zone"]) == (SIX, "Europe/Berlin")
    assert run.json("list-tenants")[1] == made


def test_a_key_is_made_with_its_policy(run):
    """Its own; the tenant's is its tenant's."""
    made = run.json("create-key", "--tenant", "acme", "--name", "a", *ALL_SIX)

    assert own(made) == own(run.json("list-keys")[0]) == SIX
    assert own(run.json("list-tenants")[0]) == NO_BOUNDS


def test_what_is_made_unable_to_do_anything_is_told_so(run):
    """A 0 that was meant as "no limit" is noticed at once; also one that is inherited."""
    tenant = run("create-tenant", "--name", "closed", "--rpm", "0").stdout
    key = run("create-key", "--tenant", "closed", "--name", "a", "--total-tokens", "0").stdout

    assert tenant.endswith(
        "\n0 denies: all requests of the tenant 'closed' to models are refused by --rpm 0.\n"
    )
    assert key.endswith("to models are refused by --rpm 0 (inherited), --total-tokens 0.\n")


# ── changed ──────────────────────────────────────────────────────────────────────────────


def test_only_what_is_given_changes(run):
    """The others stay as they were; `none` removes."""
    run("create-tenant", "--name", "other", *ALL_SIX)

    limits = run.json("set-limits", "--tenant", "other", "--rpm", "30", "--tpm", "none")
    budgets = run.json("set-budgets", "--tenant", "other", "--daily-tokens", "none", "--total-tokens", "9")

    assert limits["changed"] == {"rpm": {"before": 60, "after": 30}, "tpm": {"before": 10_000, "after": None}}
    assert own(budgets) == {**SIX, "rpm": 30, "tpm": None, "daily_tokens": None, "total_tokens": 9}


def test_a_changed_tenant_is_told_to_people(run):
    """What changed, with what was before; then what applies."""
    run("set-limits", "--tenant", "acme", "--rpm", "60")

    shown = run("set-limits", "--tenant", "ACME", "--rpm", "none", "--tpm", "1_000_000")

    assert (shown.exit_code, shown.stderr) == (0, "")
    assert [line.rstrip() for line in shown.stdout.splitlines()] == [
        "Changed the tenant 'acme'. Running gateways apply it within one second.",
        "  requests per minute: none, was 60",
        "  tokens per minute: 1,000,000, was none",
        "",
        "At most                    Applies",
        "requests per minute        no limit",
        "tokens per minute          1,000,000",
        "requests at the same time  no limit",
    ]


def test_a_changed_key_is_told_with_what_it_inherits(run, prefix):
    """Its own, the tenant's, and which of them applies: both do, so the smaller one."""
    run("set-budgets", "--tenant", "acme", "--daily-tokens", "500", "--total-tokens", "5_000")

    shown = run("set-budgets", "--prefix", prefix, "--daily-tokens", "900", "--monthly-tokens", "70")

    assert [line.rstrip() for line in shown.stdout.splitlines()] == [
        f"Changed the key 'ci' ({prefix}) of the tenant 'acme'. Running gateways apply it within one second.",
        "  tokens per day: 900, was none",
        "  tokens per month: 70, was none",
        "",
        "At most           Own   Tenant's  Applies",
        "tokens per day    900   500       500, the tenant's",
        "tokens per month  70    none      70, its own",
        "tokens in total   none  5,000     5,000, inherited",
    ]


@pytest.mark.parametrize(
    ("of_key", "of_tenant", "applying"),
    [
        (None, None, (None, None)),
        (None, 60, (60, "inherited")),
        (30, None, (30, "own")),
        (30, 60, (30, "own")),
        (60, 60, (60, "own")),
        (90, 60, (60, "tenant")),
        (90, 0, (0, "tenant")),
        (0, 60, (0, "own")),
    ],
)
def test_the_smaller_of_key_and_tenant_applies(run, prefix, of_key, of_tenant, applying):
    """And whose it is; a key without its own has its tenant's."""
    run("set-limits", "--tenant", "acme", "--rpm", written(of_tenant))

    rpm = run.json("set-limits", "--prefix", prefix, "--rpm", written(of_key))["limits"]["rpm"]

    effective, source = applying
    assert rpm == {"own": of_key, "tenant": of_tenant, "effective": effective, "source": source}


def test_0_is_told_to_deny_whatever_was_changed(run, prefix):
    """A limit that denies is told by set-budgets too: the key does not work."""
    run("set-limits", "--prefix", prefix, "--concurrent", "0")

    shown = run("set-budgets", "--prefix", prefix, "--daily-tokens", "0").stdout

    assert "tokens per day    0     none      0, its own: denies all\n" in shown
    assert shown.endswith(
        f"\n0 denies: all requests of the key 'ci' ({prefix}) of the tenant 'acme' to models are refused by "
        "--concurrent 0, --daily-tokens 0.\n"
    )


def test_the_same_again_is_nothing_to_do(run, prefix):
    """No failure, and told."""
    run("set-limits", "--prefix", prefix, "--rpm", "60")

    again = run("set-limits", "--prefix", prefix, "--rpm", "60")

    assert again.exit_code == 0
    assert again.stdout.startswith(
        f"Nothing to do: the key 'ci' ({prefix}) of the tenant 'acme' has these values already.\n"
    )
    assert run.json("set-limits", "--prefix", prefix, "--rpm", "60")["changed"] == {}


def test_a_tenants_days_begin_in_another_zone(run):
    """Alone or with budgets."""
    shown = run("set-budgets", "--tenant", "acme", "--time-zone", "Europe/Berlin").stdout
    told = run.json("set-budgets", "--tenant", "acme", "--time-zone", "Asia/Tokyo", "--daily-tokens", "5")

    assert "  time zone: Europe/Berlin, was UTC\n" in shown
    assert "Days and months begin in the time zone Europe/Berlin.\n" in shown
    assert told["changed"] == {
        "time_zone": {"before": "Europe/Berlin", "after": "Asia/Tokyo"},
        "daily_tokens": {"before": None, "after": 5},
    }


def test_a_tenants_weight_is_changed(run):
    """Alone or with limits."""
    shown = run("set-limits", "--tenant", "acme", "--weight", "3").stdout
    told = run.json("set-limits", "--tenant", "acme", "--weight", "5", "--rpm", "7")

    assert "  weight in queues: 3, was 1\n" in shown
    assert told["changed"] == {
        "weight": {"before": 3, "after": 5},
        "rpm": {"before": None, "after": 7},
    }
    assert run.json("show-tenant", "--name", "acme")["weight"] == 5


# ── refused ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["set-limits", "--rpm", "1"], "Whose? Give either --tenant or --prefix."),
        (
            ["set-limits", "--tenant", "acme", "--prefix", "nz_abc12345", "--rpm", "1"],
            "Whose? Give either --tenant or --prefix.",
        ),
        (
            ["set-limits", "--tenant", "acme"],
            "Nothing to change: give at least one of --rpm, --tpm, --concurrent, --weight.",
        ),
        (
            ["set-limits", "--prefix", "nz_abc12345", "--weight", "2"],
            "The keys of a tenant share its weight: give --weight with --tenant.",
        ),
        (
            ["set-limits", "--tenant", "acme", "--weight", "0"],
            "Invalid value for '--weight': 0 is not in the range 1<=x<=1000.",
        ),
        (
            ["set-budgets", "--prefix", "nz_abc12345"],
            "Nothing to change: give at least one of --daily-tokens, --monthly-tokens, --total-tokens, "
            "--time-zone.",
        ),
        (
            ["set-budgets", "--prefix", "nz_abc12345", "--time-zone", "UTC"],
            "A key has the time zone of its tenant: give --time-zone with --tenant.",
        ),
        (
            ["set-limits", "--tenant", "acme", "--rpm", "10k"],
            "Invalid value for '--rpm': expected a whole number from 0 to 9_007_199_254_740_991, such as "
            "60 or 1_000_000, or `none`.",
        ),
        (
            ["set-limits", "--tenant", "acme", "--rpm", "-1"],
            "Invalid value for '--rpm': expected a whole number from 0 to 9_007_199_254_740_991, such as "
            "60 or 1_000_000, or `none`.",
        ),
        (
            ["create-tenant", "--name", "a", "--time-zone", "Berlin"],
            "Invalid value for '--time-zone': There is no time zone 'Berlin'; did you mean 'Europe/Berlin'?",
        ),
    ],
)
def test_wrong_usage_is_a_sentence(unmigrated, arguments, sentence):
    """Exit code 2, before anything is opened."""
    refused = unmigrated(*arguments)

    assert (refused.exit_code, refused.stdout) == (2, "")
    assert refused.stderr.endswith(f"\nError: {sentence}\n")


def test_a_zone_can_not_speak_to_the_terminal(unmigrated):
    """The sentence repeats it, escaped."""
    refused = unmigrated("set-budgets", "--tenant", "acme", "--time-zone", "\x1b[31mUTC")

    assert refused.exit_code == 2
    assert "\x1b" not in refused.stderr


@pytest.mark.parametrize("command", [["set-limits", "--rpm", "1"], ["set-budgets", "--daily-tokens", "1"]])
def test_who_is_not_known_is_told(run, command):
    """Exit code 1: asked for rightly, but there is none."""
    tenant = run(*command, "--tenant", "acmee")
    key = run(*command, "--prefix", "nz_00000000")

    assert (tenant.exit_code, key.exit_code) == (1, 1)
    assert tenant.stderr == "Error: There is no tenant 'acmee'; did you mean 'acme'?\n"
    assert key.stderr.startswith("Error: There is no key with the prefix 'nz_00000000';")


# ── running gateways ─────────────────────────────────────────────────────────────────────


async def test_a_running_gateway_sees_a_changed_policy(empty):
    """Commands are processes of their own; one poll after they return, the principal has the policies."""

    def program(*arguments: str) -> str:
        command = [sys.executable, "-m", "gateway", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout

    program("migrate")
    program("create-tenant", "--name", "acme", "--rpm", "60")
    made = json.loads(program("create-key", "--tenant", "acme", "--name", "a", "--json"))
    config = load()
    hasher = Hasher()
    async with database_at(config.database_url) as database:
        store = Keys(database)
        keys = VerifiedKeys(store, store.touch, hasher, load_secret(config), SetClock())
        await keys.watch.poll()
        before = await keys.principal_of(made["key"])
        program("set-limits", "--prefix", made["prefix"], "--concurrent", "2")
        program("set-budgets", "--tenant", "acme", "--daily-tokens", "9", "--time-zone", "Asia/Tokyo")
        await keys.watch.poll()
        after = await keys.principal_of(made["key"])
        await keys.stop()
    hasher.close()

    assert before is not None
    assert after is not None
    assert (before.tenant_policy, before.key_policy, before.time_zone) == (Policy(rpm=60), Policy(), "UTC")
    assert (after.tenant_policy, after.key_policy, after.time_zone) == (
        Policy(rpm=60, daily_tokens=9),
        Policy(concurrent=2),
        "Asia/Tokyo",
    )
