"""Behind a pooler that gives each transaction another session, as pgbouncer with pool_mode = transaction."""

import asyncio

import pytest

from gateway.errors import StoreUnavailable
from gateway.storage.audit import AuditLog
from gateway.storage.engines import database_at, serving
from gateway.storage.keys import Keys
from gateway.storage.ledger import Ledger
from gateway.storage.migrations import migrate
from gateway.storage.refusals import AnotherServes
from gateway.storage.replicas import Replicas
from gateway.storage.tenants import Tenants
from tests.postgres_server import PostgresServer
from tests.storage.samples import ACME, CHAIN, audit_row, intent, key, settled
from tests.transaction_pooler import TransactionPooler


@pytest.fixture
async def pooled_url(empty_postgres_url: str, postgres_server: PostgresServer):
    async with TransactionPooler(postgres_server.port) as pooler:
        yield empty_postgres_url.replace(str(postgres_server.port), str(pooler.port)) + "?pgbouncer=true"


async def test_all_that_is_kept_can_be_kept_through_a_pooler(pooled_url: str):
    """From the migrations on. Nothing is expected of a session that was used before."""
    await asyncio.to_thread(migrate, pooled_url)
    async with database_at(pooled_url) as database:
        ledger, keys = Ledger(database), Keys(database)
        await Tenants(database).add(ACME)
        await keys.add(key(1))
        for number in range(20):
            await asyncio.gather(
                ledger.write([intent(f"r{number}"), settled(f"r{number}", tokens=2)]),
                AuditLog(database, CHAIN).write([audit_row(number)]),
                keys.touch({"k1": float(number)}),
                Replicas(database).report("one", float(number)),
                keys.key_by_prefix(key(1).prefix),
                keys.revision(),
            )

        assert await ledger.verify() == []
        assert [one.spent for one in await ledger.sums("t1", ["total"])] == [40, 40]
        assert (await ledger.snapshot("t1", ["total"]))[1] == []


async def test_without_the_option_statements_are_not_found(pooled_url: str):
    """What the option is for; and that this pooler is one."""
    await asyncio.to_thread(migrate, pooled_url)
    async with database_at(pooled_url.removesuffix("?pgbouncer=true")) as database:

        async def use() -> None:
            for _ in range(2):
                await asyncio.gather(*(Keys(database).revision() for _ in range(4)))

        with pytest.raises(StoreUnavailable):
            await use()


async def test_one_that_counts_alone_is_the_only_one_through_a_pooler(
    pooled_url: str, empty_postgres_url: str
):
    """Its claim is held by a transaction: the session is its own as long as that is open."""
    async with serving(pooled_url, alone=True, on_lost=lambda: None), database_at(pooled_url) as database:
        for _ in range(3):
            async with database.session() as connection:
                await connection.fetch_val("SELECT 1")
        for url in (pooled_url, empty_postgres_url):
            with pytest.raises(AnotherServes):
                async with serving(url, alone=False, on_lost=lambda: None):
                    pass

    await asyncio.sleep(0.1)
    async with serving(empty_postgres_url, alone=True, on_lost=lambda: None):
        pass
