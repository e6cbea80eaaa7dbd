"""A Postgres that is killed, hangs or is out of reach: bounded waits, nothing doubled, nothing lost."""

import asyncio
import random
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import pytest

from gateway.accounting import Evidence, LedgerEntry, Scope
from gateway.errors import StoreUnavailable
from gateway.model import AuditRow
from gateway.storage.audit import AuditLog
from gateway.storage.database import ACQUIRE_S, Database
from gateway.storage.engines import database_at
from gateway.storage.keys import Keys
from gateway.storage.ledger import Ledger
from gateway.storage.postgres.database import LOOKUP_S, PostgresDatabase
from tests.databases import ask
from tests.fault_proxy import FaultProxy
from tests.postgres_server import PostgresServer
from tests.storage import writer
from tests.storage.samples import CHAIN, audit_row, intent, settled
from tests.storage.test_database import use_all_connections_at_once

# What a machine under load may add to a bound.
SLACK_S: Final = 3.0


@pytest.fixture
async def database(postgres_url):
    async with database_at(postgres_url) as opened:
        yield opened


async def until_it_works(work: Callable[[], Awaitable[Any]], within_s: float = 20.0) -> int:
    """Repeat what the database is not there for, as the spool does; how often it was not."""
    failures = 0
    async with asyncio.timeout(within_s):
        while True:
            try:
                await work()
            except StoreUnavailable:
                failures += 1
                await asyncio.sleep(0.01)
            else:
                return failures


async def test_batches_across_restarts_of_the_server_are_kept_once(
    database: Database, postgres_server: PostgresServer, postgres_url: str
):
    """Whether it died before, in or after the commit: the batch is given again, and changes nothing more."""
    ledger, audit = Ledger(database), AuditLog(database, CHAIN)
    dice = random.Random(3)
    failures = 0
    is_over = asyncio.Event()

    async def kill_now_and_then() -> None:
        for _ in range(4):
            await asyncio.sleep(dice.uniform(0.05, 0.3))
            postgres_server.kill()
            await asyncio.sleep(dice.uniform(0, 0.1))
            postgres_server.start()
        is_over.set()

    killing = asyncio.create_task(kill_now_and_then())
    number = 0
    while not is_over.is_set():
        entries = [intent(f"r{number + step}") for step in range(20)]
        ends = [settled(f"r{number + step}", tokens=number + step) for step in range(20)]
        rows = [audit_row(number + step) for step in range(20)]
        for write in (lambda: ledger.write(entries), lambda: ledger.write(ends), lambda: audit.write(rows)):  # noqa: B023
            failures += await until_it_works(write)
        number += 20
    await killing

    assert failures > 0
    assert await ledger.verify() == []
    (total,) = [one for one in await ledger.sums("t1", ["total"]) if one.scope is Scope.TENANT]
    assert (total.spent, total.reserved) == (sum(range(number)), 0)
    assert ask(postgres_url, "SELECT count(*) AS n FROM audit") == [{"n": number}]
    await use_all_connections_at_once(database)


async def test_a_server_that_hangs_is_not_waited_for(database: Database, postgres_server: PostgresServer):
    """Neither by those who have a connection nor by those who need one; it is used again once it answers."""
    await use_all_connections_at_once(database)
    ledger = Ledger(database)

    async def fails_in_time(work: Awaitable[Any]) -> float:
        began = time.monotonic()
        with pytest.raises(StoreUnavailable):
            await work
        return time.monotonic() - began

    with postgres_server.stopped():
        waited = await asyncio.gather(
            *(fails_in_time(Keys(database).key_by_prefix("nz_00000000")) for _ in range(8)),
            fails_in_time(ledger.snapshot("t1", ["total"])),
            fails_in_time(ledger.write([intent("r1")])),
        )
        assert max(waited) < LOOKUP_S + ACQUIRE_S + SLACK_S

    await until_it_works(lambda: ledger.write([settled("r1", tokens=7)]))
    assert await ledger.verify() == []
    await use_all_connections_at_once(database)


@pytest.mark.parametrize("fault", ["is_silent", "is_deaf"])
async def test_a_batch_of_unknown_outcome_can_be_given_again(
    fault: str, postgres_url: str, postgres_server: PostgresServer
):
    """The network falls silent, before the server or behind it: it may have committed all the same."""
    async with FaultProxy(postgres_server.port) as proxy:
        url = postgres_url.replace(str(postgres_server.port), str(proxy.port))
        async with database_at(url) as database:
            ledger = Ledger(database)
            await ledger.write([intent("r1"), intent("r2")])
            setattr(proxy, fault, True)
            with pytest.raises(StoreUnavailable):
                await ledger.write([settled("r1", tokens=7)])
            with pytest.raises(StoreUnavailable):
                await ledger.sums("t1", ["total"])
            setattr(proxy, fault, False)

            await until_it_works(lambda: ledger.write([settled("r1", tokens=7)]))

            assert await ledger.verify() == []
            sums = {(one.scope, one.spent, one.reserved) for one in await ledger.sums("t1", ["total"])}
            assert sums == {(Scope.TENANT, 7, 100), (Scope.KEY, 7, 100)}


async def test_a_connection_that_is_torn_is_replaced(postgres_url: str, postgres_server: PostgresServer):
    """All at once and while they are used, as a firewall does it."""
    async with FaultProxy(postgres_server.port) as proxy:
        url = postgres_url.replace(str(postgres_server.port), str(proxy.port))
        async with database_at(url) as database:
            for _ in range(5):
                looks = [asyncio.create_task(Keys(database).revision()) for _ in range(20)]
                await asyncio.sleep(0.002)
                proxy.reset()
                ended = await asyncio.gather(*looks, return_exceptions=True)
                assert {type(end) for end in ended} <= {int, StoreUnavailable}
                assert await until_it_works(lambda: Keys(database).revision()) <= 2
            await use_all_connections_at_once(database)


async def test_a_lock_that_is_held_for_too_long_is_not_waited_for(database: Database, monkeypatch):
    """Bounded as all waiting is; the batch comes again."""
    monkeypatch.setattr("gateway.storage.postgres.database.BATCH_S", 0.5)
    assert isinstance(database, PostgresDatabase)
    async with database.transaction("a", "b"):
        with pytest.raises(StoreUnavailable):
            async with asyncio.timeout(0.5 + SLACK_S):
                await asyncio.create_task(_take(database, "b", "c"))
        await _take(database, "c", "d")
    await _take(database, "b", "c")


async def _take(database: Database, *locks: str) -> None:
    async with database.transaction(*locks):
        pass


async def test_processes_that_write_at_once_end_in_the_same_numbers(postgres_url: str):
    """Overlapping batches in all orders, some twice, and a writer that is killed in the middle of it."""
    command = ("-m", "tests.storage.writer", postgres_url)
    writers = [
        await asyncio.create_subprocess_exec(sys.executable, *command, str(seed), stdout=subprocess.PIPE)
        for seed in range(4)
    ]
    assert writers[0].stdout is not None
    for _ in range(3):  # it tells each batch
        await writers[0].stdout.readline()
    writers[0].kill()
    for one in writers:
        await one.communicate()

    assert [one.returncode for one in writers[1:]] == [0, 0, 0]
    best: dict[str, LedgerEntry] = {}
    for entry in sorted(writer.ENTRIES, key=lambda entry: entry.evidence.rank):
        best[entry.reservation_id] = entry
    async with database_at(postgres_url) as database:
        ledger = Ledger(database)
        assert await ledger.verify() == []
        for tenant_id in writer.TENANTS:
            of_tenant = [entry for entry in best.values() if entry.tenant_id == tenant_id]
            spent = sum(one.tokens for one in of_tenant if one.evidence is not Evidence.INTENT)
            reserved = sum(one.reserved for one in of_tenant if one.evidence is Evidence.INTENT)
            (total,) = [one for one in await ledger.sums(tenant_id, ["total"]) if one.scope is Scope.TENANT]
            assert (total.spent, total.reserved) == (spent, reserved)
    rows = ask(postgres_url, "SELECT request_id, status FROM audit ORDER BY request_id")
    assert rows == [{"request_id": row.request_id, "status": row.status} for row in _sorted(writer.ROWS)]


def _sorted(rows: list[AuditRow]) -> list[AuditRow]:
    return sorted(rows, key=lambda row: row.request_id)
