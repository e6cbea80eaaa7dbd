"""Commands for keys: printed once, listed without, revoked for good."""

import json
import logging
import os
import re
import subprocess
import sys

import pytest
from loguru import logger

from gateway.config import load
from gateway.postgres_address import is_postgres
from gateway.rules.keys import is_well_formed
from gateway.state.hasher import Hasher
from gateway.state.key_cache import VerifiedKeys
from gateway.state.secret import load_secret
from gateway.storage.engines import database_at
from gateway.storage.keys import Keys
from tests.cli.conftest import NO_BOUNDS, NO_MODEL_BOUNDS
from tests.databases import ask
from tests.state.doubles import SetClock

ISO = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"


@pytest.fixture
def made(run):
    """A key as create-key tells programs about it."""
    return run.json("create-key", "--tenant", "acme", "--name", "prod-server-1", "--expires", "30d")


def test_a_new_key_is_told_whole_to_programs(made):
    """One object with stable names; the key is in it once."""
    assert made == {
        "prefix": made["key"][:11],
        "name": "prod-server-1",
        "tenant": "acme",
        "status": "active",
        "created_at": made["created_at"],
        "last_used_at": None,
        "expires_at": made["expires_at"],
        "revoked_at": None,
        "allow_ip": [],
        "log_prompts_s": None,
        **NO_BOUNDS,
        **NO_MODEL_BOUNDS,
        "key": made["key"],
    }
    assert is_well_formed(made["key"])
    assert re.fullmatch(ISO, made["created_at"])
    assert re.fullmatch(ISO, made["expires_at"])
    assert json.dumps(made).count(made["key"]) == 1


def test_a_new_key_is_printed_once_with_a_warning(run):
    """On standard output, alone on its line, for people to copy."""
    shown = run("create-key", "--tenant", "ACME", "--name", "trial")
    keys = re.findall(r"nz_[0-9A-Za-z]{48}", shown.stdout)

    assert len(keys) == 1
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert shown.stdout == (
        "Made the key 'trial' of the tenant 'acme'. Expires: never.\n\n"
        f"  {keys[0]}\n\n"
        "Keep it now: only its hash is stored, so it can't be shown again.\n"
    )


def test_a_key_is_nowhere_but_on_standard_output(run, empty, caplog, monkeypatch):
    """Not in the database, nor in any file that was made, nor in any log of any library at any level."""
    lines: list[str] = []
    sink = logger.add(lines.append, level=0, diagnose=True)
    remove_sink = logger.remove
    monkeypatch.setattr(logger, "remove", lambda: None)  # what commands do first
    caplog.set_level(logging.DEBUG)
    secret_part = run.json("create-key", "--tenant", "acme", "--name", "a")["key"][11:]
    run("list-keys")
    remove_sink(sink)

    kept = ask(load().database_url, "SELECT * FROM keys")
    assert [key["name"] for key in kept] == ["a"]
    files = [file for file in empty.rglob("*") if file.is_file()]
    assert not any(secret_part.encode() in file.read_bytes() for file in files)
    assert secret_part not in repr(kept) + caplog.text + "".join(lines)
    if not is_postgres(load().database_url):  # it was looked at closely enough
        assert {file.name for file in files} >= {"gateway.db", "secret"}
        assert "INSERT INTO keys" in caplog.text


def test_programs_get_one_list_of_keys(run, made):
    """The same names as create-key has, save the key itself."""
    run("create-tenant", "--name", "other")
    run("create-key", "--tenant", "other", "--name", "b")
    without_key = {name: value for name, value in made.items() if name != "key"}

    everybodys = run.json("list-keys")
    assert everybodys[0] == without_key
    assert [key["tenant"] for key in everybodys] == ["acme", "other"]
    assert run.json("list-keys", "--tenant", "Acme") == [without_key]


def test_an_expired_key_shows_as_such(run, made, monkeypatch):
    """The status is that of the moment."""
    monkeypatch.setattr("time.time", lambda: 10_000_000_000.0)

    assert [key["status"] for key in run.json("list-keys")] == ["expired"]


@pytest.mark.parametrize("columns", ["20", "60", "200"])
def test_prefixes_are_whole_however_narrow_a_pipe(made, empty, columns):
    """No colours and no cuts where there is no terminal; a line stays a line."""
    listed = subprocess.run(
        [sys.executable, "-m", "gateway", "list-keys"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={**os.environ, "COLUMNS": columns, "TERM": "xterm-256color"},
    ).stdout.splitlines()

    assert [line.split()[:4] for line in listed] == [
        ["Prefix", "Tenant", "Name", "Status"],
        [made["prefix"], "acme", "prod-server-1", "active"],
    ]
    assert "\x1b" not in "".join(listed)


def test_markup_in_a_name_is_shown_as_it_is(run):
    """A name is text, whatever a table library makes of brackets."""
    run("create-key", "--tenant", "acme", "--name", "[red]a[/red]")

    assert "[red]a[/red]" in run("list-keys").stdout


def test_an_empty_list_says_how_to_begin(run):
    """To people; programs get an empty list."""
    assert run.json("list-keys") == []
    assert run("list-keys").stdout == "There are no keys yet; `neuronetz-gateway create-key` makes one.\n"


@pytest.mark.parametrize(
    "command", [["create-key", "--name", "a"], ["list-keys"]], ids=lambda command: command[0]
)
def test_an_unknown_tenant_is_told_with_the_nearest(run, command):
    """Exit code 1: asked for rightly, but there is none."""
    refused = run(*command, "--tenant", "acmee")

    assert (refused.exit_code, refused.stdout) == (1, "")
    assert refused.stderr == "Error: There is no tenant 'acmee'; did you mean 'acme'?\n"


def test_a_name_is_taken_within_its_tenant(run, made):
    """Exit code 1, and no second key was made."""
    refused = run("create-key", "--tenant", "acme", "--name", "PROD-server-1")

    assert refused.exit_code == 1
    assert refused.stderr.startswith("Error: The tenant 'acme' has, or had, a key 'PROD-server-1' already;")
    assert len(run.json("list-keys")) == 1


@pytest.mark.parametrize("expires", ["yesterday", "30", "0d", "-1d", "2001-01-01", "99999w", "30 d"])
def test_a_bad_end_is_wrong_usage(run, expires):
    """With what is expected, or why not."""
    refused = run("create-key", "--tenant", "acme", "--name", "a", f"--expires={expires}")

    assert refused.exit_code == 2
    assert f"Invalid value for '--expires': '{expires}' is no" in refused.stderr


def test_a_key_is_not_made_under_another_secret(run, made, monkeypatch):
    """It would work, and all others would not: one sentence instead."""
    monkeypatch.setenv("GATEWAY_SECRET", "0f1e2d3c4b5a69788796a5b4c3d2e1f0")

    refused = run("create-key", "--tenant", "acme", "--name", "b")

    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "The keys in this database were made under another secret" in refused.stderr


def test_revoking_says_what_was_revoked_and_repeating_says_so(run, made):
    """Idempotent: the second time changes nothing, and is no failure."""
    first = run("revoke-key", "--prefix", made["prefix"])
    second = run("revoke-key", "--prefix", made["prefix"])

    assert (first.exit_code, second.exit_code) == (0, 0)
    assert first.stdout == (
        f"Revoked the key 'prod-server-1' ({made['prefix']}) of the tenant 'acme'. "
        "Running gateways refuse it within one second.\n"
    )
    assert re.fullmatch(
        rf"Nothing to do: the key 'prod-server-1' \({made['prefix']}\) of the tenant 'acme' "
        r"was revoked on \d{4}-\d\d-\d\d \d\d:\d\d UTC already\.\n",
        second.stdout,
    )


def test_programs_learn_whether_a_key_was_revoked_before(run, made):
    """And the state that it is in now."""
    first = run.json("revoke-key", "--prefix", made["prefix"])
    second = run.json("revoke-key", "--prefix", made["prefix"])

    assert (first["status"], first["already_revoked"], second["already_revoked"]) == ("revoked", False, True)
    assert first["revoked_at"] == second["revoked_at"]
    assert run.json("list-keys")[0]["revoked_at"] == first["revoked_at"]


def test_an_unknown_prefix_is_told(run):
    """Exit code 1: nothing was revoked, and nobody shall think so."""
    refused = run("revoke-key", "--prefix", "nz_00000000")

    assert (refused.exit_code, refused.stdout) == (1, "")
    assert refused.stderr.startswith("Error: There is no key with the prefix 'nz_00000000';")


def test_a_whole_key_in_place_of_a_prefix_is_not_repeated(run, made):
    """What was typed by mistake must not get into a log of ours too."""
    refused = run("revoke-key", "--prefix", made["key"])

    assert refused.exit_code == 2
    assert "expected the public prefix of a key, 11 characters such as nz_abc12345" in refused.stderr
    assert made["key"] not in refused.stdout + refused.stderr


async def test_a_running_gateway_lets_a_new_key_in_and_refuses_it_once_revoked(empty):
    """Commands are processes of their own; one poll after they return, the gateway knows."""

    def program(*arguments: str) -> str:
        command = [sys.executable, "-m", "gateway", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout

    program("migrate")
    program("create-tenant", "--name", "acme")
    config = load()
    hasher = Hasher()
    async with database_at(config.database_url) as database:
        store = Keys(database)
        keys = VerifiedKeys(store, store.touch, hasher, load_secret(config), SetClock())
        await keys.watch.poll()
        made = json.loads(program("create-key", "--tenant", "acme", "--name", "a", "--json"))
        await keys.watch.poll()
        before = await keys.principal_of(made["key"])
        program("revoke-key", "--prefix", made["prefix"])
        await keys.watch.poll()
        after = await keys.principal_of(made["key"])
        await keys.stop()
    hasher.close()

    assert before is not None
    assert (before.tenant, before.key, after) == ("acme", "a", None)
