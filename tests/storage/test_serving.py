"""Gateways that count alone keep others off their database."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from gateway.storage import engines
from gateway.storage.refusals import AnotherServes


@asynccontextmanager
async def serving(database_url: str, *, alone: bool) -> AsyncIterator[list[str]]:
    """Gives what `on_lost` told."""
    told: list[str] = []
    async with engines.serving(database_url, alone=alone, on_lost=lambda: told.append("lost")):
        yield told


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
