"""The database killed or hanging, under load: what is known goes on, and what happened meanwhile is kept."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

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


@pytest.mark.parametrize("is_killed", [True, False], ids=["killed", "hanging"])
def test_keys_that_are_known_go_on_without_a_database(
    fleet: Fleet, postgres: PostgresServer, is_killed: bool
):
    """Others are told 503, never 401; all that was spooled is in the ledger soon, once."""
    known, unknown = fleet.customers(
        [f"known {is_killed}", f"unknown {is_killed}"], Policy(total_tokens=10**6, concurrent=1000)
    )
    strangers: list[Told] = []

    @contextmanager
    def outage() -> Iterator[None]:
        with killed(postgres) if is_killed else postgres.stopped():
            time.sleep(0.5)
            strangers.extend(told_once(fleet, unknown))
            yield

    seen = under_load(fleet, known, outage())

    assert {one.status for one in seen.all} == {200}
    assert [(one.status, int(one.retry_after or 0) >= 1) for one in strangers] == [(503, True)] * 2
    assert all(one.took_s < 3 for one in strangers)
    assert wait_until(lambda: {one.status for one in told_once(fleet, unknown)} == {200}, RECOVERY_S)
    Books(fleet, known, seen.all).close(30)
