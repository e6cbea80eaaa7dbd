"""What a request reserved is ended when its backend is free."""

import asyncio

import pytest
from attrs import define, field

from gateway.accounting import Evidence, LedgerEntry
from gateway.errors import StoreUnavailable
from gateway.middleware import settler as module
from gateway.middleware.settler import Settler

ENTRY = LedgerEntry(
    reservation_id="r1",
    tenant_id="t1",
    key_id="k1",
    model="m:latest",
    admitted_at=0.0,
    day="2026-11-23",
    month="2026-11",
    reserved=10,
    tokens=7,
    prompt_tokens=3,
    completion_tokens=4,
    estimated=False,
    evidence=Evidence.SETTLED,
    backend="b",
)


@define
class Told:
    """Counters and a spool that remember what they were told."""

    counters: list[str] = field(factory=list)
    spool: list[LedgerEntry] = field(factory=list)
    is_here: bool = False
    """The counters are in this process."""
    failures: int = 0
    """So many calls fail, before others do not."""
    answer: asyncio.Event | None = None
    """What they wait for before they answer."""

    async def settle(self, tenant_id: str, reservation_id: str, tokens: int) -> None:
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable
        if self.answer is not None:
            await self.answer.wait()
        self.counters.append(reservation_id)

    def settle_at_once(self, tenant_id: str, reservation_id: str, tokens: int) -> bool:
        if self.is_here:
            self.counters.append(reservation_id)
        return self.is_here

    def settled(self, entry: LedgerEntry) -> None:
        self.spool.append(entry)


async def ended_within(settler: Settler, seconds: float, busy_s: float = 0.0) -> None:
    settling = settler.end_within(seconds, ENTRY, busy_s)
    assert settling is not None
    await settling


async def test_a_place_is_kept_while_the_backend_is_at_work():
    """Its caller left while the prompt was read: leaving is no way around the limit. What it cost is written
    down at once, and a stop waits for nobody.
    """
    told = Told()
    settler = Settler(told, told)  # type: ignore[arg-type]
    await settler.start()

    ended = settler.end(ENTRY, busy_s=3600)
    assert ended is not None
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (told.counters, told.spool) == ([], [ENTRY])

    await settler.stop()
    await asyncio.wait_for(ended, 30)
    assert told.counters == ["r1"]


async def test_a_place_is_free_when_the_backend_is():
    told = Told()
    settler = Settler(told, told)  # type: ignore[arg-type]

    for busy_s in (0.01, 0.0):
        ended = settler.end(ENTRY, busy_s=busy_s)
        assert ended is not None
        await asyncio.wait_for(ended, 30)

    assert told.counters == ["r1", "r1"]


async def test_counters_in_this_process_are_told_without_a_task_unless_the_backend_is_at_work():
    told = Told(is_here=True)
    settler = Settler(told, told)  # type: ignore[arg-type]

    assert settler.end(ENTRY) is None
    assert (told.counters, told.spool) == (["r1"], [ENTRY])
    ended = settler.end(ENTRY, busy_s=0.01)

    assert ended is not None
    await asyncio.wait_for(ended, 30)
    assert told.counters == ["r1", "r1"]


@pytest.mark.parametrize("is_here", [True, False])
async def test_who_waits_for_the_counters_needs_no_task(is_here: bool):
    told = Told(is_here=is_here)
    settler = Settler(told, told)  # type: ignore[arg-type]

    settling = settler.end_within(0.0, ENTRY)
    assert (settling is None) == is_here
    if settling is not None:
        await settling

    assert told.counters == ["r1"]
    assert told.spool == [ENTRY]
    assert not settler.settling


async def test_counters_that_do_not_answer_are_told_later(monkeypatch: pytest.MonkeyPatch):
    """By a task: the end of the answer waits no longer than it may."""
    monkeypatch.setattr(module, "RETRY_S", 0.01)
    told = Told(failures=2)
    settler = Settler(told, told)  # type: ignore[arg-type]

    await ended_within(settler, 0.0)
    assert (told.counters, settler.settling) == ([], 1)

    await asyncio.wait_for(asyncio.wait(settler._settling), 30)
    assert told.counters == ["r1"]
    assert len(told.spool) == 1


async def test_counters_that_answer_again_in_time_are_waited_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "RETRY_S", 0.01)
    told = Told(failures=1)

    await ended_within(Settler(told, told), 30)  # type: ignore[arg-type]

    assert told.counters == ["r1"]


async def test_the_counters_are_told_of_a_request_that_is_cancelled_while_it_waits_for_them():
    told = Told(answer=asyncio.Event())
    settler = Settler(told, told)  # type: ignore[arg-type]
    ending = asyncio.create_task(ended_within(settler, 30))
    await asyncio.sleep(0)
    assert settler.settling == 1

    ending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ending
    assert (told.counters, settler.settling) == ([], 1)

    assert told.answer is not None
    told.answer.set()
    await asyncio.wait_for(asyncio.wait(settler._settling), 30)
    assert told.counters == ["r1"]


async def test_a_place_is_kept_while_the_backend_is_at_work_also_where_the_end_waits():
    told = Told()
    settler = Settler(told, told)  # type: ignore[arg-type]
    await settler.start()

    await ended_within(settler, 0.0, busy_s=3600)
    assert (told.counters, settler.settling) == ([], 1)

    await settler.stop()
    assert told.counters == ["r1"]
