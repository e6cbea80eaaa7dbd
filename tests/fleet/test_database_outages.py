"""The database killed or hanging, under load: what is known goes on, and what happened meanwhile is kept."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import aiohttp
import pytest

from gateway.accounting import Policy
from tests.engines import wait_until
from tests.fleet.books import Books
from tests.fleet.callers import Told, ask
from tests.fleet.fleet import Customer, Fleet
from tests.fleet.trials import RECOVERY_S, SHORT, under_load
from tests.postgres_server import PostgresServer


def told_once(fleet: Fleet, customer: Customer) -> list[Told]:
    """By each replica."""

    async def ask_all() -> list[Told]:
        async with aiohttp.ClientSession() as session:
            return [await ask(session, url, customer.key, SHORT) for url in fleet.urls]

    return asyncio.run(ask_all())


@contextmanager
def killed(postgres: PostgresServer) -> Iterator[None]:
    postgres.kill()
    yield
    postgres.start()


@contextmanager
def hanging(postgres: PostgresServer) -> Iterator[None]:
    with postgres.stopped():
        yield


@contextmanager
def read_only(postgres: PostgresServer) -> Iterator[None]:
    """As after a failover to a standby, or on a full disk: it can be read, and takes nothing."""
    for value in ("on", "off"):
        postgres.ask(f"ALTER SYSTEM SET default_transaction_read_only = {value}")
        postgres.ask("SELECT pg_reload_conf()")
        if value == "on":
            yield


@pytest.mark.parametrize(
    ("outage_of", "status"),
    [(killed, 503), (hanging, 503), (read_only, 200)],
    ids=["killed", "hanging", "read-only"],
)
def test_keys_that_are_known_go_on_without_a_database(
    fleet: Fleet,
    postgres: PostgresServer,
    outage_of: Callable[[PostgresServer], AbstractContextManager[None]],
    status: int,
):
    """Others are told 503, never 401, where they can't be read; all is in the ledger soon, once."""
    name = outage_of.__name__
    known, unknown = fleet.customers(
        [f"known {name}", f"unknown {name}"], Policy(total_tokens=10**6, concurrent=1000)
    )
    strangers: list[Told] = []

    @contextmanager
    def outage() -> Iterator[None]:
        with outage_of(postgres):
            time.sleep(0.5)
            strangers.extend(told_once(fleet, unknown))
            yield

    seen = under_load(fleet, known, outage())

    assert {one.status for one in seen.all} == {200}
    assert [one.status for one in strangers] == [status] * 2
    assert status == 200 or all(int(one.retry_after or 0) >= 1 for one in strangers)
    assert all(one.took_s < 3 for one in strangers)
    assert wait_until(lambda: {one.status for one in told_once(fleet, unknown)} == {200}, RECOVERY_S)
    Books(fleet, known, seen.all).close(30)
