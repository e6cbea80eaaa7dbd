"""The audit log in the database."""

import math
import sqlite3

import pytest
from attrs import asdict, evolve

from gateway.errors import StoreUnavailable
from gateway.storage.audit import AuditLog
from gateway.storage.database import Database
from gateway.storage.sqlite import database as module
from gateway.storage.sqlite.database import SqliteDatabase
from tests.storage.plans import index_of
from tests.storage.samples import CHAIN, audit_row


async def rows_of(database: Database) -> list[dict[str, object]]:
    async with database.session() as connection:
        rows = await connection.fetch_all("SELECT * FROM audit ORDER BY received_at_us")
    return [{name: value for name, value in dict(row).items() if name != "recorded_at"} for row in rows]


async def test_rows_are_kept_whole(database):
    """Every field under its own name; a bool is 0 or 1."""
    refused = audit_row(
        2, tenant_id=None, key_id=None, key_prefix=None, model=None, prompt_tokens=None, tokens_estimated=True
    )

    await AuditLog(database, CHAIN).write([audit_row(1), refused])

    assert await rows_of(database) == [asdict(audit_row(1)), asdict(refused)]


async def test_a_row_that_is_written_again_stays_as_it_was(database):
    """A batch whose outcome is unknown is written again; nothing is doubled, the new rows come in."""
    log = AuditLog(database, CHAIN)
    await log.write([audit_row(1)])

    await log.write([audit_row(1, status=500), audit_row(2)])

    assert await rows_of(database) == [asdict(audit_row(1)), asdict(audit_row(2))]


async def test_what_the_database_can_not_hold_is_brought_into_its_range(database):
    """A mad backend counts to 10^30: its row must not stand in the way of the others for ever."""
    mad = audit_row(
        2, prompt_tokens=10**30, completion_tokens=-(10**30), duration_ms=math.nan, user_agent="a\ud800b\0c"
    )

    await AuditLog(database, CHAIN).write([audit_row(1), mad])

    kept = evolve(
        mad, prompt_tokens=2**63 - 1, completion_tokens=1 - 2**63, duration_ms=0.0, user_agent="a?bc"
    )
    assert await rows_of(database) == [asdict(audit_row(1)), asdict(kept)]


async def test_a_database_that_does_not_answer_keeps_none(sqlite_url, monkeypatch):
    """All or none, so that the whole batch can be written again."""
    monkeypatch.setattr(module, "BUSY_S", 0.01)
    other = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)
    async with SqliteDatabase(sqlite_url) as database:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable):
            await AuditLog(database, CHAIN).write([audit_row(1), audit_row(2)])
        other.execute("ROLLBACK")

        assert await rows_of(database) == []
    other.close()


@pytest.mark.parametrize(
    ("condition", "index"),
    [
        ("received_at_us > 5", "audit_by_time"),
        ("tenant_id = 't1' AND received_at_us > 5", "audit_by_tenant_and_time"),
    ],
)
async def test_rows_are_found_by_time_without_reading_all(database, condition, index):
    """The cost of a look-up must not grow with the log."""
    assert await index_of(database, f"SELECT * FROM audit WHERE {condition}") == index
