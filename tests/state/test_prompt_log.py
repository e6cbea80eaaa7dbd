"""The prompt log: it never holds a request up, and what it can't keep it counts."""

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from attrs import define, evolve, field
from loguru import logger

from gateway.errors import StoreUnavailable, Unstorable
from gateway.ports import Spoken
from gateway.state.prompt_log import PromptLog
from gateway.state.sealing import Sealer
from gateway.storage.prompts import KEY_S, KeptKey, SealedPrompt
from tests.asgi import FakeClock

SECRET = b"0123456789abcdef" * 2


@define
class Said:
    """A transcript."""

    text: Any = "hello"

    def written(self) -> dict[str, Any]:
        if isinstance(self.text, Exception):
            raise self.text
        return {"said": self.text}


@define
class Store:
    """A database of prompts that can be away, and takes no request whose id is in `refused`."""

    prompts: dict[str, SealedPrompt] = field(factory=dict)
    keys: dict[str, KeptKey] = field(factory=dict)
    is_away: bool = False
    refused: set[str] = field(factory=set)
    news: asyncio.Event = field(factory=asyncio.Event)

    async def write(self, prompts: Sequence[SealedPrompt], keys: Sequence[KeptKey]) -> int:
        self.news.set()
        if self.is_away:
            raise StoreUnavailable
        if self.refused & {one.request_id for one in prompts}:
            raise Unstorable("no")
        self.prompts |= {one.request_id: one for one in prompts}
        self.keys |= {one.id: one for one in keys}
        return len(prompts)

    def said(self, request_id: str) -> Any:
        found = self.prompts[request_id]
        key = self.keys[found.prompt_key_id]
        opened = Sealer(SECRET).opened(key.id, key.account_id, key.wrapped)
        return json.loads(opened.unseal(request_id, found.sealed))


def spoken(request_id: str = "r1", **changes: Any) -> Spoken:
    return evolve(Spoken(request_id, "t1", "k1", 0, 3600, 1000, Said()), **changes)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - a count has no event
            await asyncio.sleep(0.01)


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """What is told to operators."""
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(line.strip()), level="ERROR", format="{message}")
    yield lines
    logger.remove(sink)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def log(store: Store, clock: FakeClock) -> PromptLog:
    return PromptLog(store, Sealer(SECRET), clock.elapsed, max_waiting_bytes=10_000, gather_s=0)


async def test_what_was_said_is_kept_sealed(log: PromptLog, store: Store, clock: FakeClock):
    """With how long ago it was said, so that its time runs from then."""
    log.keep(spoken())
    clock.monotonic += 7

    await log.flush()

    kept = store.prompts["r1"]
    assert (kept.tenant_id, kept.account_id, kept.lives_s, kept.age_s) == ("t1", "k1", 3600, 7)
    assert b"hello" not in kept.sealed
    assert store.said("r1") == {"said": "hello"}
    assert (log.kept, log.dropped, log.waiting_bytes) == (1, 0, 0)


async def test_a_data_key_is_of_one_account_and_of_five_minutes(
    log: PromptLog, store: Store, clock: FakeClock
):
    for request_id, changes in (("r1", {}), ("r2", {}), ("r3", {"account_id": "k2"})):
        log.keep(spoken(request_id, **changes))
    await log.flush()
    clock.monotonic += KEY_S
    log.keep(spoken("r4"))
    await log.flush()

    used = {request_id: kept.prompt_key_id for request_id, kept in store.prompts.items()}
    assert used["r1"] == used["r2"]
    assert len({used["r1"], used["r3"], used["r4"]}) == 3
    assert {key.lives_s for key in store.keys.values()} == {3600 + KEY_S}


@pytest.mark.parametrize("changes", [{"generation": 1}, {"lives_s": 60}], ids=["purged", "other time"])
async def test_after_a_purge_or_another_setting_another_key_is_used(log: PromptLog, store: Store, changes):
    """The old one was destroyed with what it sealed, or will be sooner."""
    log.keep(spoken("r1"))
    await log.flush()
    log.keep(spoken("r2", **changes))
    await log.flush()

    assert store.prompts["r1"].prompt_key_id != store.prompts["r2"].prompt_key_id


async def test_an_outage_is_bridged_in_memory(log: PromptLog, store: Store):
    store.is_away = True
    log.keep(spoken())
    with pytest.raises(StoreUnavailable):
        await log.flush()
    store.is_away = False

    await log.flush()

    assert (log.kept, log.dropped) == (1, 0)


async def test_memory_is_bounded_and_what_does_not_fit_is_counted_and_told_once(log: PromptLog, logged):
    for number in range(20):
        log.keep(spoken(f"r{number}"))

    assert (log.waiting_bytes, log.dropped) == (10_000, 10)
    assert [line for line in logged if "prompts are not kept" in line] == [
        "prompts are not kept: the database is away, or slower than they come"
    ]


async def test_what_waits_for_longer_than_it_was_to_be_kept_is_forgotten(
    log: PromptLog, store: Store, clock: FakeClock
):
    """Its time runs in memory, too."""
    log.keep(spoken("r1", lives_s=60))
    log.keep(spoken("r2"))
    clock.monotonic += 61

    await log.flush()

    assert list(store.prompts) == ["r2"]
    assert (log.kept, log.dropped, log.waiting_bytes) == (1, 1, 0)


async def test_what_the_database_does_not_take_is_alone_in_not_being_kept(log: PromptLog, store: Store):
    store.refused = {"r2"}
    for request_id in ("r1", "r2", "r3"):
        log.keep(spoken(request_id))

    await log.flush()

    assert list(store.prompts) == ["r1", "r3"]
    assert (log.kept, log.dropped) == (2, 1)


async def test_half_a_character_is_kept_as_it_came(log: PromptLog, store: Store):
    log.keep(spoken(transcript=Said("half \ud83d")))

    await log.flush()

    assert store.said("r1") == {"said": "half \ud83d"}


async def test_in_the_background_it_is_written_once_the_database_is_back(log: PromptLog, store: Store):
    store.is_away = True
    await log.start()
    log.keep(spoken())
    await asyncio.wait_for(store.news.wait(), 30)
    store.is_away = False
    store.news.clear()
    await asyncio.wait_for(store.news.wait(), 30)
    await log.stop()

    assert list(store.prompts) == ["r1"]


async def test_a_defect_ends_neither_the_log_nor_says_what_was_said(log: PromptLog, store: Store, logged):
    await log.start()
    log.keep(spoken("r1", transcript=Said(RuntimeError("CANARY"))))
    await until(lambda: bool(log.dropped))
    log.keep(spoken("r2"))
    await log.stop()

    assert list(store.prompts) == ["r2"]
    assert logged == ["prompts are not kept: a defect (RuntimeError)"]


async def test_stopping_writes_what_waits(log: PromptLog, store: Store):
    await log.start()
    log.keep(spoken())
    await log.stop()

    assert list(store.prompts) == ["r1"]


async def test_stopping_without_a_database_says_what_is_lost(log: PromptLog, store: Store, logged):
    store.is_away = True
    await log.start()
    log.keep(spoken())
    await log.stop()

    assert log.dropped == 1
    assert logged == ["prompts are not kept: the gateway stops, and the database does not answer"]


async def test_one_that_never_started_stops(log: PromptLog):
    await log.stop()
