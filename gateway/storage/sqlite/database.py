"""`databases.Database` with what it lacks on SQLite, through its own extension point SUPPORTED_BACKENDS.

What upstream 0.9.0 does and this does not: open a thread and a file for every query; leak a connection when a
transaction's COMMIT fails or is cancelled; begin transactions deferred, so that reading and then writing
fails under contention; wait without bound for a connection.

Two laws. Every use goes through `session` or `transaction`: there, and only there, driver errors become
ours. Giving a connection back never awaits, so a cancellation can't get between: what a
cancelled caller left unfinished on it is rolled back by a task of the pool before anybody else gets it.
"""

import asyncio
import contextlib
import json
import os
import re
import sqlite3
from collections.abc import AsyncIterator, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal, Self
from urllib.parse import unquote

import aiosqlite
import databases
from databases.backends.sqlite import SQLiteBackend, SQLiteConnection, SQLitePool

from gateway.errors import StoreUnavailable, Unstorable
from gateway.storage.database import ACQUIRE_S, CONNECTIONS, NOTHING, Row, Values
from gateway.storage.refusals import DatabaseUnusable

# How long SQLite waits for another process that is writing.
BUSY_S: Final = 2.0

# What the driver raises about values rather than about the database.
_UNSTORABLE: Final = (
    OverflowError,
    UnicodeError,
    sqlite3.IntegrityError,
    sqlite3.ProgrammingError,
    sqlite3.InterfaceError,
    sqlite3.DataError,
)

Synchronous = Literal["NORMAL", "FULL"]


def database_path(database_url: str) -> Path:
    """The file of `sqlite:///relative/path` or `sqlite:////absolute/path`, made absolute."""
    scheme, separator, path = database_url.partition(":///")
    if scheme != "sqlite" or not separator or not path:
        raise DatabaseUnusable(f"'{database_url}' is no SQLite URL, such as sqlite:///data/gateway.db.")
    return Path(unquote(path)).absolute()


def make_database_file(database_url: str) -> Path:
    """Make the file, mode 0600, and its directory, mode 0700, where they are missing.

    SQLite gives its -wal and -shm files the mode of the database. Raises DatabaseUnusable.
    """
    path = database_path(database_url)
    try:
        with contextlib.suppress(FileExistsError):  # also a file: then opening says what is wrong
            path.parent.mkdir(mode=0o700, parents=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise unusable(path, error) from error
    return path


class SqliteSession:
    """`storage.database.Session` on the driver's own connection: `databases` takes 300 µs a statement."""

    def __init__(self, connection: aiosqlite.Connection) -> None:
        self._connection = connection

    async def fetch_all(self, statement: str, values: Values = NOTHING) -> list[Row]:
        return list(await self._connection.execute_fetchall(_own(statement), _given(values)))

    async def fetch_one(self, statement: str, values: Values = NOTHING) -> Row | None:
        rows = await self.fetch_all(statement, values)
        return rows[0] if rows else None

    async def fetch_val(self, statement: str, values: Values = NOTHING) -> Any:
        row = await self.fetch_one(statement, values)
        return None if row is None else row[0]

    async def execute(self, statement: str, values: Values = NOTHING) -> None:
        await self._connection.execute(_own(statement), _given(values))

    async def execute_many(self, statement: str, rows: Iterable[Values]) -> None:
        await self._connection.executemany(_own(statement), rows)


@cache
def _own(statement: str) -> str:
    """In SQLite's words. Its clock is to the millisecond."""
    statement = re.sub(r"IN EACH\((:\w+)\)", r"IN (SELECT value FROM json_each(\1))", statement)
    statement = statement.replace("VALUES EACH", "VALUES")
    return statement.replace("NOW_S()", "((julianday('now') - 2440587.5) * 86400.0)")


def _given(values: Values) -> dict[str, Any]:
    return {name: json.dumps(value) if isinstance(value, list) else value for name, value in values.items()}


class SqliteDatabase(databases.Database):
    """The database, its connections kept open. `connect` and `disconnect`, or `async with`.

    `synchronous`: NORMAL survives the death of the process but may lose the last commits when the power
    fails; FULL does not.
    """

    # Only this one: upstream's other backends were not repaired.
    SUPPORTED_BACKENDS = {"sqlite": "gateway.storage.sqlite.database:KeptSQLiteBackend"}  # noqa: RUF012

    def __init__(
        self,
        database_url: str,
        *,
        connections: int = CONNECTIONS,
        synchronous: Synchronous = "NORMAL",
        acquire_s: float = ACQUIRE_S,
    ) -> None:
        database_path(database_url)  # refuses other databases with a sentence
        super().__init__(database_url, size=connections, synchronous=synchronous, acquire_s=acquire_s)
        backend = self._backend
        assert isinstance(backend, KeptSQLiteBackend)  # noqa: S101 - says it to mypy
        self._pool = backend.pool
        self._acquire_s = acquire_s
        self._path = database_path(database_url)
        self._file: tuple[int, int] | None = None
        self._writing = asyncio.Lock()
        self._writer: asyncio.Task[Any] | None = None

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.disconnect()

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[SqliteSession]:
        """A connection that belongs to the current task: a task started inside gets another one."""
        async with self._raw_connection() as raw:
            yield SqliteSession(raw)

    @contextlib.asynccontextmanager
    async def transaction(self, *_: str) -> AsyncIterator[SqliteSession]:  # type: ignore[override]
        """BEGIN IMMEDIATE locks everything, so that what is read here still holds when it is written.

        Writers of this process take turns here rather than in SQLite, whose waiting is neither fair nor
        cheap.
        """
        async with self._turn_to_write():
            self._refuse_another_file()
            async with self._transaction("BEGIN IMMEDIATE") as session:
                yield session
            self._refuse_another_file()

    async def scrub(self) -> bool:
        """While somebody reads what was there before, its log can't be emptied.

        That is not waited for in SQLite, which would keep all writers out meanwhile.
        """
        async with self._raw_connection() as raw:
            await raw.execute_fetchall("PRAGMA busy_timeout=0")
            try:
                rows = list(await raw.execute_fetchall("PRAGMA wal_checkpoint(TRUNCATE)"))
            finally:
                await raw.execute_fetchall(f"PRAGMA busy_timeout={BUSY_S * 1e3:.0f}")
        return bool(rows[0][0] == 0)

    def snapshot(
        self,
        *,
        patient: bool = False,  # noqa: ARG002 - nothing is bounded here, and nobody kept waiting
    ) -> contextlib.AbstractAsyncContextManager[SqliteSession]:
        return self._transaction("BEGIN")

    @contextlib.asynccontextmanager
    async def _transaction(self, begin: str) -> AsyncIterator[SqliteSession]:
        async with self._raw_connection() as raw:
            self._pool.unfinished.add(raw)
            await raw.execute(begin)
            try:
                yield SqliteSession(raw)
            except Exception:
                await raw.rollback()
                self._pool.unfinished.discard(raw)
                raise
            # Cancelled here, the COMMIT is already on its way in the connection's thread and takes place.
            await raw.commit()
            self._pool.unfinished.discard(raw)

    @contextlib.asynccontextmanager
    async def _raw_connection(self) -> AsyncIterator[aiosqlite.Connection]:
        with _driver_errors_told():
            async with self.connection() as connection:
                yield connection.raw_connection

    def _refuse_another_file(self) -> None:
        # SQLite goes on writing into a file that was deleted or replaced, and says that all went well.
        try:
            stat = self._path.stat()
        except OSError as error:
            raise StoreUnavailable from error
        self._file = self._file or (stat.st_dev, stat.st_ino)
        if self._file != (stat.st_dev, stat.st_ino):
            raise StoreUnavailable

    @contextlib.asynccontextmanager
    async def _turn_to_write(self) -> AsyncIterator[None]:
        task = asyncio.current_task()
        if self._writer is task:
            raise RuntimeError("a transaction was begun inside another one of the same task")
        try:
            async with asyncio.timeout(self._acquire_s):
                await self._writing.acquire()
        except TimeoutError:
            raise StoreUnavailable from None
        self._writer = task
        try:
            yield
        finally:
            self._writer = None
            self._writing.release()


class KeptSQLiteBackend(SQLiteBackend):
    """Upstream's backend on a pool that keeps its connections."""

    def __init__(self, database_url: databases.DatabaseURL, **options: Any) -> None:
        super().__init__(database_url)
        self.pool = KeptPool(database_path(str(database_url)), **options)

    async def connect(self) -> None:
        await self.pool.open()

    async def disconnect(self) -> None:
        await self.pool.close()

    def connection(self) -> SQLiteConnection:
        return _KeptConnection(self.pool, self._dialect)


class KeptPool(SQLitePool):
    """A fixed number of open connections, each with its thread."""

    def __init__(self, path: Path, *, size: int, synchronous: Synchronous, acquire_s: float) -> None:
        self._path = path
        self._size = size
        self._synchronous = synchronous
        self._acquire_s = acquire_s
        # Last in, first out: the connection whose page cache is warm.
        self._idle: asyncio.LifoQueue[aiosqlite.Connection] = asyncio.LifoQueue()
        self._all: list[aiosqlite.Connection] = []
        self._cleaning: set[asyncio.Task[None]] = set()
        self.unfinished: set[aiosqlite.Connection] = set()
        """Connections on which a transaction was begun and not seen to end."""

    @property
    def idle(self) -> int:
        return self._idle.qsize()

    async def open(self) -> None:
        """Open all connections. Raises DatabaseUnusable."""
        _refuse_unusable(self._path)
        try:
            for _ in range(self._size):
                self._all.append(await self._new_connection())
        except (sqlite3.Error, OSError) as error:
            await self.close()
            raise unusable(self._path, error) from error
        for connection in self._all:
            self._idle.put_nowait(connection)

    async def close(self) -> None:
        """Close all connections. Whoever uses them has been stopped before."""
        while self._cleaning:
            await asyncio.wait(self._cleaning)
        self._idle = asyncio.LifoQueue()
        self.unfinished.clear()
        while self._all:
            await self._all.pop().close()

    async def acquire(self) -> aiosqlite.Connection:
        """An idle connection, waited for no longer than `acquire_s`. Raises StoreUnavailable."""
        if not self._all:
            raise StoreUnavailable
        try:
            return self._idle.get_nowait()
        except asyncio.QueueEmpty:
            pass
        try:
            async with asyncio.timeout(self._acquire_s):
                return await self._idle.get()
        except TimeoutError:
            raise StoreUnavailable from None

    def give_back(self, connection: aiosqlite.Connection) -> None:
        """Make the connection idle: at once, or when what is unfinished on it was rolled back."""
        if connection not in self._all:
            return  # the pool was closed meanwhile
        if connection in self.unfinished or connection.in_transaction:
            task = asyncio.create_task(self._clean(connection))
            self._cleaning.add(task)
            task.add_done_callback(self._cleaning.discard)
        else:
            self._idle.put_nowait(connection)

    async def _clean(self, connection: aiosqlite.Connection) -> None:
        # The thread works in order: this waits for a BEGIN or COMMIT that its caller did not wait for.
        with contextlib.suppress(sqlite3.Error):
            await connection.rollback()
            self.unfinished.discard(connection)
        # A rollback that failed is tried again after the next use, which fails: it is still in a transaction.
        self._idle.put_nowait(connection)

    async def _new_connection(self) -> aiosqlite.Connection:
        # mode=rw: a database that is not there is an error, not an empty database.
        uri = self._path.as_uri() + "?mode=rw"
        connection = await aiosqlite.connect(uri, uri=True, isolation_level=None, timeout=BUSY_S)
        connection.row_factory = sqlite3.Row
        settings = (
            "journal_mode=WAL",
            f"synchronous={self._synchronous}",
            "foreign_keys=ON",
            "temp_store=MEMORY",
            # What was deleted is overwritten: a purge is no purge while the file still has it.
            "secure_delete=ON",
        )
        try:
            for setting in settings:
                await connection.execute_fetchall(f"PRAGMA {setting}")
        except BaseException:
            await connection.close()
            raise
        return connection


class _KeptConnection(SQLiteConnection):
    """Upstream's connection, given back without awaiting."""

    _pool: KeptPool

    async def release(self) -> None:
        connection, self._connection = self._connection, None
        assert connection is not None  # noqa: S101 - says it to mypy
        self._pool.give_back(connection)


@contextlib.contextmanager
def _driver_errors_told() -> Iterator[None]:
    """The one place where the driver's errors become ours."""
    try:
        yield
    except _UNSTORABLE as error:
        raise Unstorable(str(error)) from error
    except sqlite3.Error as error:
        raise StoreUnavailable from error


def _refuse_unusable(path: Path) -> None:
    # SQLite's own words would be "unable to open database file", and the latter comes with the first write.
    if not path.exists():
        raise DatabaseUnusable(f"There is no database at {path}; `neuronetz-gateway migrate` makes it.")
    if not os.access(path, os.R_OK | os.W_OK):
        raise DatabaseUnusable(f"The database {path} is not readable and writable for this user.")


def unusable(path: Path, error: Exception) -> DatabaseUnusable:
    """The sentence for what SQLite or the system said about the database."""
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return DatabaseUnusable(f"The database {path} can't be used: {reason}.")
