"""Commands for what keys and tenants go through, and the one that shows what operators did."""

import getpass
import os
import re

import pytest
from attrs import evolve

from gateway.cli import actors
from gateway.config import load
from gateway.rules.keys import is_well_formed
from tests.cli.conftest import write
from tests.databases import ask
from tests.storage.samples import settled


def test_a_successor_is_printed_once_and_shares_the_account(run, prefix):
    """To programs with what became of the old key; both are one to limits, budgets and usage."""
    made = run.json("rotate-key", "--prefix", prefix, "--grace", "2h")

    old = made.pop("successor_of")
    assert is_well_formed(made["key"])
    assert (made["name"], made["status"], made["expires_at"]) == ("ci", "active", None)
    assert (old["name"], old["prefix"], old["status"]) == (f"ci ({prefix})", prefix, "active")
    assert old["expires_at"] is not None
    shown = [run.json("show-key", "--prefix", one)["account_id"] for one in (prefix, made["prefix"])]
    assert shown[0] == shown[1]


def test_rotating_never_refills_a_budget(run, prefix):
    """What the old key has spent, the new one has spent: both read the same account."""
    run("set-budgets", "--prefix", prefix, "--total-tokens", "1_000")
    account = run.json("show-key", "--prefix", prefix)["account_id"]
    tenant = run.json("list-tenants")[0]["id"]
    write_spent(account, tenant, 900)

    new = run.json("rotate-key", "--prefix", prefix)["prefix"]

    for one in (prefix, new):
        total = run.json("show-key", "--prefix", one)["usage"]["total_tokens"]["key"]
        assert total == {"limit": 1_000, "used": 900, "reserved": 0, "remaining": 100}


def write_spent(account: str, tenant: str, tokens: int) -> None:
    write(evolve(settled("r1", tokens=tokens), key_id=account, tenant_id=tenant))


def test_people_are_told_how_long_the_old_key_works(run, prefix):
    """Or that it is revoked."""
    graced = run("rotate-key", "--prefix", prefix)
    new = re.findall(r"nz_[0-9A-Za-z]{48}", graced.stdout)
    revoked = run("rotate-key", "--prefix", new[0][:11], "--grace", "0")

    assert len(new) == 1
    assert re.search(
        r"^The old key works until \d{4}-\d\d-\d\d \d\d:\d\d UTC\.$", graced.stdout, re.MULTILINE
    )
    assert revoked.stdout.endswith("The old key is revoked.\n")
    assert [key["status"] for key in run.json("list-keys")] == ["active", "revoked", "active"]


def test_what_can_not_be_rotated_is_a_sentence(run, prefix):
    run("revoke-key", "--prefix", prefix)

    refused = run("rotate-key", "--prefix", prefix)

    assert (refused.exit_code, refused.stdout) == (1, "")
    assert refused.stderr.startswith(f"Error: The key {prefix} is revoked, so there is nothing to hand over;")


@pytest.mark.parametrize("grace", ["-1h", "soon", "1", "99999999w"])
def test_a_bad_grace_is_wrong_usage(run, prefix, grace):
    refused = run("rotate-key", "--prefix", prefix, f"--grace={grace}")

    assert refused.exit_code == 2
    assert f"'{grace}' is no duration such as 30m, 24h or 7d, and not 0." in refused.stderr


def test_a_key_is_updated_and_the_change_is_told(run, prefix):
    """Only what is given; with what it was."""
    told = run("update-key", "--prefix", prefix, "--allow-ip", "10.0.0.0/8,::1", "--expires", "2090-01-01")
    again = run("update-key", "--prefix", prefix, "--allow-ip", "10.0.0.0/8", "--allow-ip", "::1")
    shown = run.json(
        "update-key", "--prefix", prefix, "--name", "CI-2", "--expires", "none", "--allow-ip", "none"
    )

    assert told.stdout == (
        f"Changed the key 'ci' ({prefix}) of the tenant 'acme'. "
        "Running gateways apply it within one second.\n"
        "  expires: 2090-01-01 00:00 UTC, was never\n"
        "  allowed addresses: 10.0.0.0/8,::1/128, was any\n"
    )
    assert again.stdout == f"Nothing to do: the key 'ci' ({prefix}) of the tenant 'acme' is so already.\n"
    assert shown["changed"] == {
        "name": {"before": "ci", "after": "CI-2"},
        "expires_at": {"before": "2090-01-01T00:00:00Z", "after": None},
        "allow_ip": {"before": ["10.0.0.0/8", "::1/128"], "after": None},
    }
    assert (shown["name"], shown["allow_ip"]) == ("CI-2", [])


def test_nothing_to_update_is_wrong_usage(run, prefix):
    assert run("update-key", "--prefix", prefix).exit_code == 2
    refused = run("update-key", "--prefix", prefix, "--allow-ip", "10.0.0.1/8")
    assert refused.exit_code == 2
    assert "did you mean 10.0.0.0/8?" in refused.stderr


def test_a_key_is_made_for_some_addresses(run):
    made = run.json("create-key", "--tenant", "acme", "--name", "a", "--allow-ip", "::ffff:10.0.0.0/104")

    assert made["allow_ip"] == ["10.0.0.0/8"]


def test_a_tenant_is_suspended_and_resumed(run, prefix):
    """Its keys show it, and explain-key says what to do."""
    told = run("suspend-tenant", "--name", "ACME")
    again = run("suspend-tenant", "--name", "acme")
    explained = run("explain-key", "--prefix", prefix)
    keys, tenants = run.json("list-keys"), run.json("list-tenants")
    resumed = run.json("resume-tenant", "--name", "acme")
    nothing = run("resume-tenant", "--name", "acme")

    assert told.stdout.startswith("Suspended the tenant 'acme'. Running gateways refuse its keys within one")
    assert again.stdout.startswith("Nothing to do: the tenant 'acme' has been suspended since ")
    assert "refused: 403 tenant_suspended, the tenant was suspended on" in explained.stdout
    assert "`neuronetz-gateway resume-tenant --name acme` lets its keys in again." in explained.stdout
    assert (keys[0]["status"], tenants[0]["status"]) == ("suspended", "suspended")
    assert (resumed["status"], resumed["was_suspended"]) == ("active", True)
    assert nothing.stdout == "Nothing to do: the tenant 'acme' is not suspended.\n"


def test_deleting_asks_first(run, prefix):
    """And without an answer nothing happens."""
    asked = run("delete-tenant", "--name", "acme")
    kept = run.json("list-tenants")
    deleted = run("delete-tenant", "--name", "acme", "--yes")

    assert asked.exit_code == 1
    assert "Delete the tenant 'acme' and its 1 key for good? [y/N]" in asked.stdout
    assert [tenant["name"] for tenant in kept] == ["acme"]
    assert deleted.stdout.startswith("Deleted the tenant 'acme' and its 1 key.\n")
    assert (run.json("list-tenants"), run.json("list-keys")) == ([], [])
    assert run("delete-tenant", "--name", "acme", "--yes").exit_code == 1
    assert run("delete-tenant", "--name", "acme", "--json").exit_code == 2


def test_programs_are_told_what_was_deleted(run, prefix):
    told = run.json("delete-tenant", "--name", "acme", "--yes")

    assert (told["name"], told["deleted_keys"]) == ("acme", [prefix])


def test_what_operators_did_is_shown_with_who_and_what(run, prefix):
    """The last line is the last action; a table for people."""
    run("set-limits", "--prefix", prefix, "--rpm", "60")
    run("set-limits", "--prefix", prefix, "--rpm", "none")

    last = run.json("list-actions")[-1]
    table = run("list-actions", "--prefix", prefix).stdout.splitlines()

    assert last == {
        "id": last["id"],
        "at": last["at"],
        "os_user": getpass.getuser(),
        "host": os.uname().nodename,
        "action": "change_key",
        "tenant": "acme",
        "tenant_id": last["tenant_id"],
        "prefix": prefix,
        "key_name": "ci",
        "changes": {"rpm": {"before": 60, "after": None}},
    }
    assert [line.split()[5] for line in table[1:]] == [os.uname().nodename] * 3
    assert table[-1].endswith(f"change-key  acme, ci ({prefix})  rpm: none, was 60")


def test_actions_of_a_deleted_tenant_are_found_by_its_id(run, prefix):
    """Its name is gone."""
    deleted = run.json("delete-tenant", "--name", "acme", "--yes")

    found = run.json("list-actions", "--tenant", deleted["id"])

    assert [one["action"] for one in found] == ["create_tenant", "create_key", "delete_tenant"]
    assert run("list-actions", "--tenant", "acme").exit_code == 1
    assert run("list-actions", "--since", "2100-01-01").stdout == "Nothing was changed.\n"


def test_no_key_is_in_what_was_noted(run):
    """Neither when it is made nor when it gets a successor."""
    made = run.json("create-key", "--tenant", "acme", "--name", "a")
    new = run.json("rotate-key", "--prefix", made["prefix"])

    noted = repr(ask(load().database_url, "SELECT * FROM admin_actions"))
    assert made["prefix"] in noted
    assert not [key for key in (made["key"], new["key"]) if key[11:] in noted]


@pytest.mark.parametrize(
    ("uid", "sudo_user", "expected"),
    [
        (0, "alice", "root (sudo by alice)"),
        (0, "", "root"),
        (0, "root", "root"),
        (0, "a\x1b[31m", "root"),
        (65_533, "alice", "uid 65533"),
    ],
)
def test_an_actor_is_who_runs_the_command(monkeypatch, uid, sudo_user, expected):
    """Behind sudo also who called it; a user without a name has its number."""
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    monkeypatch.setenv("SUDO_USER", sudo_user)

    assert actors.this_actor().os_user == expected


def test_a_key_that_has_a_successor_is_not_told_by_its_prefix_twice(run, prefix):
    """Its name has it already."""
    run("rotate-key", "--prefix", prefix)

    shown = run("list-actions").stdout

    assert f"acme, ci ({prefix})  " in shown
    assert f"({prefix}) ({prefix})" not in shown
