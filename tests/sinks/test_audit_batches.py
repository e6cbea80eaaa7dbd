"""Audit rows on their way to the database: in batches, and never lost while it is away."""

import asyncio
from collections.abc import Sequence

import pytest

from gateway.errors import StoreUnavailable
from gateway.model import AuditRow
from gateway.rules.audit import row_of
from gateway.sinks import audit_batches
from gateway.sinks.audit_batches import BATCH_ROWS, AuditBatches
from tests.asgi import exchange


class Store:
    """Keeps batches; fails as often as it is told to."""

    def __init__(self, failures: int = 0) -> None:
        self.batches: list[list[str]] = []
        self.failures = failures
        self.written = asyncio.Event()

    async def write(self, rows: Sequence[AuditRow]) -> None:
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable
        self.batches.append([row.request_id for row in rows])
        self.written.set()


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(audit_batches, "RETRY_S", 0.001)
    monkeypatch.setattr(audit_batches, "BATCH_WAIT_S", 0.001)


def row(number: int) -> AuditRow:
    return row_of(exchange(request_id=f"r{number}", status=200), ended=100.0)


async def test_rows_are_written_in_the_order_they_came():
    store = Store()
    batches = AuditBatches(store)
    await batches.start()

    for number in range(3):
        batches.record(row(number))
    await batches.stop()

    assert [one for batch in store.batches for one in batch] == ["r0", "r1", "r2"]


async def test_many_rows_become_few_batches():
    store = Store()
    batches = AuditBatches(store)

    for number in range(2 * BATCH_ROWS + 1):
        batches.record(row(number))
    await batches.stop()

    assert [len(batch) for batch in store.batches] == [BATCH_ROWS, BATCH_ROWS, 1]


async def test_rows_wait_while_the_database_is_away():
    """Three failures, then all rows, each once."""
    store = Store(failures=3)
    batches = AuditBatches(store)
    await batches.start()

    batches.record(row(1))
    batches.record(row(2))
    await store.written.wait()
    await batches.stop()

    assert [one for batch in store.batches for one in batch] == ["r1", "r2"]


async def test_a_full_buffer_says_so_and_still_takes_what_was_admitted():
    """`is_full` stops new work; what is already running is recorded whatever happens."""
    batches = AuditBatches(Store(), max_waiting_rows=2)

    fullness = [batches.is_full]
    for number in range(3):
        batches.record(row(number))
        fullness.append(batches.is_full)
    await batches.stop()

    assert [*fullness, batches.is_full] == [False, False, True, True, False]


async def test_stopping_says_when_rows_could_not_be_written():
    batches = AuditBatches(Store(failures=100))
    batches.record(row(1))

    with pytest.raises(StoreUnavailable):
        await batches.stop()
