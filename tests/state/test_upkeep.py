"""Leases that ran out: what they held is charged in the ledger, unless it knows better."""

from collections import deque

import pytest
from attrs import define, evolve, field

from gateway.accounting import Evidence, LedgerEntry, Outlook, Window
from gateway.state.local_counters import LocalCounters
from gateway.state.upkeep import Upkeep, settle_all
from gateway.storage.engines import database_at
from gateway.storage.ledger import Ledger
from gateway.storage.migrations import migrate
from tests.contract.plans import JANUARY, LEASE_S, MONDAY, NOW, budget, intent, plan
from tests.contract.stores import SetClock

DAY, MONTH = budget(1000, Window.DAY), budget(None, Window.MONTH)


@define
class Spooled:
    """A spool that is drained at once."""

    ledger: Ledger
    entries: list[LedgerEntry] = field(factory=list)

    def intent(self, entry: LedgerEntry, row: object = None) -> None: ...

    def settled(self, entry: LedgerEntry) -> None:
        self.entries.append(entry)


@pytest.fixture
async def ledger(tmp_path):
    url = f"sqlite:///{tmp_path}/gateway.db"
    migrate(url)
    async with database_at(url) as database:
        yield Ledger(database)


async def overdue(clock: SetClock) -> LocalCounters:
    """Counters with one reservation of 100 tokens whose lease has run out."""
    counters = LocalCounters(clock)
    await counters.restore("acme", [], [], LEASE_S)
    await counters.take(plan("r1", DAY, MONTH, needed=100))
    clock.time += LEASE_S + 1
    return counters


async def used(counters: LocalCounters) -> int:
    found = await counters.look(plan("r2", DAY))
    assert isinstance(found, Outlook)
    return found.standings[0].used


async def test_an_intent_without_an_end_is_charged_in_full(ledger: Ledger):
    counters, spool = await overdue(SetClock(NOW)), Spooled(ledger)
    await ledger.write([intent("r1", 100)])

    await Upkeep(counters, ledger, spool).write_expired()

    (entry,) = spool.entries
    assert (entry.evidence, entry.tokens, entry.estimated) == (Evidence.EXPIRED, 100, True)
    assert (entry.day, entry.month) == (MONDAY.id, JANUARY.id)
    assert await used(counters) == 100


async def test_the_counters_learn_of_an_end_that_they_lost(ledger: Ledger):
    """As when they were emptied between a settlement and the rebuild."""
    counters, spool = await overdue(SetClock(NOW)), Spooled(ledger)
    await ledger.write([evolve(intent("r1", 100), tokens=30, evidence=Evidence.SETTLED)])

    await Upkeep(counters, ledger, spool).write_expired()

    assert spool.entries == []
    assert await used(counters) == 30


async def test_the_counters_learn_of_ends_whose_process_died():
    """After its leases ran out and were charged in full; those that they know already change nothing."""
    counters = await overdue(SetClock(NOW))
    await counters.expired()
    end = evolve(intent("r1", 100), tokens=30, evidence=Evidence.SETTLED)
    ends = deque([end, end])

    await settle_all(counters, ends)

    assert await used(counters) == 30
    assert not ends


async def test_an_intent_that_the_ledger_never_saw_is_written_by_what_the_counters_know(ledger: Ledger):
    """As when a process died with its disk before it was drained."""
    counters, spool = await overdue(SetClock(NOW)), Spooled(ledger)

    await Upkeep(counters, ledger, spool).write_expired()
    await ledger.write(spool.entries)

    (entry,) = spool.entries
    assert (entry.evidence, entry.tokens, entry.key_id, entry.tenant_id) == (
        Evidence.EXPIRED,
        100,
        "k1",
        "acme",
    )
    assert (entry.day, entry.month, entry.admitted_at) == (MONDAY.id, JANUARY.id, NOW)
    assert await ledger.verify() == []


async def test_who_dies_before_it_is_written_leaves_it_to_the_next(ledger: Ledger):
    """Told again, until it is in somebody's spool."""

    class Broken(Spooled):
        def settled(self, entry: LedgerEntry) -> None:
            raise RuntimeError("killed")

    counters, spool = await overdue(SetClock(NOW)), Spooled(ledger)

    with pytest.raises(RuntimeError):
        await Upkeep(counters, ledger, Broken(ledger)).write_expired()
    await Upkeep(counters, ledger, spool).write_expired()
    await Upkeep(counters, ledger, spool).write_expired()

    assert [entry.reservation_id for entry in spool.entries] == ["r1"]
