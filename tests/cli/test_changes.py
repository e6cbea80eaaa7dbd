"""A change is in the database first, and then Redis is told, for gateways that do not reach the database."""

import json
from typing import Any

import pytest

from gateway.config import load
from tests.cli.conftest import Commands
from tests.databases import ask
from tests.gateways import SECRET
from tests.servers import RedisServer

CHANGES = [
    pytest.param(["revoke-key", "--prefix"], id="revoke-key"),
    pytest.param(["set-limits", "--rpm", "3", "--prefix"], id="limits-of-a-key"),
    pytest.param(["set-limits", "--rpm", "3", "--tenant"], id="limits-of-a-tenant"),
    pytest.param(["set-budgets", "--total-tokens", "5", "--prefix"], id="budgets-of-a-key"),
    pytest.param(["set-budgets", "--time-zone", "Asia/Tokyo", "--tenant"], id="zone-of-a-tenant"),
]
NOBODY = "redis://127.0.0.1:1"


def whole(change: list[str], prefix: str) -> list[str]:
    return [*change, prefix if change[-1] == "--prefix" else "acme"]


def asked(statement: str) -> Any:
    (row,) = ask(load().database_url, statement)
    (value,) = row.values()
    return value


def revision() -> int:
    return int(asked("SELECT value FROM revision"))


def epoch(server: RedisServer) -> int:
    """Of acme: what Redis takes nothing by that was read before."""
    tenant = asked("SELECT id FROM tenants WHERE name = 'acme'")
    return int(server.ask("HGET", f"{{t:{tenant}}}:sums", "epoch") or 0)


@pytest.mark.parametrize("change", CHANGES)
def test_redis_knows_of_every_change(shared: RedisServer, run: Commands, prefix: str, change: list[str]):
    """By the revision that has it."""
    before = revision()

    done = run(*whole(change, prefix))

    assert (done.exit_code, done.stderr) == (0, "")
    assert epoch(shared) == revision() > before


@pytest.mark.parametrize("change", CHANGES)
def test_a_redis_that_can_not_be_told_is_told_of(
    shared: RedisServer, run: Commands, prefix: str, monkeypatch: pytest.MonkeyPatch, change: list[str]
):
    """The change is made and shown all the same; exit code 1. The same command again makes up for it."""
    monkeypatch.setenv("REDIS_URL", NOBODY)
    untold = run(*whole(change, prefix), "--json")
    monkeypatch.setenv("REDIS_URL", shared.url)
    again = run(*whole(change, prefix), "--json")

    shown = json.loads(untold.stdout)
    assert untold.exit_code == 1
    assert shown["changed"] if "changed" in shown else shown["status"] == "revoked"
    assert untold.stderr.startswith("Error: The change stands in the database, and gateways that reach it ")
    assert untold.stderr.endswith("Redis does not answer at 127.0.0.1:1: see REDIS_URL.\n")
    assert (again.exit_code, epoch(shared)) == (0, revision())


def test_what_is_new_needs_no_redis(run: Commands, monkeypatch: pytest.MonkeyPatch):
    """No gateway can know it by heart."""
    monkeypatch.setenv("REDIS_URL", NOBODY)
    monkeypatch.setenv("GATEWAY_SECRET", SECRET)

    tenant = run.json("create-tenant", "--name", "new")
    key = run.json("create-key", "--tenant", "new", "--name", "first")

    assert (tenant["name"], key["name"]) == ("new", "first")
