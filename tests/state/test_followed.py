"""Followed: what operators keep in the database, in memory and current."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from attrs import define, field

from gateway.errors import StoreUnavailable
from gateway.state.followed import Followed


@define
class Watch:
    """A RevisionWatch that a test moves by hand."""

    revision: int | None = 1
    is_pausing: bool = False


@define
class Table:
    """What is read; None: the database is away, and "broken" can't be read."""

    has: str | None = "one"
    reads: int = 0
    read_again: asyncio.Event = field(factory=asyncio.Event)

    async def read(self) -> str:
        self.reads += 1
        self.read_again.set()
        if self.has is None:
            raise StoreUnavailable
        if self.has == "broken":
            raise ValueError("no JSON")
        return self.has

    async def next_read(self) -> None:
        self.read_again.clear()
        async with asyncio.timeout(30):
            await self.read_again.wait()


@pytest.fixture
async def parts() -> AsyncIterator[tuple[Followed[str], Table, Watch, list[str]]]:
    table, watch = Table(), Watch()
    told: list[str] = []
    followed = Followed(table.read, watch, "", on_change=told.append, poll_s=0.001)  # type: ignore[arg-type]
    await followed.start()
    yield followed, table, watch, told
    await followed.stop()


async def test_it_is_read_before_anybody_is_served(parts):
    followed, table, _, told = parts

    assert (followed.value, table.reads, told) == ("one", 1, ["one"])


async def test_it_is_read_again_when_the_revision_moves(parts):
    """And not otherwise; who wants to know is told of what is new."""
    followed, table, watch, told = parts
    table.has = "two"
    await asyncio.sleep(0.01)
    assert (followed.value, table.reads) == ("one", 1)

    watch.revision = 2
    await table.next_read()
    await asyncio.sleep(0)

    assert (followed.value, told) == ("two", ["one", "two"])
    watch.revision = 3
    await table.next_read()
    assert told == ["one", "two"], "the same again is nothing new"


@pytest.mark.parametrize("trouble", [None, "broken"])
async def test_what_was_known_holds_until_it_can_be_read(parts, trouble):
    """And is read as soon as it can be."""
    followed, table, watch, _ = parts
    table.has, watch.revision = trouble, 2
    await table.next_read()
    await table.next_read()
    assert followed.value == "one"

    table.has = "two"
    await table.next_read()
    await asyncio.sleep(0)

    assert followed.value == "two"


async def test_nobody_is_served_by_what_nobody_has_read():
    table = Table(None)

    with pytest.raises(StoreUnavailable):
        await Followed(table.read, Watch(), "").start()  # type: ignore[arg-type]
