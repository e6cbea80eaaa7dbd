"""The drainer: all that can be kept is kept, whatever stands beside it."""

import os

import pytest

from gateway.errors import StoreUnavailable
from gateway.spool import frames
from gateway.spool.drainer import Drainer, Item, read_batch
from gateway.spool.records import Audited, End, Intent, Record, Unreadable, encode
from tests.spool.doubles import Stores
from tests.storage.samples import audit_row, intent, settled


@pytest.fixture
def stores():
    return Stores()


@pytest.fixture
def drainer(stores):
    return Drainer(stores.ledger, stores.audit, stores)


def items(*records: Record) -> list[Item]:
    return [Item(record) for record in records]


async def test_a_batch_goes_to_the_ledger_and_to_the_audit_log(drainer, stores):
    """Each in one write; a settlement that came with its intent takes its place."""
    await drainer.store(items(Intent(intent()), Audited(audit_row(1)), End(settled())))

    assert stores.entries == {"r1": settled()}
    assert stores.rows == {"r1": audit_row(1)}
    assert stores.batches == [2, 1]


@pytest.mark.parametrize("poisoned", [[0], [499], [250], [0, 1, 2], [7, 300, 499], list(range(10, 30))])
async def test_poison_is_found_and_set_aside(drainer, stores, poisoned):
    """Wherever it stands, and however much there is: the others get through."""
    stores.poison = {f"r{number}" for number in poisoned}

    await drainer.store(items(*(End(settled(f"r{number}")) for number in range(500))))

    assert stores.entries.keys() == {f"r{number}" for number in range(500)} - stores.poison
    assert stores.quarantine == {
        encode(End(settled(f"r{number}"))): ("ledger", "poisoned") for number in poisoned
    }
    assert drainer.set_aside == len(poisoned)


async def test_poison_costs_few_attempts(drainer, stores):
    """One among a thousand is found by halving."""
    stores.poison = {"r700"}

    await drainer.store(items(*(Audited(audit_row(number)) for number in range(1000))))

    assert len(stores.rows) == 999
    assert stores.attempts <= 2 * 11


async def test_what_can_not_be_read_is_set_aside(drainer, stores):
    await drainer.store([Item(Unreadable("not ours"), b"[5]"), *items(Audited(audit_row(1)))])

    assert stores.quarantine == {b"[5]": ("unreadable", "not ours")}
    assert list(stores.rows) == ["r1"]


async def test_a_store_that_is_away_is_not_mistaken_for_poison(drainer, stores):
    """Nothing is set aside; the whole batch is given again."""
    batch = items(End(settled()), Audited(audit_row(1)))
    stores.failures = 1
    with pytest.raises(StoreUnavailable):
        await drainer.store(batch)
    await drainer.store(batch)

    assert (list(stores.entries), list(stores.rows), stores.quarantine) == (["r1"], ["r1"], {})


async def test_damage_is_counted_once_and_told(drainer, stores, tmp_path):
    """Also when its batch has to be given again, and when somebody cut the file."""
    good = encode(Audited(audit_row(1)))
    data = b"noise" + frames.frame(good) + b"torn"
    (tmp_path / "file").write_bytes(data)
    descriptor = os.open(tmp_path / "file", os.O_RDONLY)
    batch = read_batch(descriptor, 0, len(data) + 10)
    os.close(descriptor)

    stores.failures = 1
    with pytest.raises(StoreUnavailable):
        await drainer.drain(batch, "file")
    await drainer.drain(batch, "file")

    assert list(stores.rows) == ["r1"]
    assert (batch.used_bytes, batch.gaps) == (len(data) + 10, 2)
    assert drainer.lost_bytes == len(b"noise") + len(b"torn") + 10
