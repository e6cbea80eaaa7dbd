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

    async def settle(self, tenant_id: str, reservation_id: str, tokens: int) -> None:
        self.counters.append(reservation_id)

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
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (told.counters, [entry.tokens for entry in told.spool]) == ([], [0])

    await settler.stop()
    await asyncio.wait_for(ended, 30)
    assert told.counters == ["r1"]


async def test_a_place_is_free_when_the_backend_is():
    told = Told()
    settler = Settler(told, told)  # type: ignore[arg-type]

    await asyncio.wait_for(settler.end(INTENT, FREE, busy_s=0.01), 30)
    await asyncio.wait_for(settler.end(INTENT, FREE), 30)

    assert told.counters == ["r1", "r1"]
