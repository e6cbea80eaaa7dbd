"""Audit rows whose time is over go, a batch at a time, and nothing else does."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest
from attrs import evolve
from loguru import logger

from gateway.errors import StoreUnavailable
from gateway.model import AuditRow
from gateway.postgres_address import is_postgres
from gateway.rules.audit_chain import DAY_US, Removal
from gateway.storage import audit_sealing
from gateway.storage.audit import AuditLog
from gateway.storage.audit_removals import DAYS, note_removal, opened
from gateway.storage.audit_retention import Expired, Retention
from gateway.storage.audit_verifying import Verifying
from gateway.storage.engines import audit_days, database_at
from gateway.storage.migrations import known, migrate, migrator_of
from gateway.storage.tenants import Tenants
from tests.databases import ask
from tests.storage.samples import ACME, CHAIN, audit_row

TODAY = int(time.time()) // 86_400


def row(age: int, tenant_id: str | None, number: int = 0) -> AuditRow:
    """Of so many days ago, with an id as gateways make them."""
    at_us = (TODAY - age) * DAY_US + 43_200_000_000 + number
    return audit_row(
        request_id=f"req_{at_us // 1000:012x}{tenant_id or 'nobody':>16}{number:04d}".replace(" ", "0"),
        received_at_us=at_us,
        tenant_id=tenant_id,
    )


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    told: list[str] = []
    sink = logger.add(lambda message: told.append(message.record["message"]), level="WARNING")
    yield told
    logger.remove(sink)


def retention(database: Any, url: str, days: int | None) -> Retention:
    return Retention(database, audit_days(url, database), CHAIN, days)


async def removed(one: Retention, page: int = 2) -> Expired:
    return [expired async for expired in one.remove(page)][-1]


async def ages(database: Any) -> list[tuple[str, int]]:
    """What is left: whose, and how many days old."""
    async with database.session() as connection:
        rows = await connection.fetch_all("SELECT tenant_id, received_at_us FROM audit")
    return sorted((row["tenant_id"] or "", TODAY - row["received_at_us"] // DAY_US) for row in rows)


async def fault_count(database: Any) -> int:
    return sum([day.fault_count async for day in Verifying(database, CHAIN).days()])


@pytest.fixture
async def aged(database) -> None:
    """Rows of two tenants, of one that was deleted, and of nobody, each of five ages."""
    await Tenants(database).add(evolve(ACME, audit_retention_days=10))
    await Tenants(database).add(evolve(ACME, id="t2", name="globex"))
    log = AuditLog(database, CHAIN)
    for age in (0, 5, 10, 20, 40):
        await log.write([row(age, whose, n) for whose in ("t1", "t2", "gone", None) for n in range(3)])


async def test_each_tenants_rows_are_kept_for_its_own_time(database, database_url, aged):
    """Its own days, or everybody's; the day on which a time is over is kept whole."""
    expired = await removed(retention(database, database_url, 30))

    assert set(await ages(database)) == {
        *(("t1", age) for age in (0, 5, 10)),
        *((whose, age) for whose in ("t2", "gone", "") for age in (0, 5, 10, 20)),
    }
    assert expired.rows == 3 * (2 + 3)
    assert await fault_count(database) == 0
    assert await removed(retention(database, database_url, 30)) == Expired()


async def test_what_is_kept_for_good_stays(database, database_url, aged):
    """Without a time for all, only those of tenants with one of their own go."""
    await removed(retention(database, database_url, None))

    assert {age for whose, age in await ages(database) if whose != "t1"} == {0, 5, 10, 20, 40}
    assert {age for whose, age in await ages(database) if whose == "t1"} == {0, 5, 10}
    assert await fault_count(database) == 0


async def test_days_that_nobody_keeps_go_with_their_seals(database, database_url, aged):
    """On Postgres as tables; the register still tells of them, and nothing looks like tampering."""
    one = retention(database, database_url, 15)
    await one.make_ahead()

    expired = await removed(one)

    async with database.session() as connection:
        days = [
            r["day"]
            for r in await connection.fetch_all("SELECT DISTINCT day FROM audit_seals WHERE day >= 0")
        ]
    assert sorted(TODAY - day for day in days) == [0, 5, 10]
    assert expired == Expired(days=2, rows=0) if is_postgres(database_url) else Expired(days=0, rows=24)
    assert await fault_count(database) == 0
    told = ask(database_url, "SELECT action FROM admin_actions ORDER BY id DESC")
    assert told[0] == {"action": "apply_retention"}


async def test_a_row_that_somebody_deletes_is_no_retention(database, database_url, aged):
    """Noted is until which day rows went: younger ones that are missing show."""
    await removed(retention(database, database_url, 30))
    ask(database_url, "INSERT INTO meta (name, value) VALUES ('audit_open', '1')")
    ask(database_url, "DELETE FROM audit WHERE request_id = :id", id=row(10, "t1", 1).request_id)

    assert await fault_count(database) == 1


async def test_rows_of_days_that_are_gone_were_not_added(database, database_url, aged):
    """Between the note of what goes and the last of it, and where they come late: the next round has them."""
    async with database.transaction() as connection, opened(connection):
        await connection.execute("UPDATE audit_seals SET sealed_at = 1 WHERE day = -1")
        await note_removal(connection, CHAIN, Removal(DAYS, "", TODAY - 15, 1.0))

    told = [day async for day in Verifying(database, CHAIN).days()]

    assert [(TODAY - day.day, day.fault_count) for day in told[1:]] == [(10, 0), (5, 0), (0, 0)]
    alone = [day async for day in Verifying(database, CHAIN).days(TODAY - 20)]
    assert (TODAY - alone[1].day, alone[1].fault_count) == (20, 0)


async def test_a_gateway_removes_once_a_day_what_it_may(database, database_url, aged, monkeypatch):
    one = retention(database, database_url, 30)

    await one.remove_if_due()
    left = await ages(database)
    await AuditLog(database, CHAIN).write([row(60, "t2", 9)])
    await one.remove_if_due()

    assert len(left) == 3 * 3 + 3 * 3 * 4
    assert ("t2", 60) in await ages(database)


async def test_a_batch_that_comes_late_leaves_no_seal_without_a_head(
    database, database_url, aged, monkeypatch
):
    """It may come in between the last seals of its day and their head; later ones begin the day anew."""
    log, delete_seals = AuditLog(database, CHAIN), Retention._change_seals
    late = [row(20, "t1", 7)]

    async def and_one_comes(self, *arguments) -> bool:
        is_going_on = await delete_seals(self, *arguments)
        if late and not is_going_on:
            await log.write([late.pop()])
        return is_going_on

    monkeypatch.setattr(Retention, "_change_seals", and_one_comes)
    await removed(retention(database, database_url, 15))
    monkeypatch.undo()

    left = ask(database_url, f"SELECT * FROM audit_seals WHERE day = {TODAY - 20}")
    await log.write([row(20, f"t{number}", number) for number in range(9)])
    assert left == []
    assert await fault_count(database) == 0


async def test_a_head_that_goes_while_somebody_seals_is_made_again(database, monkeypatch):
    """Nothing of the batch is lost, nor taken for what can't be stored."""
    there, seen = audit_sealing._there, []

    async def as_before(connection, days) -> set[int]:
        seen.append(days)
        return days if len(seen) == 1 else await there(connection, days)

    monkeypatch.setattr(audit_sealing, "_there", as_before)
    await AuditLog(database, CHAIN).write([row(5, "t1")])

    assert [day.rows async for day in Verifying(database, CHAIN).days()] == [0, 1]
    assert await fault_count(database) == 0


async def test_a_failure_of_retention_is_told(database, database_url, aged, monkeypatch, warnings):
    """Else a log that grows for ever would look like one that is kept for its time."""

    async def failing(self, before: int, page: int) -> None:
        raise StoreUnavailable

    monkeypatch.setattr(Retention, "_delete_seals", failing)
    with pytest.raises(StoreUnavailable):
        await retention(database, database_url, 15).remove_if_due()

    assert warnings == ["audit rows whose time is over could not all be removed; it is tried again"]


async def test_two_who_remove_at_once_remove_each_row_once(database, database_url, aged):
    async with database_at(database_url) as other:
        both = await asyncio.gather(
            removed(retention(database, database_url, 30)), removed(retention(other, database_url, 30))
        )

    assert sum(one.rows for one in both) == 15
    assert await fault_count(database) == 0


# ── days as tables, on Postgres ──────────────────────────────────────────────────────────


def tables(url: str) -> dict[str, int]:
    """How many rows each part of the log has."""
    names = ask(
        url,
        "SELECT relname::text AS name FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid"
        " WHERE inhparent = 'audit'::regclass ORDER BY relname",
    )
    return {one["name"]: ask(url, f"SELECT count(*) AS n FROM {one['name']}")[0]["n"] for one in names}


def name_of(age: int) -> str:
    return time.strftime("audit_%Y%m%d", time.gmtime((TODAY - age) * 86_400))


async def test_days_are_made_ahead_and_a_row_is_never_without_a_place(postgres_url):
    """A spool that is days old, and a clock that is weeks ahead: kept first, and moved to their day."""
    async with database_at(postgres_url) as database:
        log = AuditLog(database, CHAIN)
        await log.write([row(0, "t1"), row(30, "t1"), row(-30, "t1"), audit_row(1)])
        before = tables(postgres_url)
        await log.write([row(30, "t1")])

        await retention(database, postgres_url, None).make_ahead()
        after = tables(postgres_url)
        await log.write([row(30, "t1"), row(-30, "t1"), audit_row(1)])

        assert (before[name_of(0)], before["audit_other"]) == (1, 3)
        assert {name_of(-ahead) for ahead in range(8)} <= set(before)
        assert (after[name_of(30)], after[name_of(-30)], after["audit_other"]) == (1, 1, 1)
        assert tables(postgres_url) == after
        assert await fault_count(database) == 0


async def test_a_table_that_somebody_reads_for_long_is_emptied_and_dropped_later(postgres_url, warnings):
    """Rows of others go meanwhile."""
    async with database_at(postgres_url) as database:
        one = retention(database, postgres_url, 15)
        await AuditLog(database, CHAIN).write([row(age, "t1") for age in (0, 20, 40)])
        await one.make_ahead()

        async with database.session() as reader:
            await reader.execute("BEGIN")
            await reader.fetch_all(f"SELECT * FROM {name_of(40)}")
            busy = await removed(one)
            await reader.execute("COMMIT")
        left = tables(postgres_url)
        idle = await removed(one)

    assert (busy, left[name_of(40)], left[name_of(20)], left[name_of(0)]) == (Expired(0, 2), 0, 0, 1)
    assert warnings == [f"the audit log's table {name_of(40)} can't be dropped now; its rows go one by one"]
    assert idle == Expired(days=2, rows=0)
    assert name_of(20) not in tables(postgres_url)


async def test_many_who_make_days_at_once_while_others_write_all_end_well(postgres_url):
    """Of gateways that start together each makes what it finds missing; rows come in meanwhile."""
    ask(postgres_url, f"DROP TABLE {name_of(0)}, {name_of(-1)}")
    async with database_at(postgres_url, connections=8) as database:
        log = AuditLog(database, CHAIN)
        await asyncio.gather(
            *(retention(database, postgres_url, None).make_ahead() for _ in range(4)),
            *(log.write([row(0, f"t{n}", n), row(-1, f"t{n}", n)]) for n in range(10)),
        )
        await retention(database, postgres_url, None).make_ahead()

        told = tables(postgres_url)
        assert (told[name_of(0)], told[name_of(-1)], told["audit_other"]) == (10, 10, 0)
        assert await fault_count(database) == 0


async def test_a_log_from_before_is_kept_whole_and_goes_when_its_last_day_is_over(empty_postgres_url):
    """It becomes one part of the new one; a gateway of the older version goes on writing meanwhile."""
    url = empty_postgres_url
    migrate(url)
    roll_back(url, "0020_audit_kept", "0021_audit_seals", "0030_audit_guarded")
    for one in (row(40, "t1"), row(0, "t1"), row(-20, "t1"), audit_row(1)):
        write_as_before(url, one)
    rows = ask(url, "SELECT * FROM audit ORDER BY request_id")

    migrate(url)
    write_as_before(url, row(0, "t1"), row(0, "t1", 7))

    told = tables(url)
    assert (told["audit_before"], told[name_of(-20)], told["audit_other"]) == (4, 1, 0)
    assert [one for one in ask(url, "SELECT * FROM audit ORDER BY request_id") if one in rows] == rows
    async with database_at(url) as database:
        await removed(retention(database, url, 30))
        assert sorted(age for _, age in await ages(database) if age < 1_000) == [-20, 0, 0]
        assert "audit_before" in tables(url)
    ask(url, "INSERT INTO meta (name, value) VALUES ('audit_before_until', '1')")
    async with database_at(url) as database:
        days = audit_days(url, database)
        assert await days.drop_before(TODAY) == 0
        assert "audit_before" in tables(url)
        assert await days.drop_before(TODAY + 1) == 1
    assert "audit_before" not in tables(url)

    roll_back(url, "0020_audit_kept", "0021_audit_seals", "0030_audit_guarded")
    assert len(ask(url, "SELECT * FROM audit")) == 1


def roll_back(url: str, *ids: str) -> None:
    migrator = migrator_of(url)
    with migrator.backend() as backend:
        for migration in backend.to_rollback(known(migrator)):
            if migration.id in ids:
                with backend.transaction():
                    migration.process_steps(backend, "rollback")
                    backend.unmark_one(migration)


def write_as_before(url: str, *rows: AuditRow) -> None:
    """In the very words of the version before: an id is unique over all days."""
    for one in rows:
        ask(
            url,
            "INSERT INTO audit (request_id, received_at_us, tenant_id, peer, method, path, surface, stream,"
            " status, outcome, tokens_estimated, duration_ms, bytes_in, bytes_out, recorded_at) VALUES"
            " (:id, :at, :tenant, '', 'GET', '/', 'ollama', FALSE, 200, 'served', FALSE, 1, 0, 0, 5)"
            " ON CONFLICT (request_id) DO NOTHING",
            id=one.request_id,
            at=one.received_at_us,
            tenant=one.tenant_id,
        )
