"""A disk that is full, and a database that is locked or gone: real ones."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import StoreUnavailable
from gateway.spool import draining
from gateway.storage.engines import database_at
from gateway.storage.ledger import Ledger
from gateway.storage.migrations import migrate
from gateway.storage.sqlite import database as database_module
from tests.spool.child import spool_at
from tests.storage.samples import audit_row, intent, settled

CHILD = [sys.executable, "-m", "tests.spool.full_disk"]
# A mount that only this process sees, as its own root; not everywhere allowed.
OWN_DISK = [
    "unshare", "--map-root-user", "--mount", "sh", "-c",
    'mount -t tmpfs -o size=1m none "$0" && exec "$@"',
]  # fmt: skip


def seen_by(*command: str) -> dict[str, Any]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert isinstance(seen, dict)
    return seen


def can_mount(directory: Path) -> bool:
    if shutil.which("unshare") is None:
        return False
    return (
        subprocess.run([*OWN_DISK, str(directory), "true"], capture_output=True, check=False).returncode == 0
    )


def test_a_file_that_may_not_grow_stops_intents_and_takes_all_ends(tmp_path):
    """Every end finds the room that was kept for it; with room again, all goes on."""
    seen = seen_by(*CHILD, "limit", str(tmp_path))

    assert 0 < seen.pop("taken on the full disk") < 64 * 1024 // 250
    assert seen.pop("open") > 0
    assert seen == {
        "was full": True,
        "ends that the disk did not take": 0,
        "settled": 20,
        "audited": 20,
        "lost": [0, 0],
    }


def test_a_disk_that_somebody_else_fills_stops_intents_and_takes_all_ends(tmp_path):
    """H14: the kept room was allocated before, so nobody else can have it."""
    if not can_mount(tmp_path):
        pytest.skip("this machine does not let us mount a small disk")

    seen = seen_by(*OWN_DISK, str(tmp_path), *CHILD, "tmpfs", str(tmp_path))

    assert seen.pop("taken on the full disk") < 4096 // 250
    assert seen.pop("open") > 0
    assert seen == {
        "was full": True,
        "ends that the disk did not take": 0,
        "settled": 20,
        "audited": 20,
        "lost": [0, 0],
    }


@pytest.fixture
def directory(tmp_path, monkeypatch):
    monkeypatch.setattr(draining, "RETRY_S", 0.01)
    monkeypatch.setattr(draining, "BATCH_WAIT_S", 0.01)
    monkeypatch.setattr(database_module, "BUSY_S", 0.05)
    migrate(f"sqlite:///{tmp_path}/gateway.db")
    return tmp_path


async def test_a_locked_database_is_waited_for(directory):
    """H10, H18: the calls of the request path return at once, and all is written when the lock goes."""
    other = sqlite3.connect(directory / "gateway.db", isolation_level=None)
    async with database_at(f"sqlite:///{directory}/gateway.db") as database:
        one = spool_at(directory, database)
        await one.start()
        other.execute("BEGIN EXCLUSIVE")
        one.intent(intent())
        one.settled(settled())
        one.record(audit_row(1))
        with pytest.raises(StoreUnavailable):
            await one.flush()
        other.execute("ROLLBACK")
        await one.stop()

        assert await Ledger(database).entry("r1") == settled()
        assert await Ledger(database).verify() == []
    other.close()


async def test_a_deleted_database_costs_nothing_that_was_still_in_the_spool(directory):
    """SQLite would write on into the deleted file; the spool keeps its records until it is back."""
    path = directory / "gateway.db"
    async with database_at(f"sqlite:///{path}") as database:
        one = spool_at(directory, database)
        await one.start()
        one.settled(settled("before"))
        await one.flush()
        os.rename(path, f"{path}.away")
        one.settled(settled("after"))
        with pytest.raises(StoreUnavailable):
            await one.stop()

    os.rename(f"{path}.away", path)
    async with database_at(f"sqlite:///{path}") as database:
        again = spool_at(directory, database)
        await again.start()
        await again.stop()

        assert await Ledger(database).entry("after") == settled("after")
        assert await Ledger(database).verify() == []
