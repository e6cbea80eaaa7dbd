"""migrate, and the way back to what an older version knows."""

import asyncio

import pytest

from gateway import config
from gateway.storage.engines import serving
from tests.cli.conftest import Commands


def test_going_back_keeps_what_the_older_version_knows(run: Commands):
    """The newest goes first; tenants, keys and ledger are of the first. Forward again, all is there."""
    key = run.json("create-key", "--tenant", "acme", "--name", "ci")

    undone = run.json("migrate", "--back-to", "0008_replicas", "--yes")["undone"]
    again = run.json("migrate")["applied"]

    assert undone == sorted(undone, reverse=True)
    assert (undone[-1], again) == ("0009_weights", undone[::-1])
    (kept,) = run.json("list-keys", "--tenant", "acme")
    assert kept["prefix"] == key["prefix"]


def test_it_asks_before_something_is_lost(run: Commands):
    """And tells what; without an answer, nothing is done. A program says so with --yes."""
    asked = run("migrate", "--back-to", "0015_usage")
    unasked = run("migrate", "--back-to", "0015_usage", "--json")

    assert asked.exit_code == 1
    assert "Undo 0018_drained_backends" in asked.stdout
    assert unasked.exit_code == 2
    assert run.json("migrate")["applied"] == []
    assert "Undone in " in run("migrate", "--back-to", "0015_usage", "--yes").stdout
    assert "Nothing to do" in run("migrate", "--back-to", "0015_usage").stdout


def test_an_unknown_migration_is_told_which_there_are(run: Commands):
    done = run("migrate", "--back-to", "0000_nothing", "--yes")

    assert done.exit_code == 1
    assert "has no migration '0000_nothing'; it has 0001_tenants, " in done.stderr


@pytest.mark.parametrize("alone", [True, False], ids=["alone", "in a fleet"])
def test_nothing_is_taken_away_under_a_gateway(run: Commands, alone: bool):
    """One that serves holds a lock on the database, alone or with others; it goes with its process."""
    url = config.load().database_url

    async def while_one_serves():
        async with serving(url, alone=alone, on_lost=lambda: None):
            return await asyncio.to_thread(run, "migrate", "--back-to", "0008_replicas", "--yes")

    done = asyncio.run(while_one_serves())

    assert done.exit_code == 1
    assert "A gateway serves on " in done.stderr
    assert run.json("migrate")["applied"] == []
