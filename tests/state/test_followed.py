"""Followed: what operators keep in the database, in memory and current."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from attrs import define, field
from loguru import logger

from gateway.errors import StoreUnavailable
from gateway.state.followed import Followed
from gateway.storage.refusals import DatabaseUnusable


@define
class Watch:
    """A RevisionWatch that a test moves by hand."""

    revision: int | None = 1
    is_pausing: bool = False


@define
class Table:
    """What is read; None: the database is away. "broken" can't be read, nor can "of a newer version"."""

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
        if self.has == "of a newer version":
            raise TypeError("unexpected keyword")
        return self.has

    async def next_read(self) -> None:
        self.read_again.clear()
        async with asyncio.timeout(30):
            await self.read_again.wait()


@pytest.fixture
def caught_logs() -> Iterator[list[str]]:
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(line.strip()), level="ERROR", format="{message}")
    yield lines
    logger.remove(sink)


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


@pytest.mark.parametrize("trouble", [None, "broken", "of a newer version"])
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


@pytest.mark.parametrize("trouble", ["broken", "of a newer version"])
async def test_nobody_is_served_by_what_nobody_can_read(trouble):
    """Without profiles a caller would get the model behind one, and none of its bounds."""
    followed = Followed(Table(trouble).read, Watch(), "", of="profiles of models")  # type: ignore[arg-type]

    with pytest.raises(DatabaseUnusable, match=r"profiles of models can't be read \((Value|Type)Error\)"):
        await followed.start()
    await followed.stop()


async def test_what_cannot_be_read_is_told_once_for_each_revision(parts, caught_logs):
    """It is tried four times a second."""
    _, table, watch, _ = parts
    for watch.revision in (2, 3):
        table.has = "broken"
        for _ in range(3):
            await table.next_read()
        table.has = "two"
        await table.next_read()

    assert [line for line in caught_logs if "can't be read" in line] == [
        "settings can't be read (ValueError); what was known before holds"
    ] * 2


async def test_who_fails_at_a_change_does_not_end_the_following():
    """The next change is told again."""
    table, watch, told = Table(), Watch(), []

    def fail_at_two(value: str) -> None:
        told.append(value)
        if value == "two":
            raise RuntimeError("a defect")

    followed = Followed(table.read, watch, "", on_change=fail_at_two, poll_s=0.001)  # type: ignore[arg-type]
    await followed.start()
    for watch.revision, table.has in ((2, "two"), (3, "three")):
        await table.next_read()
    await asyncio.sleep(0)
    await followed.stop()

    assert (followed.value, told) == ("three", ["one", "two", "three"])
