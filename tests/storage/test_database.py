"""SQLite that keeps its connections: none leaks, writers take turns, failures have a name."""

import asyncio
import random
import sqlite3
import stat

import pytest

from gateway.errors import StoreUnavailable
from gateway.storage import database as module
from gateway.storage.database import CONNECTIONS, Database, database_path, make_database_file
from gateway.storage.refusals import DatabaseUnusable

COUNT = "SELECT value FROM meta WHERE name = 'count'"


@pytest.fixture
async def counter(database):
    """A database with a number in it, 0 at first."""
    async with database.transaction() as connection:
        await connection.execute("INSERT INTO meta (name, value) VALUES ('count', '0')")
    return database


async def increment(database: Database) -> None:
    async with database.transaction() as connection:
        count = int(await connection.fetch_val(COUNT))
        await connection.execute("UPDATE meta SET value = :new WHERE name = 'count'", {"new": str(count + 1)})


async def count_of(database: Database) -> int:
    async with database.session() as connection:
        return int(await connection.fetch_val(COUNT))


async def use_all_connections_at_once(database: Database) -> None:
    """Ends only when every connection of the pool can be had."""
    everybody_has_one = asyncio.Barrier(CONNECTIONS)

    async def use() -> None:
        async with database.session() as connection:
            await connection.fetch_val("SELECT 1")
            await everybody_has_one.wait()

    async with asyncio.timeout(10):
        await asyncio.gather(*(use() for _ in range(CONNECTIONS)))


async def test_two_hundred_transactions_that_read_and_then_write_all_succeed(counter):
    """Deferred transactions would fail here with "database is locked", nearly all of them."""
    await asyncio.gather(*(increment(counter) for _ in range(200)))

    assert await count_of(counter) == 200


async def test_two_gateways_on_one_file_count_together(counter, database_url):
    """What one process serialises by itself, two leave to SQLite's own lock."""
    async with Database(database_url) as other:
        await asyncio.gather(*(increment(one) for one in [counter, other] * 50))

    assert await count_of(counter) == 100


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

    with pytest.raises(LookupError):
        await fail()

    assert await count_of(counter) == 0
    await use_all_connections_at_once(counter)


async def test_a_commit_that_fails_gives_its_connection_back(counter):
    """Upstream loses the connection for ever."""

    async def add_a_key_of_nobody() -> None:
        async with counter.transaction() as connection:
            await connection.execute("PRAGMA defer_foreign_keys = ON")
            await connection.execute(
                "INSERT INTO keys (id, tenant_id, name, folded, prefix, mac, argon2, created_at)"
                " VALUES ('k', 'nobody', 'n', 'n', 'p', zeroblob(32), 'a', 1)"
            )

    for _ in range(2 * CONNECTIONS):
        with pytest.raises(sqlite3.IntegrityError):
            await add_a_key_of_nobody()

    await use_all_connections_at_once(counter)


async def test_a_transaction_inside_another_is_a_defect(database):
    """It would wait for itself."""
    with pytest.raises(RuntimeError, match="inside another one"):
        async with database.transaction(), database.transaction():
            pass


async def test_without_a_free_connection_the_store_is_unavailable(database_url):
    """A caller waits for `acquire_s`, not for ever."""
    async with Database(database_url, connections=1, acquire_s=0.01) as database, database.session():
        with pytest.raises(StoreUnavailable):
            await asyncio.create_task(count_of(database))


async def test_without_a_turn_to_write_the_store_is_unavailable(database_url):
    """The same bound holds for writers that wait for each other."""
    async with Database(database_url, acquire_s=0.01) as database, database.transaction():
        with pytest.raises(StoreUnavailable):
            await asyncio.create_task(increment(database))


async def test_a_database_locked_by_another_process_is_unavailable(database_url, monkeypatch):
    """The driver's words stay inside."""
    monkeypatch.setattr(module, "BUSY_S", 0.01)
    other = sqlite3.connect(database_url.removeprefix("sqlite:///"), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    async with Database(database_url) as database:
        with pytest.raises(StoreUnavailable):
            await increment(database)
    other.close()


async def test_after_disconnecting_the_store_is_unavailable(database_url):
    """Whoever is late during a shutdown gets a 503, no traceback."""
    database = Database(database_url)
    await database.connect()
    await database.disconnect()

    with pytest.raises(StoreUnavailable):
        await count_of(database)


async def test_connections_are_tuned(database):
    """WAL, so that readers don't wait for writers; foreign keys, which SQLite leaves off by default."""
    async with database.session() as connection:
        settings = {
            name: await connection.fetch_val(f"PRAGMA {name}")
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }

    assert settings == {"journal_mode": "wal", "synchronous": 1, "foreign_keys": 1, "busy_timeout": 2000}


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///data/gateway.db", "data/gateway.db"),
        ("sqlite:///a%20b.db", "a b.db"),
        ("sqlite:////var/lib/gateway.db", "/var/lib/gateway.db"),
    ],
)
def test_a_relative_path_is_relative_to_the_working_directory(url, path, tmp_path, monkeypatch):
    """Three slashes are relative, four absolute."""
    monkeypatch.chdir(tmp_path)

    assert database_path(url) == tmp_path / path


def test_the_file_is_for_its_owner_only(tmp_path):
    """It holds hashes of keys and who asked for what; so does its directory, when we make it."""
    path = make_database_file(f"sqlite:///{tmp_path}/data/gateway.db")

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


async def test_wal_and_shared_memory_are_for_their_owner_only(database, tmp_path):
    """SQLite gives them the mode of the database."""
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in tmp_path.iterdir()}

    assert modes == {
        "gateway.db": "0o600",
        "gateway.db-shm": "0o600",
        "gateway.db-wal": "0o600",
        "gateway.db.migrating": "0o600",
    }


async def test_a_missing_database_is_not_made_by_opening_it(tmp_path):
    """Only `migrate` makes one: a typo in DATABASE_URL must not serve from an empty database."""
    with pytest.raises(DatabaseUnusable, match=r"no database at .*/gateway.db; `neuronetz-gateway migrate`"):
        await Database(f"sqlite:///{tmp_path}/gateway.db").connect()

    assert list(tmp_path.iterdir()) == []


async def test_a_file_that_is_no_database_is_told(tmp_path):
    """In one sentence that names the file."""
    (tmp_path / "gateway.db").write_bytes(b"not a database, but long enough to be looked at" * 100)

    with pytest.raises(DatabaseUnusable, match=r"gateway.db can't be used: file is not a database\."):
        await Database(f"sqlite:///{tmp_path}/gateway.db").connect()


@pytest.mark.parametrize("where", ["a-file/gateway.db", "a-directory"])
def test_a_path_that_can_not_be_is_told(where, tmp_path):
    """Whatever the system says becomes part of one sentence."""
    (tmp_path / "a-file").touch()
    (tmp_path / "a-directory").mkdir()

    with pytest.raises(DatabaseUnusable, match="can't be used: "):
        make_database_file(f"sqlite:///{tmp_path}/{where}")


def test_another_kind_of_database_is_told():
    """This version speaks SQLite only."""
    with pytest.raises(DatabaseUnusable, match="is no SQLite URL"):
        Database("postgresql://localhost/gateway")
