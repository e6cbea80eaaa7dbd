"""kill -9 of a real process at every point of a record's way: nothing is lost, nothing is counted twice."""

import asyncio
import random
import signal
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from attrs import evolve

from gateway.accounting import Evidence
from gateway.storage.database import Database
from gateway.storage.engines import database_at
from gateway.storage.ledger import Ledger
from gateway.storage.migrations import migrate
from gateway.storage.quarantine import Quarantine
from tests.effort import times
from tests.engines import wait_until
from tests.spool.child import spool_at
from tests.storage.samples import intent, settled

POINTS = [
    "after an intent",
    "after a settlement",
    "after a row",
    "in a transaction",
    "between the commits of ledger and audit",
    "between the commits and the deletion",
    "after the last commit",
]
# More of them in a nightly run.
ROUNDS = times(2)
CHILD = [sys.executable, "-m", "tests.spool.child"]


def start(directory: Path, point: str, name: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([*CHILD, str(directory), point, name], stderr=subprocess.DEVNULL)


def told(directory: Path) -> str:
    witness = directory / "witness"
    return witness.read_text() if witness.exists() else ""


def witnessed(directory: Path) -> dict[str, set[str]]:
    """What the dead processes said that they had done: "intent", "settled" and "recorded" → ids."""
    seen: dict[str, set[str]] = defaultdict(set)
    for line in told(directory).splitlines():
        what, rid = line.split(" ")
        seen[what].add(rid)
    return seen


async def audited(database: Database) -> dict[str, str]:
    """Request id → outcome."""
    async with database.session() as connection:
        return {
            row["request_id"]: row["outcome"]
            for row in await connection.fetch_all("SELECT request_id, outcome FROM audit")
        }


async def has_forgotten_nothing(directory: Path) -> None:
    """Start once more in this process, and compare the database with what was witnessed."""
    seen = witnessed(directory)
    async with database_at(f"sqlite:///{directory}/gateway.db") as database:
        one = spool_at(directory, database)
        await one.start()
        await one.stop()
        ledger = Ledger(database)
        rows = await audited(database)
        kept = {rid: await ledger.entry(rid) for rid in rows}

        assert seen["intent"]
        for rid in seen["intent"]:
            recovered = evolve(intent(rid), estimated=True, evidence=Evidence.RECOVERED)
            # Killed between a call and its witness, a request is settled all the same.
            allowed = [settled(rid)] if rid in seen["settled"] else [settled(rid), recovered]
            assert kept[rid] in allowed
            assert rows[rid] == "served" if rid in seen["recorded"] else rows[rid] in ("served", "cut")
        assert await ledger.open_intents("t1") == []
        assert await ledger.verify() == []
        assert len(rows) - len(seen["intent"]) <= 2 * ROUNDS  # those that died before their first witness
        assert (await Quarantine(database).count(), one.drainer.lost_bytes) == (0, 0)
    assert list((directory / "spool").iterdir()) == []


@pytest.fixture
def directory(tmp_path):
    migrate(f"sqlite:///{tmp_path}/gateway.db")
    return tmp_path


@pytest.mark.parametrize("point", POINTS)
async def test_a_kill_at_this_point_loses_nothing(point, directory):
    """Round upon round on the same disk: each start drains what the dead one before it left behind."""
    for number in range(ROUNDS):
        child = start(directory, point, f"round{number}")
        assert child.wait(30) == -signal.SIGKILL

    await has_forgotten_nothing(directory)


async def test_a_kill_at_any_moment_loses_nothing(directory):
    """And of several processes at once, which adopt from each other."""
    draw = random.Random(7)
    for number in range(ROUNDS):
        names = [f"round{number}{twin}" for twin in "ab"]
        children = [start(directory, "at any moment", name) for name in names]
        # One of them at work, the other one anywhere between its start and there.
        assert wait_until(lambda: any(f"intent {name}" in told(directory) for name in names), 30)  # noqa: B023
        await asyncio.sleep(draw.random())
        for child in children:
            child.kill()
        assert [child.wait(30) for child in children] == [-signal.SIGKILL] * 2

    await has_forgotten_nothing(directory)


async def test_processes_on_one_disk_come_and_go(directory):
    """Some are killed and some end in order, while others start, run and adopt; none fails of another."""
    for number in range(ROUNDS):
        orderly = [start(directory, "nowhere", f"round{number}{one}") for one in "ab"]
        killed = [start(directory, "after a row", f"round{number}{one}") for one in "xy"]

        assert [child.wait(60) for child in killed] == [-signal.SIGKILL] * 2
        assert [child.wait(60) for child in orderly] == [0] * 2

    await has_forgotten_nothing(directory)


async def test_a_kill_while_leftovers_are_replayed_loses_nothing(directory):
    """What was written is written again, and changes nothing."""
    start(directory, "after a row", "first").wait(30)
    for number in range(ROUNDS):
        child = start(directory, "before leftovers are deleted", f"next{number}")
        assert child.wait(30) == -signal.SIGKILL

    await has_forgotten_nothing(directory)


async def test_an_orderly_end_needs_no_replay(directory):
    """The same child without a kill: all is settled and served."""
    assert start(directory, "nowhere", "one").wait(30) == 0

    await has_forgotten_nothing(directory)
    async with database_at(f"sqlite:///{directory}/gateway.db") as database:
        assert set((await audited(database)).values()) == {"served"}
