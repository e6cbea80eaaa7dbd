"""Redis away, late, in error, emptied or set back, under load: what callers are told, what the books say."""

import time
from collections.abc import Sequence
from typing import Final

import pytest

from gateway.accounting import Policy
from tests.fault_proxy import FaultProxy
from tests.fleet import redis_outages as outages
from tests.fleet.books import Books
from tests.fleet.callers import LEAST, Load, Told, spend
from tests.fleet.fleet import REDIS_TIMEOUT_S, Fleet
from tests.fleet.redis_outages import Outage
from tests.fleet.trials import SHORT, under_load
from tests.servers import RedisServer

# What a busy machine adds to the deadline.
GRACE_S: Final = 0.9
BUDGET: Final = 400_000


def all_refused(told: Sequence[Told], books: Books) -> bool:
    """Whether all of them had a 503 as SPEC has it, in time: most of them at once."""
    assert told
    assert {one.status for one in told} == {503}
    assert {books.audit[one.request_id]["error_code"] for one in told} == {"limits_unavailable"}
    assert all(int(one.retry_after or 0) >= 1 for one in told)
    waits = sorted(one.took_s for one in told)
    assert waits[len(waits) // 2] < REDIS_TIMEOUT_S
    return waits[-1] < REDIS_TIMEOUT_S + GRACE_S


@pytest.mark.parametrize(
    ("outage", "is_away"),
    [
        (outages.paused, True),
        (outages.slow, True),
        (outages.read_only, True),
        (outages.full, True),
        (outages.busy, True),
        (outages.killed, True),
        (outages.flushed, False),
        (outages.set_back, True),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_redis_can_not_count_is_refused(
    fleet: Fleet, redis: RedisServer, proxy: FaultProxy, outage: Outage, is_away: bool
):
    """At once, and only that: what runs goes on, all of it is counted, and the budget holds to the token.

    Also where Redis has forgotten what was spent, in the ledger or only in somebody's spool.
    """
    customer = fleet.customer(outage.__name__, Policy(total_tokens=BUDGET, concurrent=1000))

    seen = under_load(fleet, customer, outage(redis, proxy))

    books = Books(fleet, customer, seen.all)
    books.close(30)
    assert {one.status for one in seen.all} <= {200, 503}
    assert not is_away or all_refused(seen.during, books)
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
