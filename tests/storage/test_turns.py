"""A batch in turns, so that streams go on while it is worked out."""

import asyncio
from collections import Counter

import pytest

from gateway.rules.audit_chain import Chain
from gateway.rules.usage import counts_of_row
from gateway.storage import audit, ledger
from gateway.storage.audit import AuditLog
from gateway.storage.ledger import Ledger
from gateway.storage.turns import ROWS_A_TURN, in_turns
from tests.storage.samples import CHAIN, audit_row, intent

ROWS = 4 * ROWS_A_TURN


@pytest.fixture
async def turns():
    """The turns of the event loop so far, as a list that grows."""
    seen: list[int] = []

    async def count() -> None:
        while True:
            seen.append(len(seen))
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    yield seen
    counting.cancel()


async def test_all_come_in_their_order_and_others_between_them(turns):
    found = [(row, len(turns)) async for row in in_turns(range(ROWS))]

    assert [row for row, _ in found] == list(range(ROWS))
    assert max(Counter(turn for _, turn in found).values()) == ROWS_A_TURN


async def test_a_batch_of_rows_is_counted_and_proven_in_turns(database, turns, monkeypatch):
    worked: Counter[tuple[str, int]] = Counter()
    count, proofs_of = counts_of_row, Chain.proofs_of

    def counted(row):
        worked["counted", len(turns)] += 1
        return count(row)

    def proven(chain, row, salt):
        worked["proven", len(turns)] += 1
        return proofs_of(chain, row, salt)

    monkeypatch.setattr(audit, "counts_of_row", counted)
    monkeypatch.setattr(Chain, "proofs_of", proven)

    await AuditLog(database, CHAIN).write(
        [audit_row(number, tenant_id=f"t{number}") for number in range(ROWS)]
    )

    assert sum(worked.values()) == 2 * ROWS
    assert max(worked.values()) <= ROWS_A_TURN


async def test_a_batch_of_entries_is_compared_and_read_in_turns(database, turns, monkeypatch):
    """Those that replace what was kept are read first."""
    worked: Counter[tuple[str, int]] = Counter()
    is_better, entry_of = ledger._is_better, ledger.entry_of
    entries = [intent(f"r{number}") for number in range(ROWS)]
    await Ledger(database).write(entries)

    def compared(entry, before):
        worked["compared", len(turns)] += 1
        return is_better(entry, before)

    def read(row):
        worked["read", len(turns)] += 1
        return entry_of(row)

    monkeypatch.setattr(ledger, "_is_better", compared)
    monkeypatch.setattr(ledger, "entry_of", read)

    await Ledger(database).write(entries)

    assert worked.total() == 3 * ROWS
    assert max(worked.values()) <= ROWS_A_TURN
