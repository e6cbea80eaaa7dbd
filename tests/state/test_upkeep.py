"""Leases that ran out: what they held is charged in the ledger, unless it knows better."""

import pytest
from attrs import define, evolve, field

from gateway.accounting import Evidence, LedgerEntry, Outlook, Window
from gateway.state.local_counters import LocalCounters
from gateway.state.upkeep import Upkeep
from gateway.storage.database import Database
from gateway.storage.ledger import Ledger
from gateway.storage.migrations import migrate
from tests.contract.plans import JANUARY, LEASE_S, MONDAY, NOW, budget, intent, plan
from tests.contract.stores import SetClock

DAY = budget(1000, Window.DAY)


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
    async with Database(url) as database:
        yield Ledger(database)


async def overdue(clock: SetClock) -> LocalCounters:
    """Counters with one reservation of 100 tokens whose lease has run out."""
    counters = LocalCounters(clock)
    await counters.restore("acme", [], [], LEASE_S)
    await counters.take(plan("r1", DAY, needed=100))
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
