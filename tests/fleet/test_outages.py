"""Redis away, late or in error, under load: what callers are told, and what the books say afterwards."""

import time
from collections.abc import Iterator, Sequence
from typing import Final

import pytest
from attrs import evolve

from gateway.accounting import Policy
from tests.engines import wait_until
from tests.fault_proxy import FaultProxy, in_thread
from tests.fleet import outages
from tests.fleet.books import Books
from tests.fleet.callers import LEAST, Load, Told, spend
from tests.fleet.counted_model import CountedModel, Order
from tests.fleet.fleet import Fleet
from tests.fleet.outages import Outage
from tests.fuzz.seeds import FACTOR
from tests.servers import RedisServer

# Nightly for longer than a lease lives.
OUTAGE_S: Final = 2.0 if FACTOR <= 1 else 20.0
# A refusal takes the deadline and no more, or next to nothing once it is known; and what a busy machine adds.
AT_ONCE_S: Final = 0.1
GRACE_S: Final = 0.9
RECOVERY_S: Final = 5.0
BUDGET: Final = 400_000

SHORT: Final = Order(tokens=8)
# Begun before an outage, it ends after it.
LONG: Final = Order(tokens=round(10 * OUTAGE_S + 20), gap_s=0.1)


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with RedisServer() as redis:
        yield redis


@pytest.fixture(scope="module")
def proxy(redis: RedisServer) -> Iterator[FaultProxy]:
    with in_thread(FaultProxy(redis.port)) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def fleet(
    tmp_path_factory: pytest.TempPathFactory,
    model: CountedModel,
    database_url: str,
    redis: RedisServer,
    proxy: FaultProxy,
) -> Iterator[Fleet]:
    """With a proxy before Redis."""
    with Fleet(tmp_path_factory.mktemp("fleet"), model, database_url, redis.url_at(proxy.port)) as fleet:
        yield fleet.start("one", "two")


def all_refused(told: Sequence[Told], books: Books) -> bool:
    """Whether all of them had a 503 as SPEC has it, in time."""
    assert told
    assert {one.status for one in told} == {503}
    assert {books.audit[one.request_id]["error_code"] for one in told} == {"limits_unavailable"}
    assert all(int(one.retry_after or 0) >= 1 for one in told)
    waits = sorted(one.took_s for one in told)
    assert waits[len(waits) // 2] < AT_ONCE_S
    return waits[-1] < AT_ONCE_S + GRACE_S


@pytest.mark.parametrize(
    "outage",
    [outages.paused, outages.slow, outages.read_only, outages.full, outages.busy],
    ids=lambda outage: outage.__name__,
)
def test_what_can_not_be_counted_is_refused(
    fleet: Fleet, redis: RedisServer, proxy: FaultProxy, outage: Outage
):
    """At once, and only that: what runs goes on, all of it is counted, and the budget holds to the token."""
    customer = fleet.customer(outage.__name__, Policy(total_tokens=BUDGET, concurrent=1000))
    with (
        Load(fleet.urls, customer.key, evolve(LONG, label=customer.id), callers=4, once=True) as running,
        Load(fleet.urls, customer.key, SHORT) as load,
    ):
        assert wait_until(lambda: len(fleet.model.labelled(customer.id)) == 4, 20)
        assert wait_until(lambda: len(load.since(0)) >= 40, 20)
        with outage(redis, proxy):
            began = time.monotonic()
            time.sleep(OUTAGE_S)
            ended = time.monotonic()
            during = [one for one in load.since(began) if one.ended_at < ended]
        back = time.monotonic()
        assert wait_until(lambda: any(one.status == 200 for one in load.since(back)), RECOVERY_S)
    books = Books(fleet, customer, [*load.told, *running.told])
    books.close(30)

    assert all_refused(during, books)
    assert {one.status for one in load.told} == {200, 503}
    assert [(one.is_complete, books.ledger[one.request_id]["completion_tokens"]) for one in running.told] == [
        (True, LONG.tokens)
    ] * 4
    books.told = spend(fleet.urls, customer.key)
    books.close()
    assert BUDGET - LEAST < books.truth <= BUDGET


def test_scripts_that_are_flushed_are_nobodys_outage(fleet: Fleet, redis: RedisServer):
    customer = fleet.customer("flushed scripts", Policy(total_tokens=BUDGET, concurrent=1000))
    with Load(fleet.urls, customer.key, SHORT) as load:
        for _ in range(20):
            time.sleep(0.1)
            redis.ask("SCRIPT", "FLUSH")

    assert {one.status for one in load.told} == {200}
    Books(fleet, customer, load.told).close()
