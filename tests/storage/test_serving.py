"""Gateways that count alone keep others off their database."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from gateway.storage import engines
from gateway.storage.postgres import serving as module
from gateway.storage.refusals import AnotherServes
from tests.postgres_server import PostgresServer


@asynccontextmanager
async def serving(database_url: str, *, alone: bool) -> AsyncIterator[asyncio.Event]:
    """Gives what is set when it is lost."""
    lost = asyncio.Event()
    async with engines.serving(database_url, alone=alone, on_lost=lost.set):
        yield lost


async def test_one_that_counts_alone_is_the_only_one(database_url: str):
    async with serving(database_url, alone=True):
        for alone in (True, False):
            with pytest.raises(AnotherServes, match="REDIS_URL"):
                async with serving(database_url, alone=alone):
                    pass

    async with serving(database_url, alone=True):
        pass  # it has gone


async def test_those_that_count_together_are_any_number(database_url: str):
    async with AsyncExitStack() as opened:
        for _ in range(2):
            await opened.enter_async_context(serving(database_url, alone=False))
        with pytest.raises(AnotherServes):
            await opened.enter_async_context(serving(database_url, alone=True))


HOLDERS = "FROM pg_locks WHERE locktype = 'advisory'"


def holders(server: PostgresServer) -> list[Any]:
    return server.ask(f"SELECT pid {HOLDERS}")


def cut(server: PostgresServer) -> None:
    """End the sessions that hold a claim."""
    server.ask(f"SELECT pg_terminate_backend(pid) {HOLDERS}")


def restart(server: PostgresServer) -> None:
    server.kill()
    server.start()


@pytest.mark.parametrize("end", [cut, restart])
async def test_a_claim_whose_connection_broke_is_made_again(
    end: Callable[[PostgresServer], None],
    postgres_url: str,
    postgres_server: PostgresServer,
    monkeypatch: pytest.MonkeyPatch,
):
    """A restart of the server lets nobody in who would count alone beside it."""
    monkeypatch.setattr(module, "_WATCH_S", 0.05)
    async with serving(postgres_url, alone=True) as lost:
        before = holders(postgres_server)
        end(postgres_server)
        assert await happens(lambda: holders(postgres_server) not in ([], before))
        with pytest.raises(AnotherServes):
            async with serving(postgres_url, alone=True):
                pass

        assert not lost.is_set()


@pytest.mark.parametrize("alone", [True, False], ids=["alone", "together"])
async def test_who_lost_its_claim_to_another_is_told(
    alone: bool, postgres_url: str, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
):
    """It stops, before both have allowed the whole of every limit for long."""
    monkeypatch.setattr(module, "_WATCH_S", 0.5)
    async with serving(postgres_url, alone=alone) as lost:
        cut(postgres_server)
        async with serving(postgres_url, alone=True) as lost_by_the_other:
            await asyncio.wait_for(lost.wait(), 20)

            assert not lost_by_the_other.is_set()


async def happens(is_there: Callable[[], bool]) -> bool:
    for _ in range(400):
        if is_there():
            return True
        await asyncio.sleep(0.05)
    return False
