"""What both engines promise: no connection leaks, writers take turns, all or nothing."""

import asyncio
import random

import pytest

from gateway.errors import StoreUnavailable, Unstorable
from gateway.storage.database import ACQUIRE_S, CONNECTIONS, Database
from gateway.storage.engines import database_at

COUNT = "SELECT value FROM meta WHERE name = 'count'"


@pytest.fixture
async def counter(database):
    """A database with a number in it, 0 at first."""
    async with database.transaction() as connection:
        await connection.execute("INSERT INTO meta (name, value) VALUES ('count', '0')")
    return database


async def increment(database: Database) -> None:
    async with database.transaction("count") as connection:
        count = int(await connection.fetch_val(COUNT))
        await connection.execute("UPDATE meta SET value = :new WHERE name = 'count'", {"new": str(count + 1)})


async def count_of(database: Database) -> int:
    async with database.session() as connection:
        return int(await connection.fetch_val(COUNT))


async def use_all_connections_at_once(database: Database) -> None:
    """Ends only when every connection can be had."""
    everybody_has_one = asyncio.Barrier(CONNECTIONS)

    async def use() -> None:
        async with database.session() as connection:
            await connection.fetch_val("SELECT 1")
            await everybody_has_one.wait()

    async with asyncio.timeout(20):
        await asyncio.gather(*(use() for _ in range(CONNECTIONS)))


async def test_a_hundred_transactions_that_read_and_then_write_all_succeed(counter):
    """What one has read still holds when it writes, or one of two increments would be lost."""
    await asyncio.gather(*(increment(counter) for _ in range(100)))

    assert await count_of(counter) == 100


async def test_two_gateways_on_one_database_count_together(counter, database_url):
    """What one process serialises by itself, two leave to the database's own locks."""
    async with database_at(database_url) as other:
        await asyncio.gather(*(increment(one) for one in [counter, other] * 10))

    assert await count_of(counter) == 20


async def test_a_storm_of_cancellations_leaks_no_connection(counter):
    """Cancelled at any await, a transaction is whole or undone, and its connection comes back."""
    dice = random.Random(1)
    tasks = []
    for _ in range(300):
        tasks.append(asyncio.create_task(increment(counter)))
        for _ in range(dice.randrange(12)):
            await asyncio.sleep(0)
        dice.choice(tasks).cancel()
    ended = await asyncio.gather(*tasks, return_exceptions=True)

    await use_all_connections_at_once(counter)
    await increment(counter)
    succeeded = sum(end is None for end in ended)
    assert await count_of(counter) >= succeeded + 1
    assert {type(end) for end in ended} == {type(None), asyncio.CancelledError}


async def test_a_failing_transaction_changes_nothing(counter):
    """Whatever its body raises passes on, after the rollback."""

    async def fail() -> None:
        async with counter.transaction() as connection:
            await connection.execute("UPDATE meta SET value = '7'")
            raise LookupError

    for _ in range(2 * CONNECTIONS):
        with pytest.raises(LookupError):
            await fail()

    assert await count_of(counter) == 0
    await use_all_connections_at_once(counter)


async def test_a_statement_that_fails_undoes_the_whole_transaction(counter):
    """What is committed is never half of what was meant."""

    async def fail_on_the_way() -> None:
        async with counter.transaction() as connection:
            await connection.execute("UPDATE meta SET value = '7'")
            await connection.execute("INSERT INTO meta (name, value) VALUES ('count', '8')")

    for _ in range(2 * CONNECTIONS):
        with pytest.raises(Unstorable, match=r"(?i)unique constraint"):
            await fail_on_the_way()

    assert await count_of(counter) == 0
    await use_all_connections_at_once(counter)


async def test_without_a_free_connection_the_store_is_unavailable(database_url):
    """A caller waits for ACQUIRE_S, not for ever."""
    async with database_at(database_url, connections=1) as database, database.session():
        async with asyncio.timeout(10 * ACQUIRE_S):
            with pytest.raises(StoreUnavailable):
                await asyncio.create_task(count_of(database))


async def test_after_closing_the_store_is_unavailable(database_url):
    """Whoever is late during a shutdown gets a 503, no traceback."""
    async with database_at(database_url) as database:
        pass

    with pytest.raises(StoreUnavailable):
        await count_of(database)


async def test_a_snapshot_is_of_one_moment(counter):
    """What others commit meanwhile is not in it; and it keeps nobody from committing."""
    async with counter.snapshot() as connection:
        before = await connection.fetch_val(COUNT)
        await asyncio.create_task(increment(counter))
        after = await connection.fetch_val(COUNT)

    assert (before, after) == ("0", "0")
    assert await count_of(counter) == 1


async def test_a_list_of_any_length_is_one_value(counter):
    """Names of one, of none, of very many."""
    statement = "SELECT count(*) FROM meta WHERE name IN EACH(:names)"
    async with counter.session() as connection:
        found = [
            await connection.fetch_val(statement, {"names": names})
            for names in ([], ["count"], ["count", "it's", '"', "{x}"] * 20_000)
        ]

    assert found == [0, 1, 1]
