"""Postgres by itself: values that it does not take, sessions, addresses, and who may see what of an error."""

import asyncio
import random
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import psycopg
import pytest
from attrs import evolve

from gateway.errors import StoreUnavailable, Unstorable
from gateway.postgres_address import postgres_address
from gateway.storage.database import CONNECTIONS, Database, Session
from gateway.storage.engines import database_at
from gateway.storage.keys import Keys
from gateway.storage.migrations import migrate
from gateway.storage.postgres.libpq import arguments_of, errors_told
from gateway.storage.refusals import DatabaseUnusable
from gateway.storage.tenants import Tenants
from tests.databases import ask
from tests.postgres_server import PostgresServer
from tests.storage.samples import ACME, key
from tests.storage.test_database import use_all_connections_at_once

INSERT = "INSERT INTO meta (name, value) VALUES (:name, :value)"
INCOMPRESSIBLE = random.Random(1).randbytes(5_000).hex()
SESSIONS = """
    SELECT state, xact_start IS NOT NULL AS is_open FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""


@pytest.fixture
async def database(postgres_url):
    async with database_at(postgres_url) as opened:
        yield opened


@pytest.mark.parametrize(
    ("statement", "values", "reason"),
    [
        (INSERT, {"name": "a\0", "value": "hunter2"}, "invalid byte sequence"),
        (INSERT, {"name": "\ud800", "value": "hunter2"}, "surrogates not allowed"),
        (INSERT, {"name": "x", "value": None}, "not-null constraint"),
        (INSERT, {"name": INCOMPRESSIBLE, "value": "hunter2"}, "index row requires"),
        ("UPDATE revision SET value = :value", {"value": 2**63}, "int64"),
        ("UPDATE revision SET value = :value", {"value": "hunter2"}, "str"),
        ("UPDATE revision SET only_row = 2", {}, "check constraint"),
        ("SELECT 1 / :zero", {"zero": 0}, "division by zero"),
    ],
    ids=["nul", "surrogate", "null", "long", "large", "text", "check", "zero"],
)
async def test_a_value_that_can_not_be_kept_is_told_apart_and_not_repeated(
    database: Database, statement: str, values: dict[str, object], reason: str
):
    """It would be the same the next time, so it is set aside. The reason is logged: it shows nothing."""

    async def alone(connection: Session) -> None:
        await connection.execute(statement, values)

    async def among_others(connection: Session) -> None:
        await connection.execute_many(statement, [values, values])

    for use in (alone, among_others):
        with pytest.raises(Unstorable, match=reason) as refused:
            await _in_transaction(database, use)
        assert "hunter2" not in str(refused.value)

    await use_all_connections_at_once(database)


async def test_what_the_roles_rights_do_not_allow_is_unavailable(
    database: Database, postgres_server: PostgresServer, postgres_url: str
):
    """No data is wrong: when the operator has mended it, all goes on."""
    name = postgres_address(postgres_url).database
    postgres_server.ask("REVOKE INSERT ON meta FROM gateway", name)
    postgres_server.ask("ALTER TABLE meta OWNER TO postgres", name)
    with pytest.raises(StoreUnavailable):
        await _insert(database)

    postgres_server.ask("GRANT ALL ON meta TO gateway", name)
    await _insert(database)


async def test_a_database_that_is_read_only_is_unavailable(
    database: Database, postgres_server: PostgresServer, postgres_url: str
):
    """As after a failover to a standby: what is asked is still answered; writing goes on when it can."""
    name = postgres_address(postgres_url).database
    postgres_server.ask(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    _end_sessions(postgres_server, name)
    with pytest.raises(StoreUnavailable):
        await _insert(database)
    assert await Keys(database).revision() == 0

    postgres_server.ask(f"ALTER DATABASE {name} RESET default_transaction_read_only")
    with pytest.raises(StoreUnavailable):
        await _insert(database)
    _end_sessions(postgres_server, name)
    await asyncio.sleep(0.1)
    await _insert(database)


async def test_a_storm_of_cancellations_leaves_no_session_behind(database: Database, postgres_url: str):
    """Neither here nor there: the server has as many as there are connections, none in a transaction."""
    tasks: list[asyncio.Task[Any]] = []
    for number in range(400):
        tasks.append(asyncio.create_task(_insert(database, f"n{number}")))
        tasks.append(asyncio.create_task(Keys(database).revision()))
        await asyncio.sleep(0)
        if number % 3 == 0:
            tasks[number].cancel()
        elif number % 7 == 0:
            await asyncio.sleep(0.002)
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    await use_all_connections_at_once(database)

    async with asyncio.timeout(10):
        while (sessions := ask(postgres_url, SESSIONS)) != [
            {"state": "idle", "is_open": False}
        ] * CONNECTIONS:
            assert len(sessions) >= CONNECTIONS
            await asyncio.sleep(0.05)
    kept = {row["name"] for row in ask(postgres_url, "SELECT name FROM meta")}
    done = {f"n{number}" for number in range(400) if ended[2 * number] is None}
    assert done <= kept


async def test_who_sees_a_revision_sees_all_changes_up_to_it(database: Database, postgres_url: str):
    """Two commands at once can't commit in another order than they were numbered in."""
    await Tenants(database).add(ACME)
    first = await Keys(database).revision()
    seen: list[tuple[int, int]] = []

    async def watch(keys: Keys) -> None:
        while not seen or seen[-1][0] < 40:
            revision = await keys.revision() - first
            seen.append((revision, len(await keys.all())))

    async with database_at(postgres_url, connections=8) as others:
        watching = asyncio.create_task(watch(Keys(database)))
        for first_of_eight in range(0, 40, 8):
            await asyncio.gather(*(_add_slowly(others, first_of_eight + number) for number in range(8)))
        await watching

    assert all(keys >= revision for revision, keys in seen)
    assert seen[-1] == (40, 40)


async def _add_slowly(database: Database, number: int) -> None:
    """A key, its transaction staying open for a while that is different for each."""
    one = key(number)
    async with database.transaction() as connection:
        await connection.execute(
            "INSERT INTO keys (id, tenant_id, name, folded, prefix, mac, argon2, created_at)"
            " VALUES (:id, 't1', :id, :id, :id, :mac, 'a', 1)",
            {"id": one.id, "mac": one.mac},
        )
        await asyncio.sleep(0.003 * (8 - number % 8))


async def test_sessions_have_their_bounds_and_a_name(database: Database):
    """A gateway whose machine is gone keeps no lock for long; the operator sees whose session it is."""
    async with database.session() as connection:
        settings = {
            name: await connection.fetch_val(f"SHOW {name}")
            for name in (
                "application_name",
                "statement_timeout",
                "idle_in_transaction_session_timeout",
                "tcp_keepalives_idle",
            )
        }
    async with database.transaction() as connection:
        assert await connection.fetch_val("SHOW statement_timeout") == "10s"
        assert await connection.fetch_val("SHOW synchronous_commit") == "on"

    assert settings == {
        "application_name": "neuronetz-gateway",
        "statement_timeout": "2s",
        "idle_in_transaction_session_timeout": "1min",
        "tcp_keepalives_idle": "30",
    }


async def test_a_statement_that_takes_too_long_is_given_up(database: Database):
    """A look-up is on the way of a request."""
    async with asyncio.timeout(8):
        with pytest.raises(StoreUnavailable):
            async with database.session() as connection:
                await connection.fetch_val("SELECT pg_sleep(20)")
    await use_all_connections_at_once(database)

    async with database.snapshot(patient=True) as connection:
        await connection.fetch_val("SELECT pg_sleep(2.5)")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"password": "hunter2"}, "password authentication failed for user"),
        ({"database": "nowhere"}, 'database "nowhere" does not exist'),
        ({"hosts": (("127.0.0.1", 1),)}, "can't be used: "),
        ({"hosts": (("nowhere.invalid", 5432),)}, "can't be used: "),
    ],
    ids=["password", "database", "port", "host"],
)
async def test_a_database_that_can_not_be_opened_is_told(
    postgres_url: str, change: dict[str, Any], told: str
):
    """By both drivers, in one sentence, without the password."""
    address = evolve(postgres_address(postgres_url), **change)
    host, port = address.hosts[0]
    url = f"postgresql://{address.user}:{address.password}@{host}:{port}/{address.database}"
    for open_it in (database_at(url).__aenter__, lambda: asyncio.to_thread(migrate, url)):
        with pytest.raises(DatabaseUnusable, match=told) as refused:
            await open_it()
        sentence = str(refused.value)
        assert sentence.startswith(f"The database {address} can't be used: ")
        assert str(address.password) not in sentence
        assert "\n" not in sentence


@pytest.mark.parametrize(
    ("says", "is_told"),
    [
        ("unsupported startup parameter: idle_in_transaction_session_timeout", True),
        ('prepared statement "__asyncpg_stmt_2__" already exists', True),
        ("the database system is starting up", False),
    ],
)
@pytest.mark.parametrize("error", [asyncpg.PostgresError, psycopg.OperationalError])
def test_a_pooler_that_nobody_told_of_is_told_of(says: str, is_told: bool, error: type[Exception]):
    """What pgbouncer and Postgres say then does not lead an operator to `pgbouncer=true`; this does."""
    told = {}
    for pooled in ("false", "true"):
        address = postgres_address(f"postgresql://gateway@db/gateway?pgbouncer={pooled}")
        with pytest.raises(DatabaseUnusable) as refused, errors_told(address):
            raise error(says)
        told[pooled] = "DATABASE_URL needs ?pgbouncer=true" in str(refused.value)

    assert told == {"false": is_told, "true": False}


async def test_of_several_hosts_the_one_is_used_that_takes_writes(
    postgres_url: str, postgres_server: PostgresServer
):
    """Also when the first is not there, or a standby (as which one passes that is read-only)."""
    with PostgresServer() as standby:
        standby.ask("ALTER ROLE gateway PASSWORD '" + postgres_server.password + "'")
        standby.ask(f"CREATE DATABASE {postgres_address(postgres_url).database}")
        standby.ask("ALTER SYSTEM SET default_transaction_read_only = on")
        standby.ask("SELECT pg_reload_conf()")
        url = postgres_url.replace("@", f"@127.0.0.1:1,127.0.0.1:{standby.port},")
        migrate(url)
        async with database_at(url) as database, database.session() as connection:
            port = await connection.fetch_val("SELECT inet_server_port()")

    assert port == postgres_server.port


async def test_a_folder_of_a_unix_socket_is_a_host():
    with PostgresServer() as server:
        server.settings["unix_socket_directories"] = str(server.folder)
        server.kill()
        server.start()
        url = server.url(server.new_database()).replace("127.0.0.1", str(server.folder).replace("/", "%2F"))
        assert len(migrate(url)) > 0
        async with database_at(url) as database:
            assert await Keys(database).revision() == 0


def test_a_process_that_only_serves_loads_neither_libpq_nor_sqlite(postgres_url: str):
    """Together they would be a sixth of its memory."""
    code = (
        "import sys; from gateway.storage import engines, migrations\n"
        "migrations.refuse_pending(sys.argv[1]); engines.database_at(sys.argv[1])\n"
        "print([name for name in ('psycopg', 'sqlalchemy') if name in sys.modules])"
    )

    told = subprocess.run(
        [sys.executable, "-c", code, postgres_url], capture_output=True, text=True, check=True
    )

    assert told.stdout.strip() == "[]"


def test_libpq_looks_for_nothing_in_the_home_directory(postgres_url: str):
    """Else a certificate that lies there would change what sslmode=require means, for one of two drivers."""
    arguments = arguments_of(postgres_address(postgres_url))

    assert arguments["sslrootcert"] == "/dev/null/none"
    assert (arguments["sslcertmode"], arguments["gssencmode"]) == ("disable", "disable")


async def _in_transaction(database: Database, use: Callable[[Session], Awaitable[None]]) -> None:
    async with database.transaction() as connection:
        await use(connection)


async def _insert(database: Database, name: str = "a") -> None:
    async with database.transaction() as connection:
        await connection.execute(
            "INSERT INTO meta (name, value) VALUES (:name, 'b') ON CONFLICT DO NOTHING", {"name": name}
        )


def _end_sessions(server: PostgresServer, database: str) -> None:
    server.ask(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'")
