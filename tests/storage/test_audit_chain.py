"""The chain over audit rows: what is done without the secret shows, what is done on purpose does not."""

import asyncio
from typing import Any

import pytest
from attrs import evolve

from gateway.model import AuditRow
from gateway.rules.audit_chain import DAY_US, REGISTER, Chain, Removal
from gateway.storage import audit_verifying
from gateway.storage.audit import AuditLog
from gateway.storage.audit_purging import AuditPurging
from gateway.storage.audit_removals import PURGE, opened
from gateway.storage.audit_verifying import Day, Head, Verifying
from gateway.storage.engines import database_at
from tests.storage.samples import ACME, CHAIN, audit_row

TODAY = 1_700_000_000_000_000 // DAY_US


def row(number: int, day: int = 0, **changes: Any) -> AuditRow:
    """Some day after the first one."""
    return audit_row(number, **{"received_at_us": 2**51 + day * DAY_US + number, **changes})


FIRST = 2**51 // DAY_US


async def verified(database: Any, *anchors: Head, only: int | None = None) -> list[Day]:
    return [day async for day in Verifying(database, CHAIN, anchors).days(only)]


async def faults(database: Any, *anchors: Head) -> list[tuple[int, str | None, str]]:
    """Day (from the first), request and what is told of it."""
    return [
        (day.day if day.day == REGISTER else day.day - FIRST, fault.request_id, fault.what)
        for day in await verified(database, *anchors)
        for fault in day.faults
    ]


async def tampered(database: Any, *statements: str) -> None:
    """By somebody who has all rights on the database."""
    async with database.transaction() as connection, opened(connection):
        for statement in statements:
            await connection.execute(statement)


@pytest.fixture
async def log(database) -> AuditLog:
    """Three batches on two days, of a tenant and of nobody."""
    log = AuditLog(database, CHAIN)
    await log.write([row(1), row(2, tenant_id=None, key_id=None), row(3, load_ms=7, first_token_ms=0.1)])
    await log.write([row(4), row(5, day=1)])
    await log.write([row(6, day=1, stream=False, peer="", user_agent=None)])
    return log


async def test_what_was_written_is_whole(database, log):
    """Every row, in every kind of value, on both engines."""
    told = await verified(database)

    assert [(day.day - FIRST, day.rows, day.fault_count) for day in told[1:]] == [(0, 4, 0), (1, 2, 0)]
    assert (told[0].day, told[0].fault_count) == (REGISTER, 0)


async def test_a_batch_that_comes_again_is_sealed_once(database, log):
    """What is drained twice is there once, and its seal too."""
    await log.write([row(6, day=1), row(7, day=1)])

    assert sum(day.rows for day in await verified(database)) == 7
    assert await faults(database) == []


TAMPERING = {
    "a changed row": (
        ["UPDATE audit SET status = 500 WHERE request_id = 'r3'"],
        [(0, "r3", "was changed")],
    ),
    "a changed address": (
        ["UPDATE audit SET peer = '10.0.0.1' WHERE request_id = 'r3'"],
        [(0, "r3", "was changed in what is personal")],
    ),
    "an address removed, by no purge": (
        ["UPDATE audit SET peer = '', user_agent = NULL WHERE request_id = 'r3'"],
        [(0, "r3", "was changed in what is personal")],
    ),
    "a deleted row": (["DELETE FROM audit WHERE request_id = 'r1'"], [(0, "r1", "was deleted")]),
    "a row that was moved to another time": (
        ["UPDATE audit SET received_at_us = received_at_us - 1 WHERE request_id = 'r4'"],
        [(0, "r4", "was changed")],
    ),
    "two rows that changed places": (
        [
            "UPDATE audit SET request_id = 'x' WHERE request_id = 'r3'",
            "UPDATE audit SET request_id = 'r3' WHERE request_id = 'r4'",
            "UPDATE audit SET request_id = 'r4' WHERE request_id = 'x'",
        ],
        [(0, "r3", "was changed"), (0, "r4", "was changed")],
    ),
    "a row and its seal, in the middle": (
        [
            "DELETE FROM audit WHERE request_id = 'r2'",
            "DELETE FROM audit_seals WHERE tenant_id = '' AND day >= 0",
        ],
        [(0, None, "seals are missing before this one")],
    ),
    "the last rows of a day, with their seals": (
        [
            "DELETE FROM audit WHERE request_id = 'r6'",
            f"DELETE FROM audit_seals WHERE day = {FIRST + 1} AND seq = 2",
        ],
        [(1, None, "the last seals are missing")],
    ),
    "a seal that names other rows": (
        ["UPDATE audit_seals SET ids = 'r1' WHERE ids = 'r4'"],
        [(0, None, "the seal was changed"), (0, "r1", "was changed")],
    ),
    "an end of the chain that was moved": (
        [f"UPDATE audit_heads SET seq = 1 WHERE day = {FIRST + 1}"],
        [(1, None, "the end of the chain was changed")],
    ),
    "the end of a chain that is gone": (
        [f"DELETE FROM audit_heads WHERE day = {FIRST + 1}"],
        [(1, None, "the end of the chain is missing")],
    ),
    "a whole day": (
        [
            f"DELETE FROM {table} WHERE {column} >= {first}"
            for table, column, first in (
                ("audit", "received_at_us", (FIRST + 1) * DAY_US),
                ("audit_seals", "day", FIRST + 1),
                ("audit_heads", "day", FIRST + 1),
            )
        ],
        [(1, None, "the end of the chain is missing")],
    ),
    "a note of a removal that nobody made": (
        [
            "INSERT INTO audit_removals (kind, tenant_id, before_day, at, proof) "
            "SELECT 'days', '', 99999999, 0, mac FROM audit_heads WHERE day = -1"
        ],
        [(REGISTER, None, "the note of what was removed (days) was not made with the secret")],
    ),
    "all seals": (
        ["DELETE FROM audit_seals", "DELETE FROM audit_heads"],
        [(REGISTER, None, "there are rows, and no seals: nothing can be verified")],
    ),
    "a seal that was emptied": (
        ["UPDATE audit_seals SET ids = '' WHERE ids = 'r4'", "DELETE FROM audit WHERE request_id = 'r4'"],
        [(0, None, "a seal was emptied before the time of its rows")],
    ),
}


@pytest.mark.parametrize("case", TAMPERING)
async def test_what_is_done_without_the_secret_shows(database, log, case):
    """The day is named, and the first bad row."""
    statements, expected = TAMPERING[case]

    await tampered(database, *statements)

    assert await faults(database) == expected


@pytest.mark.parametrize("day", [0, 1, 5], ids=["with others", "of the last day", "of a day of its own"])
async def test_a_row_that_somebody_added_shows(database, log, day):
    """It is in no seal, and none can be made without the secret."""
    await tampered(
        database,
        "INSERT INTO audit (request_id, received_at_us, peer, method, path, surface, stream, status, outcome,"
        " tokens_estimated, duration_ms, bytes_in, bytes_out, recorded_at)"
        f" SELECT 'added', {row(0, day=day).received_at_us}, peer, method, path, surface, stream, status,"
        " outcome, tokens_estimated, duration_ms, bytes_in, bytes_out, recorded_at"
        " FROM audit WHERE request_id = 'r1'",
    )

    assert await faults(database) == [(day, "added", audit_verifying._ADDED)]


async def test_added_rows_are_found_among_more_than_memory_may_hold(database, log, monkeypatch):
    """A few at a time: each of them once."""
    monkeypatch.setattr(audit_verifying, "_MOST_IDS", 1)
    for number in range(9):
        await tampered(
            database,
            "INSERT INTO audit (request_id, received_at_us, peer, method, path, surface, stream, status,"
            " outcome, tokens_estimated, duration_ms, bytes_in, bytes_out, recorded_at)"
            f" SELECT 'added{number}', received_at_us, peer, method, path, surface, stream, status,"
            " outcome, tokens_estimated, duration_ms, bytes_in, bytes_out, recorded_at"
            " FROM audit WHERE request_id = 'r1'",
        )

    assert sorted(await faults(database)) == [
        (0, f"added{number}", audit_verifying._ADDED) for number in range(9)
    ]


async def test_under_another_secret_nothing_is_right(database, log):
    """So nobody can make a chain of their own."""
    told = [day async for day in Verifying(database, Chain(b"another secret")).days()]

    assert all(day.fault_count for day in told)


async def test_an_earlier_state_that_was_restored_shows_against_what_was_kept_elsewhere(database, log):
    """A restored backup is right in itself: only somebody who knows how it went on can tell."""
    verifying = Verifying(database, CHAIN)
    assert not any([day.fault_count async for day in verifying.days()])
    await tampered(
        database,
        "DELETE FROM audit WHERE request_id = 'r4'",
        f"DELETE FROM audit_seals WHERE day = {FIRST} AND seq = 3",
    )
    async with database.transaction() as connection:
        head = await connection.fetch_one(f"SELECT mac FROM audit_seals WHERE day = {FIRST} AND seq = 2")
        proof = CHAIN.proof_of_head(FIRST, 2, bytes(head["mac"]))
        await connection.execute(
            f"UPDATE audit_heads SET seq = 2, mac = :mac, proof = :proof WHERE day = {FIRST}",
            {"mac": bytes(head["mac"]), "proof": proof},
        )

    assert await faults(database) == []
    assert await faults(database, *verifying.heads) == [
        (0, None, "the chain is not the one that was anchored")
    ]


async def test_many_who_write_share_one_chain_a_day(database, database_url):
    """Also those who begin the same days at once: nobody fails, and nothing is left out."""
    async with database_at(database_url) as other:
        logs = [AuditLog(database, CHAIN), AuditLog(other, CHAIN)]
        batches = [
            [row(100 * one + number, day=number % 3, tenant_id=f"t{one % 4}") for number in range(9)]
            for one in range(12)
        ]
        await asyncio.gather(*(logs[number % 2].write(batch) for number, batch in enumerate(batches)))

    told = await verified(database)
    assert [(day.rows, day.fault_count) for day in told] == [(0, 0), (36, 0), (36, 0), (36, 0)]
    assert told[0].seals == 3


async def test_a_day_that_comes_late_is_in_the_register(database, log):
    """A spool may be drained days later: its day can't be taken away as a whole either."""
    await log.write([row(9, day=-3)])
    assert await faults(database) == []

    await tampered(
        database, *(f"DELETE FROM {one} WHERE day = {FIRST - 3}" for one in ("audit_seals", "audit_heads"))
    )

    assert (-3, None, "the end of the chain is missing") in await faults(database)


async def test_a_purge_is_no_tampering_and_leaves_no_proof_of_an_address(database, log):
    """Facts are proven as before; what is personal can't be guessed at any more, also not with the secret."""
    purging = AuditPurging(database)
    purge = await purging.begin(evolve(ACME, id="t1"), CHAIN)
    [_ async for _ in purging.rows("t1", CHAIN)]
    half = await faults(database)
    await purging.end("t1", purge)

    told = await verified(database)
    async with database.session() as connection:
        salts = await connection.fetch_all("SELECT tenant_id, salt FROM audit_seals WHERE day >= 0")
    assert half == []
    assert [(day.rows, day.purged, day.fault_count) for day in told[1:]] == [(4, 3, 0), (2, 2, 0)]
    assert {(row["tenant_id"], row["salt"] is None) for row in salts} == {("t1", True), ("", False)}


async def test_what_comes_in_during_a_purge_is_removed_counted_and_no_tampering(database, log):
    """A tenant may go on sending: the purge goes up to its newest row, and its note with it."""
    purging = AuditPurging(database)
    purge = await purging.begin(evolve(ACME, id="t1"), CHAIN)
    async with database.transaction() as connection:  # as it is when more than an instant goes by
        removal = Removal(PURGE, "t1", 0, 1.0)
        values = {"at": 1.0, "proof": CHAIN.proof_of_removal(removal)}
        await connection.execute("UPDATE audit_removals SET at = :at, proof = :proof", values)
    await log.write([row(8, day=1)])

    pages = [page async for page in purging.rows("t1", CHAIN, 2)]
    await log.write([row(9, day=-1), row(10, day=-1, peer="", user_agent=None)])
    await purging.end("t1", purge)

    told = await verified(database)
    async with database.session() as connection:
        salted = await connection.fetch_all("SELECT ids FROM audit_seals WHERE salt IS NOT NULL AND day >= 0")
    assert [count for count, _ in pages] == [2, 2, 2]
    assert sum(removed.addresses for _, removed in pages) == purge.found.addresses + 1
    purged = [(day.rows, day.purged, day.fault_count) for day in told[1:]]
    assert purged == [(2, 0, 0), (4, 3, 0), (3, 3, 0)]
    assert sorted(one["ids"] for one in salted) == ["r10 r9", "r2"]


async def test_what_comes_after_a_purge_is_proven_as_ever(database, log):
    """It is personal again, and must not be taken away without another purge."""
    purging = AuditPurging(database)
    purge = await purging.begin(evolve(ACME, id="t1"), CHAIN)
    [_ async for _ in purging.rows("t1", CHAIN)]
    await purging.end("t1", purge)
    await log.write([row(8, day=1)])

    assert await faults(database) == []
    await tampered(database, "UPDATE audit SET peer = '', user_agent = NULL WHERE request_id = 'r8'")
    assert await faults(database) == [(1, "r8", "was changed in what is personal")]


async def test_a_changed_fact_of_a_purged_row_shows(database, log):
    purging = AuditPurging(database)
    await purging.begin(evolve(ACME, id="t1"), CHAIN)
    [_ async for _ in purging.rows("t1", CHAIN)]

    await tampered(database, "UPDATE audit SET model = 'x' WHERE request_id = 'r1'")

    assert await faults(database) == [(0, "r1", "was changed")]


async def test_one_day_can_be_verified_alone(database, log):
    await tampered(database, "UPDATE audit SET status = 500 WHERE request_id = 'r1'")

    assert [(day.day - FIRST, day.fault_count) for day in (await verified(database, only=FIRST + 1))[1:]] == [
        (1, 0)
    ]
    assert [day.fault_count for day in (await verified(database, only=FIRST))[1:]] == [1]
    assert [(day.rows, day.fault_count) for day in (await verified(database, only=FIRST + 9))[1:]] == [(0, 0)]


async def test_rows_from_before_there_were_seals_are_told_apart(database):
    """An upgraded log: nothing is known of them, and they are no fault."""
    names = (
        "request_id, received_at_us, peer, method, path, surface, stream, status, outcome, tokens_estimated"
    )
    await tampered(
        database,
        f"INSERT INTO audit ({names}, duration_ms, bytes_in, bytes_out, recorded_at) VALUES"
        " ('old', 1700000000000000, '', 'GET', '/', 'ollama', FALSE, 200, 'served', FALSE, 1, 0, 0, 0)",
    )
    await AuditLog(database, CHAIN).write([audit_row(1)])

    (_, day) = await verified(database)

    assert (day.rows, day.unsealed, day.fault_count) == (1, 1, 0)


async def test_pages_change_nothing(database, log, monkeypatch):
    monkeypatch.setattr(audit_verifying, "_PAGE_SEALS", 1)
    monkeypatch.setattr(audit_verifying, "_PAGE_ROWS", 1)

    assert await faults(database) == []
    await tampered(database, "DELETE FROM audit WHERE request_id = 'r4'")
    assert await faults(database) == [(0, "r4", "was deleted")]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit SET status = 500",
        "DELETE FROM audit",
        "UPDATE audit_seals SET ids = ''",
        "DELETE FROM audit_seals",
    ],
)
async def test_sqlite_refuses_what_is_not_on_purpose(sqlite_url, statement):
    """A mistake in a shell must not be what tears the log."""
    async with database_at(sqlite_url) as database:
        await AuditLog(database, CHAIN).write([row(1)])
        with pytest.raises(Exception, match="audit rows are never"):
            async with database.transaction() as connection:
                await connection.execute(statement)

        assert await faults(database) == []
