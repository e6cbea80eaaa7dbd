"""Many callers, several replicas, few tokens: a budget holds to the token, and is not wasted."""

import asyncio
from collections.abc import Iterator

import aiohttp
import pytest

from gateway.accounting import Policy
from tests.fleet.books import Books
from tests.fleet.callers import LEAST, WAYS, Told, ask, at_once, spend_all
from tests.fleet.counted_model import CountedModel, Order
from tests.fleet.fleet import Customer, Fleet
from tests.fuzz.seeds import examples
from tests.servers import RedisCluster

CALLERS = 64
ROUNDS = 5


@pytest.fixture(scope="module")
def fleet_on_sqlite(
    tmp_path_factory: pytest.TempPathFactory, model: CountedModel, redis_cluster: RedisCluster
) -> Iterator[Fleet]:
    """Over a cluster of three masters, which shares out the tenants."""
    folder = tmp_path_factory.mktemp("sqlite")
    settings = {"DATABASE_URL": f"sqlite:///{folder}/gateway.db", "REDIS_URL": redis_cluster.url}
    with Fleet(folder, model, settings) as fleet:
        yield fleet.start("one", "two")


@pytest.fixture(params=["fleet", "fleet_on_sqlite"], ids=["postgres-redis", "sqlite-cluster"])
def either(request: pytest.FixtureRequest) -> Fleet:
    """The ledger is the same in both databases, and so are the counters in both kinds of Redis."""
    fleet: Fleet = request.getfixturevalue(request.param)
    return fleet


async def _race(fleet: Fleet, customer: Customer, orders: list[Order]) -> list[Told]:
    """All at once; then one after the other, until nobody is let in any more."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        told = await at_once(session, fleet.urls, customer.key, orders)
        return told + await spend_all(session, fleet.urls, customer.key)


@pytest.mark.parametrize("left", [1_000, 10_000])
def test_the_last_tokens_are_never_overspent_and_all_used(either: Fleet, left: int):
    """By what the model did, not by what the gateway says. Of 10,000 more than 95 % are used."""
    for number, chance in enumerate(examples(left, ROUNDS)):
        customer = either.customer(f"{left}/{number}", Policy(total_tokens=left))

        told = asyncio.run(
            _race(either, customer, [Order(tokens=chance.randint(1, 60)) for _ in range(CALLERS)])
        )

        assert {one.status for one in told} == {200, 429}
        books = Books(either, customer, told)
        books.close()
        assert left - LEAST < books.truth <= left
        assert books.spent == books.truth


def test_whoever_has_its_answer_may_ask_the_next_replica(fleet: Fleet):
    """One request at a time is allowed: the one before is over for all once its last frame is there."""
    customer = fleet.customer("one at a time", Policy(concurrent=1))

    async def one_after_the_other() -> list[Told]:
        async with aiohttp.ClientSession() as session:
            return [
                await ask(session, fleet.urls[number % 2], customer.key, Order(), WAYS[number // 2 % 4])
                for number in range(200)
            ]

    assert {one.status for one in asyncio.run(one_after_the_other())} == {200}
