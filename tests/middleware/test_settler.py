"""What a request reserved is ended when its backend is free."""

import asyncio

from attrs import define, field

from gateway.accounting import Evidence, LedgerEntry
from gateway.middleware.settler import Settler
from gateway.rules.budgets import FREE

INTENT = LedgerEntry(
    reservation_id="r1",
    tenant_id="t1",
    key_id="k1",
    model="m:latest",
    admitted_at=0.0,
    day="2026-11-23",
    month="2026-11",
    reserved=10,
    tokens=10,
    prompt_tokens=0,
    completion_tokens=0,
    estimated=True,
    evidence=Evidence.INTENT,
)


@define
class Told:
    """Counters and a spool that remember what they were told."""

    counters: list[str] = field(factory=list)
    spool: list[LedgerEntry] = field(factory=list)
    is_here: bool = False
    """The counters are in this process."""

    async def settle(self, tenant_id: str, reservation_id: str, tokens: int) -> None:
        self.counters.append(reservation_id)

    def settle_at_once(self, tenant_id: str, reservation_id: str, tokens: int) -> bool:
        if self.is_here:
            self.counters.append(reservation_id)
        return self.is_here

    def settled(self, entry: LedgerEntry) -> None:
        self.spool.append(entry)


async def test_a_place_is_kept_while_the_backend_is_at_work():
    """Its caller left while the prompt was read: leaving is no way around the limit. What it cost is written
    down at once, and a stop waits for nobody.
    """
    told = Told()
    settler = Settler(told, told)  # type: ignore[arg-type]
    await settler.start()

    ended = settler.end(INTENT, FREE, busy_s=3600)
    assert ended is not None
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (told.counters, [entry.tokens for entry in told.spool]) == ([], [0])

    await settler.stop()
    await asyncio.wait_for(ended, 30)
    assert told.counters == ["r1"]


async def test_a_place_is_free_when_the_backend_is():
    told = Told()
    settler = Settler(told, told)  # type: ignore[arg-type]

    for busy_s in (0.01, 0.0):
        ended = settler.end(INTENT, FREE, busy_s=busy_s)
        assert ended is not None
        await asyncio.wait_for(ended, 30)

    assert told.counters == ["r1", "r1"]


async def test_counters_in_this_process_are_told_without_a_task_unless_the_backend_is_at_work():
    told = Told(is_here=True)
    settler = Settler(told, told)  # type: ignore[arg-type]

    assert settler.end(INTENT, FREE, backend="b") is None
    assert (told.counters, [entry.backend for entry in told.spool]) == (["r1"], ["b"])
    ended = settler.end(INTENT, FREE, busy_s=0.01)

    assert ended is not None
    await asyncio.wait_for(ended, 30)
    assert told.counters == ["r1", "r1"]
