"""Postgres for the adapters: a few connections of asyncpg's, kept open and given out.

Not asyncpg's pool: that resets a connection with a statement of its own after each use, which doubles the
cost of a look-up, and waits for a server that does not answer any more. Three laws here:

- Errors of the driver become StoreUnavailable, or Unstorable where they speak of a value; only here.
- Nothing waits without bound: not for a connection, not for the server, not for another's lock.
- Giving a connection back never awaits, so a cancellation can't get between. What its last use left
  unfinished is cancelled and rolled back by a task of its own before anybody else gets it; or else it is cut.
"""

import asyncio
import contextlib
import hashlib
import re
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from functools import cache
from typing import Any, Final, Self

import asyncpg
import orjson
from attrs import frozen

from gateway.errors import StoreUnavailable, Unstorable
from gateway.storage.database import ACQUIRE_S, CONNECTIONS, NOTHING, Row, Values
from gateway.storage.postgres.connecting import DRIVER_ERRORS, Connector, errors_told

# How long one statement may take: of a session, and of a transaction, where locks are waited for.
LOOKUP_S: Final = 2.0
BATCH_S: Final = 10.0

# SQLSTATE classes that speak of values: data exceptions, constraints, and sizes that no index takes.
_UNSTORABLE: Final = ("22", "23", "54")
_NAME: Final = re.compile(r"(?<!:):(\w+)")
_EACH: Final = re.compile(r"INTO (\w+) \(([^)]*)\) VALUES EACH \((.*)\) ON CONFLICT")


@frozen
class _Statement:
    """A statement in Postgres' words, and the names of its values in the order of $1, $2, …"""

    text: str
    names: tuple[str, ...]

    def arguments(self, values: Values) -> list[Any]:
        return [values[name] for name in self.names]


@cache
def _own(statement: str) -> _Statement:
    statement = re.sub(r"IN EACH\((:\w+)\)", r"= ANY (CAST(\1 AS text[]))", statement)
    statement = statement.replace("NOW_S()", "extract(epoch FROM clock_timestamp())::float8")
    names = tuple(dict.fromkeys(_NAME.findall(statement)))
    return _Statement(_NAME.sub(lambda found: f"${names.index(found[1]) + 1}", statement), names)


@cache
def _for_all(statement: str) -> str | None:
    """A statement with `VALUES EACH` for all of its rows as one value, `:rows`; None for any other.

    The server takes a third of the time, and the client half of it, that they need for the rows one by one.
    """
    found = _EACH.search(statement)
    if found is None:
        return None
    table, names, values = found.groups()
    parts = (
        f"INTO {table} ({names}) SELECT",
        values.replace(":", ""),
        f"FROM json_populate_recordset(CAST(NULL AS {table}), CAST(:rows AS json)) ON CONFLICT",
    )
    return statement.replace(found[0], " ".join(parts))


def _told(rows: Iterable[Values]) -> str:
    try:
        return orjson.dumps(list(rows)).decode()
    except TypeError as error:
        raise Unstorable(str(error)) from error


class PostgresSession:
    """`storage.database.Session`."""

    def __init__(self, connection: asyncpg.Connection, within_s: float | None) -> None:
        self._connection = connection
        self._within_s = within_s

    async def fetch_all(self, statement: str, values: Values = NOTHING) -> Sequence[Row]:
        own = _own(statement)
        with _driver_errors_told():
            return await self._connection.fetch(own.text, *own.arguments(values), timeout=self._within_s)

    async def fetch_one(self, statement: str, values: Values = NOTHING) -> Row | None:
        rows = await self.fetch_all(statement, values)
        return rows[0] if rows else None

    async def fetch_val(self, statement: str, values: Values = NOTHING) -> Any:
        row = await self.fetch_one(statement, values)
        return None if row is None else row[0]

    async def execute(self, statement: str, values: Values = NOTHING) -> None:
        await self.fetch_all(statement, values)

    async def execute_many(self, statement: str, rows: Iterable[Values]) -> None:
        for_all = _for_all(statement)
        if for_all is not None:
            await self.execute(for_all, {"rows": _told(rows)})
            return
        # Sent in one go. As fast as COPY into a table of its own and one INSERT from there, for 1,000 rows;
        # several times faster for ten; and it leaves no dead rows in the catalogue.
        own = _own(statement)
        names = own.names
        arguments = [[values[name] for name in names] for values in rows]
        with _driver_errors_told():
            await self._connection.executemany(own.text, arguments, timeout=self._within_s)


class PostgresDatabase:
    """`storage.database.Database`. Connections that break are replaced when they are next needed."""

    def __init__(
        self, database_url: str, *, connections: int = CONNECTIONS, acquire_s: float = ACQUIRE_S
    ) -> None:
        self._connector = Connector(database_url)
        self._acquire_s = acquire_s
        self._places = asyncio.Semaphore(connections)
        self._is_open = False
        # Last in, first out: whose server process is warm.
        self._idle: list[asyncpg.Connection] = []
        self._mending: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        with errors_told(self._connector.address):
            self._idle.append(await self._connected())
        self._is_open = True
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close all connections. Whoever uses them has been stopped before."""
        self._is_open = False
        if self._mending:
            await asyncio.wait(self._mending)
        while self._idle:
            connection = self._idle.pop()
            try:
                await connection.close(timeout=self._acquire_s)
            except DRIVER_ERRORS:
                connection.terminate()

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[PostgresSession]:
        async with self._connection() as connection:
            yield PostgresSession(connection, LOOKUP_S)

    @contextlib.asynccontextmanager
    async def transaction(self, *locks: str) -> AsyncIterator[PostgresSession]:
        async with self._transaction(_WRITING, BATCH_S) as session:
            if locks:
                # Of several, everybody takes them in the same order: nobody waits in a circle.
                await session.fetch_all(_LOCK, {"keys": sorted({lock_key(lock) for lock in locks})})
            yield session

    async def scrub(self) -> bool:
        return True

    def snapshot(self, *, patient: bool = False) -> contextlib.AbstractAsyncContextManager[PostgresSession]:
        return self._transaction(_PATIENT if patient else _READING, None if patient else LOOKUP_S)

    @contextlib.asynccontextmanager
    async def _transaction(self, begin: str, within_s: float | None) -> AsyncIterator[PostgresSession]:
        async with self._connection() as connection:
            with _driver_errors_told():
                await connection.execute(begin, timeout=LOOKUP_S)
            yield PostgresSession(connection, within_s)
            with _driver_errors_told():
                ended = await connection.execute("COMMIT", timeout=within_s)
            if ended != "COMMIT":
                raise StoreUnavailable  # Postgres rolls back what had failed, and calls that a success

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[asyncpg.Connection]:
        connection = await self._acquire()
        try:
            yield connection
        except BaseException as error:
            if isinstance(error, StoreUnavailable):
                # A network that fails one connection has failed the others: they are not tried one by one.
                for idle in self._idle:
                    idle.terminate()
            task = asyncio.create_task(self._mend(connection))
            self._mending.add(task)
            task.add_done_callback(self._mending.discard)
            raise
        self._give_back(connection)

    async def _mend(self, connection: asyncpg.Connection) -> None:
        try:
            async with asyncio.timeout(LOOKUP_S):
                # asyncpg first has the server cancel what is under way, which may have begun a transaction.
                if not connection.is_in_transaction():
                    await connection.execute("SELECT 1")
                if connection.is_in_transaction():
                    await connection.execute("ROLLBACK")
        except DRIVER_ERRORS:
            connection.terminate()
        finally:
            self._give_back(connection)

    def _give_back(self, connection: asyncpg.Connection) -> None:
        if not self._is_open:
            connection.terminate()
        elif not connection.is_closed():
            self._idle.append(connection)
        self._places.release()

    async def _acquire(self) -> asyncpg.Connection:
        """A connection, idle or new, waited for no longer than `acquire_s`. Raises StoreUnavailable."""
        if not self._is_open:
            raise StoreUnavailable
        with _driver_errors_told():
            async with asyncio.timeout(self._acquire_s):
                await self._places.acquire()
                try:
                    while self._idle:
                        connection = self._idle.pop()
                        if not connection.is_closed():
                            return connection
                    return await self._connected()
                except BaseException:
                    self._places.release()
                    raise

    async def _connected(self) -> asyncpg.Connection:
        return await self._connector.connect(self._acquire_s, statement_timeout=f"{LOOKUP_S:.0f}s")


_LOCK: Final = "SELECT pg_advisory_xact_lock(key) FROM unnest(CAST(:keys AS bigint[])) AS key"
# In a transaction: what it reports as committed survives the end of the server, whatever the default there.
DURABLE: Final = (
    "SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off'"
)
_WRITING: Final = (
    f"BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = '{BATCH_S:.0f}s'; {DURABLE}"
)
_READING: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_PATIENT: Final = f"{_READING}; SET LOCAL statement_timeout = 0"


def lock_key(name: str) -> int:
    """The number that Postgres knows an advisory lock by."""
    return int.from_bytes(hashlib.sha256(f"neuronetz-gateway {name}".encode()).digest()[:8], signed=True)


@contextlib.contextmanager
def _driver_errors_told() -> Iterator[None]:
    """The one place where the driver's errors become ours. Their words that show values are left out."""
    try:
        yield
    except asyncpg.PostgresError as error:
        if (error.sqlstate or "").startswith(_UNSTORABLE):
            # Of what can't even be sent, the words of the cause are those without the value.
            raise Unstorable(str(error.__cause__ or error.args[0])) from error
        raise StoreUnavailable from error
    except DRIVER_ERRORS as error:
        raise StoreUnavailable from error
