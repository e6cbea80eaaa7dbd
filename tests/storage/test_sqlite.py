"""SQLite that keeps its connections: none leaks, writers take turns, files are looked after."""

import asyncio
import sqlite3
import stat

import pytest

from gateway.errors import StoreUnavailable, Unstorable
from gateway.storage.database import CONNECTIONS
from gateway.storage.refusals import DatabaseUnusable
from gateway.storage.sqlite import database as module
from gateway.storage.sqlite.database import SqliteDatabase, database_path, make_database_file
from tests.storage.test_database import use_all_connections_at_once

WRITE = "INSERT INTO meta (name, value) VALUES ('a', 'b')"


@pytest.fixture
async def database(sqlite_url):
    async with SqliteDatabase(sqlite_url) as opened:
        yield opened


async def write(database: SqliteDatabase) -> None:
    async with database.transaction() as connection:
        await connection.execute(WRITE)


async def test_a_commit_that_fails_gives_its_connection_back(database):
    """Upstream loses the connection for ever."""

    async def add_a_key_of_nobody() -> None:
        async with database.transaction() as connection:
            await connection.execute("PRAGMA defer_foreign_keys = ON")
            await connection.execute(
                "INSERT INTO keys (id, tenant_id, name, folded, prefix, mac, argon2, created_at)"
                " VALUES ('k', 'nobody', 'n', 'n', 'p', zeroblob(32), 'a', 1)"
            )

    for _ in range(2 * CONNECTIONS):
        with pytest.raises(Unstorable):
            await add_a_key_of_nobody()

    await use_all_connections_at_once(database)


async def test_a_transaction_inside_another_is_a_defect(database):
    """It would wait for itself."""
    with pytest.raises(RuntimeError, match="inside another one"):
        async with database.transaction(), database.transaction():
            pass


async def test_without_a_turn_to_write_the_store_is_unavailable(sqlite_url):
    """The same bound holds for writers that wait for each other."""
    async with SqliteDatabase(sqlite_url, acquire_s=0.01) as database, database.transaction():
        with pytest.raises(StoreUnavailable):
            await asyncio.create_task(write(database))


async def test_a_database_locked_by_another_process_is_unavailable(sqlite_url, monkeypatch):
    """The driver's words stay inside."""
    monkeypatch.setattr(module, "BUSY_S", 0.01)
    other = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    async with SqliteDatabase(sqlite_url) as database:
        with pytest.raises(StoreUnavailable):
            await write(database)
    other.close()


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
        await SqliteDatabase(f"sqlite:///{tmp_path}/gateway.db").connect()

    assert list(tmp_path.iterdir()) == []


async def test_a_file_that_is_no_database_is_told(tmp_path):
    """In one sentence that names the file."""
    (tmp_path / "gateway.db").write_bytes(b"not a database, but long enough to be looked at" * 100)

    with pytest.raises(DatabaseUnusable, match=r"gateway.db can't be used: file is not a database\."):
        await SqliteDatabase(f"sqlite:///{tmp_path}/gateway.db").connect()


@pytest.mark.parametrize("where", ["a-file/gateway.db", "a-directory"])
def test_a_path_that_can_not_be_is_told(where, tmp_path):
    """Whatever the system says becomes part of one sentence."""
    (tmp_path / "a-file").touch()
    (tmp_path / "a-directory").mkdir()

    with pytest.raises(DatabaseUnusable, match="can't be used: "):
        make_database_file(f"sqlite:///{tmp_path}/{where}")
