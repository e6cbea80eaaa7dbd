"""What Redis counts, made anew by the ledger."""

import json
from typing import Any

import pytest
from attrs import evolve

from gateway.state.redis_counters import RedisCounters
from tests.cli.conftest import Commands, write
from tests.servers import RedisServer
from tests.storage.samples import intent, settled

SPENT = {"used": 700, "reserved": 100}
RIGHT = {"before": SPENT, "after": SPENT, "ledger": SPENT}
NOTHING = {"used": 0, "reserved": 0}


@pytest.fixture
def acme(shared: RedisServer, run: Commands, prefix: str) -> dict[str, str]:
    """Ids: of a tenant and its key, which spent 700 tokens once, and have 100 reserved by one request."""
    ids = {
        "tenant": run.json("show-tenant", "--name", "acme")["id"],
        "key": run.json("show-key", "--prefix", prefix)["id"],
    }
    # Long ago: of what is counted now, only in the totals.
    then: dict[str, Any] = {"day": "2020-01-01", "month": "2020-01"}
    then |= {"tenant_id": ids["tenant"], "key_id": ids["key"]}
    write(evolve(settled("r1", tokens=700), **then), evolve(intent("r2", reserved=100), **then))
    run("set-limits", "--tenant", "acme", "--concurrent", "5")
    run.json("rebuild-counters", "--tenant", "acme")
    return ids


def set_account(server: RedisServer, acme: dict[str, str], account: str, text: str) -> None:
    """By hand, as nobody should."""
    scope = account.rpartition(":")[2]
    server.ask("HSET", f"{{t:{acme['tenant']}}}:sums", f"{account}:{acme[scope]}", text)


def changes_of(rebuilt: Any) -> dict[tuple[str, str], Any]:
    """What changed of the only tenant, by scope and bound."""
    (tenant,) = rebuilt["tenants"]
    moments = ("before", "after", "ledger")
    return {
        (one["scope"], one["bound"]): {moment: one[moment] for moment in moments} for one in tenant["changed"]
    }


def test_what_is_right_stays_so(acme, run: Commands):
    assert run.json("rebuild-counters", "--tenant", "acme") == {
        "equal": True,
        "tenants": [{"tenant": "acme", "was_counted": True, "equal": True, "accounts": 7, "changed": []}],
    }


@pytest.mark.parametrize("wrong", ["total 0 5 0", "total 0 90000 7"], ids=["less", "more"])
def test_what_was_changed_by_hand_is_mended(acme, shared: RedisServer, run: Commands, wrong: str):
    """Upwards and downwards: from then on only the ledger's word counts."""
    set_account(shared, acme, "total:tenant", wrong)
    set_account(shared, acme, "slots:tenant", "4")
    _, _, used, reserved = wrong.split()

    rebuilt = run.json("rebuild-counters", "--tenant", "acme")

    one = {"used": 1, "reserved": 0}
    assert rebuilt["equal"]
    assert changes_of(rebuilt) == {
        ("tenant", "total_tokens"): {**RIGHT, "before": {"used": int(used), "reserved": int(reserved)}},
        ("tenant", "concurrent"): {"before": {"used": 4, "reserved": 0}, "after": one, "ledger": one},
    }


def test_what_was_lost_is_counted_again(acme, shared: RedisServer, run: Commands):
    shared.ask("FLUSHALL")

    rebuilt = run.json("rebuild-counters", "--all")

    (tenant,) = rebuilt["tenants"]
    assert (rebuilt["equal"], tenant["was_counted"]) == (True, False)
    assert changes_of(rebuilt)["key", "total_tokens"] == {**RIGHT, "before": NOTHING}
    assert run.json("rebuild-counters", "--all")["tenants"][0]["changed"] == []


def test_people_see_what_changed(acme, shared: RedisServer, run: Commands):
    set_account(shared, acme, "total:tenant", "total 0 90000 0")

    shown = run("rebuild-counters", "--tenant", "ACME")

    assert (shown.exit_code, shown.stderr) == (0, "")
    assert [line.rstrip() for line in shown.stdout.splitlines()] == [
        "Of the  Name  Counted          Used before  Now  By ledger  Reserved before  Now  By ledger",
        "tenant  acme  tokens in total  90,000       700  700        0                100  100",
        "",
        "Redis counts by the ledger: the tenant 'acme', 1 of 7 accounts changed.",
    ]


def test_all_tenants_are_rebuilt(acme, run: Commands):
    run("create-tenant", "--name", "other")

    shown = run("rebuild-counters", "--all")

    assert shown.stdout == "Redis counts by the ledger: 2 tenants, 0 of 10 accounts changed.\n"


def test_to_count_less_than_the_ledger_is_a_failure(acme, run: Commands, monkeypatch: pytest.MonkeyPatch):
    """By counters that do not keep what they are told."""
    restore = RedisCounters.restore

    async def forgetful(counters, tenant_id, _sums, *rest):
        await restore(counters, tenant_id, (), *rest)

    monkeypatch.setattr(RedisCounters, "restore", forgetful)
    monkeypatch.setattr("gateway.cli.rebuilding._PATIENCE_S", 0.0)

    failed = run("rebuild-counters", "--tenant", "acme", "--json")

    assert (failed.exit_code, json.loads(failed.stdout)["equal"]) == (1, False)
    assert failed.stderr.startswith("Error: 2 accounts count less than the ledger. Run it again; ")


def test_without_redis_there_is_nothing_to_rebuild(run: Commands):
    failed = run("rebuild-counters", "--all")

    assert (failed.exit_code, failed.stdout) == (1, "")
    assert failed.stderr.startswith(
        "Error: Without REDIS_URL there is nothing to rebuild: the serving process "
    )


@pytest.mark.parametrize("arguments", [[], ["--tenant", "acme", "--all"]], ids=["nobody", "both"])
def test_wrong_usage_is_a_sentence(unmigrated: Commands, arguments: list[str]):
    refused = unmigrated("rebuild-counters", *arguments)

    assert (refused.exit_code, refused.stdout) == (2, "")
    assert refused.stderr.endswith("\nError: Whose? Give either --tenant or --all.\n")
