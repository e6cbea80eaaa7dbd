"""The spool: on the disk at once, soon in the database, and nothing is forgotten on the way."""

import asyncio
import threading
from itertools import count
from pathlib import Path

import pytest
from attrs import evolve

from gateway.accounting import Evidence
from gateway.config import MIN_SPOOL_BYTES
from gateway.errors import AuditUnavailable, StoreUnavailable
from gateway.model import Outcome
from gateway.spool import adoption, backlog, disk_sync, draining, frames, leftovers
from gateway.spool.drainer import BATCH_RECORDS, Drainer
from gateway.spool.journal import SEGMENT_BYTES, Segment
from gateway.spool.records import Audited, End, Intent, decode, encode
from gateway.spool.spool import Spool, SpoolUnusable
from tests.spool.doubles import Stores
from tests.storage.samples import audit_row, intent, settled

KIB = 1024
RECOVERED = evolve(intent(), estimated=True, evidence=Evidence.RECOVERED)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    for pause in ("BATCH_WAIT_S", "RETRY_S", "MAX_RETRY_S", "TEND_S"):
        monkeypatch.setattr(draining, pause, 0.001)
    monkeypatch.setattr(disk_sync, "SYNC_S", 0.001)
    monkeypatch.setattr(adoption, "RETRY_S", 0.001)


@pytest.fixture
def stores():
    return Stores()


@pytest.fixture
def make(tmp_path, stores):
    """Makes the spool of one process; those that were left to die are cleaned up here."""
    made: list[Spool] = []

    def make_one(max_bytes: int = 1024 * KIB, segment_bytes: int = 100 * KIB) -> Spool:
        one = Spool(
            tmp_path / "spool",
            stores.ledger,
            stores.audit,
            stores,
            max_bytes=max_bytes,
            segment_bytes=segment_bytes,
        )
        made.append(one)
        return one

    yield make_one
    for one in made:
        if one._journal.segments:
            die(one)


def die(one: Spool) -> None:
    """As a kill -9 does: the files stay as they are, the lock goes."""
    for task in one._tasks:
        task.cancel()
    one._executor.shutdown()
    one._journal.close()
    one._folder.release()


def on_disk(root: Path) -> list[object]:
    """All records that a restart would find."""
    return [
        decode(payload)
        for file in sorted(root.rglob("*.journal"))
        for payload in frames.read(file.read_bytes(), 100_000).payloads
    ]


# ── the way of one request ───────────────────────────────────────────────────────────────


async def test_what_is_noted_is_on_the_disk_at_once_and_soon_in_the_database(make, stores, tmp_path):
    stores.failures = 2
    one = make()
    await one.start()

    one.intent(intent())
    one.settled(settled())
    one.record(audit_row(1))
    noted = len(on_disk(tmp_path))
    await stores.until(lambda: stores.attempts >= 4)
    async with asyncio.timeout(10):
        while not one.lag_s:  # noqa: ASYNC110 - the disk is waited for in a thread
            await asyncio.sleep(0.001)
    await one.stop()

    assert noted == 3
    assert stores.entries == {"r1": settled()}
    assert stores.rows == {"r1": audit_row(1)}
    assert 0 < one.lag_s < 5


async def test_an_orderly_end_leaves_nothing_behind(make, stores, tmp_path):
    """What is committed is deleted, the folder too."""
    one = make()
    await one.start()
    one.intent(intent(), audit_row(1))
    one.settled(settled())
    one.record(audit_row(1))

    await one.stop()

    assert list((tmp_path / "spool").iterdir()) == []
    assert stores.entries == {"r1": settled()}


async def test_rows_are_written_in_the_order_they_came(make, stores):
    one = make()
    await one.start()

    for number in range(3):
        one.record(audit_row(number))
    await one.stop()

    assert list(stores.rows) == ["r0", "r1", "r2"]


async def test_many_records_become_few_batches(make, stores):
    one = make(max_bytes=100_000 * KIB, segment_bytes=10_000 * KIB)
    await one.start()

    for number in range(2 * BATCH_RECORDS + 1):
        one.record(audit_row(number))
    await one.stop()

    assert stores.batches == [BATCH_RECORDS, BATCH_RECORDS, 1]


async def test_flushing_returns_when_all_is_written(make, stores):
    """Counters are rebuilt from the ledger: what is on its way must be in it."""
    one = make()
    await one.start()
    one.intent(intent())

    await one.flush()

    assert stores.entries == {"r1": intent()}
    assert one.waiting_bytes == 0
    one.settled(settled())
    await one.stop()


# ── a database that is away ──────────────────────────────────────────────────────────────


async def test_records_wait_while_the_database_is_away(make, stores):
    """Failures, then all records, each once."""
    stores.failures = 5
    one = make()
    await one.start()

    one.record(audit_row(1))
    await stores.until(lambda: stores.attempts >= 3)
    one.record(audit_row(2))
    await stores.until(lambda: stores.attempts >= 6)
    await one.stop()

    assert sorted(stores.rows) == ["r1", "r2"]


async def test_stopping_says_when_records_could_not_be_written(make, stores, tmp_path):
    """They stay on the disk, and the next start writes them."""
    one = make()
    await one.start()
    stores.failures = 10**6
    one.record(audit_row(1))
    with pytest.raises(StoreUnavailable):
        await one.stop()
    left = on_disk(tmp_path)

    stores.failures = 0
    another = make()
    await another.start()

    assert left == [Audited(audit_row(1))]
    assert list(stores.rows) == ["r1"]
    await another.stop()


@pytest.mark.parametrize("max_fresh", [10, 5000], ids=["from-the-disk", "from-memory"])
async def test_flushing_ends_though_more_comes_in_with_each_batch(make, stores, monkeypatch, max_fresh):
    """Under load there is no moment at which nothing waits: the database is told as back all the same."""
    monkeypatch.setattr(backlog, "MAX_FRESH", max_fresh)
    stores.failures = 10**6
    one = make()
    await one.start()
    for number in range(100):
        one.record(audit_row(number))
    await stores.until(lambda: one.is_cut_off)

    more = count(100)
    stores.beside = lambda: one.record(audit_row(next(more)))
    stores.failures = 0
    async with asyncio.timeout(10):
        await one.flush()
    stores.beside = lambda: None

    assert not one.is_cut_off
    assert len(stores.rows) >= 100
    assert len(one._backlog._fresh) > 0  # what came last need not be read from the disk
    await one.stop()
    assert list(stores.rows) == [f"r{number}" for number in range(next(more))]


async def test_what_the_disk_did_not_take_has_its_turn_though_more_comes_in(make, stores):
    """Callers who are refused meanwhile leave rows, too: they would keep the spool full."""
    stores.failures = 10**6
    one = make(max_bytes=100 * KIB, segment_bytes=10 * KIB)
    await one.start()
    for number in range(1000):
        one.record(audit_row(number, outcome=Outcome.REFUSED.value))
    was_full = bool(one._backlog._held)

    more = count(1000)
    stores.beside = lambda: one.record(audit_row(next(more), outcome=Outcome.REFUSED.value))
    stores.failures = 0
    async with asyncio.timeout(10):
        await one.flush()
    stores.beside = lambda: None

    assert was_full
    assert not one._backlog._held
    await one.stop()
    assert len(stores.rows) == next(more)


async def test_a_long_outage_is_read_back_from_the_disk(make, stores, monkeypatch):
    """Memory holds the beginning only; all of it comes, once, and in its order."""
    monkeypatch.setattr(backlog, "MAX_FRESH", 10)
    stores.failures = 10**6
    one = make(segment_bytes=10 * KIB)
    await one.start()
    for number in range(100):
        one.record(audit_row(number))
    in_memory = len(one._backlog._fresh)

    stores.failures = 0
    await one.flush()
    one.record(audit_row(100))
    one.record(audit_row(101))
    again_in_memory = len(one._backlog._fresh)
    await one.stop()

    assert (in_memory, again_in_memory) == (10, 2)
    assert list(stores.rows) == [f"r{number}" for number in range(102)]
    assert sum(stores.batches) == 102


async def test_what_is_drained_is_deleted_in_a_thread(make, monkeypatch):
    """The kernel takes a millisecond or two for it, and streams go on meanwhile. Then its space is free."""
    one = make(segment_bytes=10 * KIB)
    delete, where = Segment.delete, []

    def deleted(segment):
        where.append((threading.current_thread() is threading.main_thread(), one._journal.used_bytes))
        delete(segment)

    monkeypatch.setattr(Segment, "delete", deleted)
    await one.start()
    for number in range(100):
        one.record(audit_row(number))
    used_bytes = one._journal.used_bytes

    await one.flush()

    assert len(where) > 1
    assert where[0] == (False, used_bytes)
    assert one._journal.used_bytes <= 10 * KIB
    await one.stop()


async def test_a_start_waits_until_the_database_has_what_the_dead_left(make, stores):
    """Served before, a tenant would be allowed once more what it has spent already."""
    first = make()
    await first.start()
    stores.failures = 10**6
    first.settled(settled())
    die(first)

    second = make()
    starting = asyncio.create_task(second.start())
    await stores.until(lambda: stores.attempts >= 3)
    waited = not starting.done()
    stores.failures = 0
    await starting

    assert waited
    assert stores.entries == {"r1": settled()}
    await second.stop()


async def test_a_start_that_is_given_up_leaves_the_leftovers_to_others(make, stores, tmp_path):
    """SIGTERM while the database is away: the next one drains them."""
    first = make()
    await first.start()
    stores.failures = 10**6
    first.settled(settled())
    die(first)

    starting = asyncio.create_task(make().start())
    await stores.until(lambda: stores.attempts >= 3)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    left = on_disk(tmp_path)
    stores.failures = 0
    third = make()
    await third.start()

    assert left == [End(settled())]
    assert stores.entries == {"r1": settled()}
    await third.stop()
    assert list(third.root.iterdir()) == []


async def test_a_defect_does_not_end_draining(make, stores, monkeypatch):
    """It is logged, and tried again."""
    one = make()
    await one.start()
    broken = asyncio.Event()

    async def fail(*_: object) -> None:
        monkeypatch.undo()
        broken.set()
        raise RuntimeError("a defect")

    monkeypatch.setattr(Drainer, "store", fail)
    one.record(audit_row(1))
    await broken.wait()
    await stores.until(lambda: stores.attempts >= 1)
    await one.stop()

    assert list(stores.rows) == ["r1"]


# ── no room ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("max_bytes", "segment_bytes"), [(100 * KIB, 10 * KIB), (MIN_SPOOL_BYTES, SEGMENT_BYTES)],
    ids=["tiny", "least-setting"],
)  # fmt: skip
async def test_a_full_spool_takes_no_intents_and_keeps_all_ends(make, stores, max_bytes, segment_bytes):
    """What was let in is settled and audited; new work is refused until the database has caught up."""
    stores.failures = 10**6
    one = make(max_bytes=max_bytes, segment_bytes=segment_bytes)
    await one.start()

    count = 0
    while not one.is_full:
        one.intent(intent(f"r{count}"), audit_row(count))
        if count >= 5:
            end(one, count - 5)
        count += 1
    with pytest.raises(AuditUnavailable):
        one.intent(intent("one too many"))
    for number in range(count - 5, count):
        end(one, number)
    stores.failures = 0
    await one.flush()

    assert count > 50
    assert stores.entries == {f"r{number}": settled(f"r{number}") for number in range(count)}
    assert len(stores.rows) == count
    assert (one.dropped, one.is_full) == (0, False)


def end(one: Spool, number: int) -> None:
    one.settled(settled(f"r{number}"))
    one.record(audit_row(number))


async def test_a_spool_that_has_shrunk_drains_what_was_let_in_before(make, stores):
    """What a process with a larger setting left behind is no more in the way once it is drained."""
    stores.failures = 10**6
    first = make(max_bytes=1000 * KIB, segment_bytes=10 * KIB)
    await first.start()
    for number in range(300):
        first.intent(intent(f"r{number}"), audit_row(number))
    die(first)

    stores.failures = 0
    second = make(max_bytes=100 * KIB, segment_bytes=10 * KIB)
    await second.start()

    assert not second.is_full
    assert len(stores.entries) == len(stores.rows) == 300
    assert [file.stat().st_size for file in second.root.rglob("reserve")] == [10 * KIB]
    await second.stop()


async def test_many_running_requests_do_not_keep_the_drainer_busy(make, stores):
    """Files in which most still runs stay, instead of being written again and again."""
    one = make(max_bytes=1000 * KIB, segment_bytes=10 * KIB)
    await one.start()
    for number in range(500):
        one.intent(intent(f"r{number}"))

    await one.flush()
    kept = len(one._journal.segments)
    for number in range(490):
        one.settled(settled(f"r{number}"))
    await one.flush()

    assert kept >= 500 * len(encode(Intent(intent()))) // (10 * KIB)
    assert len(one._journal.segments) <= 2
    assert sum(batch for batch in stores.batches) <= 500 + 490 + 100


async def test_what_the_disk_does_not_take_waits_in_memory(make, stores, monkeypatch):
    """Without a disk and without a database nothing is lost as long as the process lives."""
    stores.failures = 10**6
    one = make(max_bytes=20 * KIB, segment_bytes=10 * KIB)
    await one.start()
    for number in range(100):
        one.record(audit_row(number))
    held = one.is_full
    with pytest.raises(AuditUnavailable):
        one.intent(intent())

    stores.failures = 0
    await one.stop()

    assert held
    assert len(stores.rows) == 100


async def test_memory_is_bounded_too_and_what_is_lost_is_counted(make, stores, monkeypatch):
    monkeypatch.setattr(backlog, "MAX_HELD", 10)
    stores.failures = 10**6
    one = make(max_bytes=20 * KIB, segment_bytes=10 * KIB)
    await one.start()

    for number in range(100):
        one.record(audit_row(number))
    stores.failures = 0
    await one.stop()

    assert one.dropped > 0
    assert len(stores.rows) == 100 - one.dropped


async def test_refused_requests_leave_room_for_what_was_let_in(make, stores):
    """A flood of wrong keys while the database is away must not cost a settlement."""
    stores.failures = 10**6
    one = make(max_bytes=100 * KIB, segment_bytes=10 * KIB)
    await one.start()
    one.intent(intent())

    for number in range(1000):
        one.record(audit_row(number, request_id=f"flood{number}", outcome=Outcome.REFUSED.value))
    one.settled(settled())

    assert one._backlog._held
    assert End(settled()) in on_disk(one.root)
    stores.failures = 0
    await one.stop()
    assert len(stores.rows) == 1000


async def test_a_root_that_can_not_be_made_is_told(make, tmp_path):
    """A sentence for the operator."""
    (tmp_path / "spool").write_text("in the way")

    with pytest.raises(SpoolUnusable, match=r"The spool at .*/spool can't be used: File exists\."):
        await make().start()


# ── the dead ─────────────────────────────────────────────────────────────────────────────


async def test_an_intent_without_an_end_is_charged_in_full(make, stores):
    """Its process died: nobody knows what the backend did. Its request is audited as cut."""
    first = make()
    await first.start()
    first.intent(intent(), audit_row(1, status=499))
    die(first)

    await make().start()

    assert stores.entries == {"r1": RECOVERED}
    assert stores.rows == {"r1": audit_row(1, status=499, outcome="cut")}


async def test_what_was_settled_stays_settled(make, stores):
    """Only the row that was not recorded any more comes from the intent."""
    first = make()
    await first.start()
    first.intent(intent("r1"), audit_row(1))
    first.settled(settled("r1"))
    first.intent(intent("r2"), audit_row(2))
    first.settled(settled("r2"))
    first.record(audit_row(2, status=200))
    die(first)

    await make().start()

    assert stores.entries == {"r1": settled("r1"), "r2": settled("r2")}
    assert stores.rows == {"r1": audit_row(1, outcome="cut"), "r2": audit_row(2, status=200)}


async def test_an_intent_outlives_the_file_it_was_written_to(make, stores, tmp_path):
    """A stream may take an hour; the files of its time are long deleted, and it is still remembered."""
    first = make(max_bytes=400 * KIB, segment_bytes=10 * KIB)
    await first.start()
    first.intent(intent("long"), audit_row(1, request_id="long"))
    for number in range(300):
        first.record(audit_row(number))
        if number % 20 == 0:
            await first.flush()
    segments = len(first._journal.segments)
    die(first)

    await make().start()

    assert segments <= 2
    assert stores.entries["long"].evidence is Evidence.RECOVERED
    assert stores.rows["long"].outcome == "cut"
    assert len(stores.rows) == 301


async def test_the_living_adopt_from_the_dead(make, stores, monkeypatch):
    """Another gateway on the same disk need not be restarted for it."""
    monkeypatch.setattr(adoption, "ADOPT_S", 0.0)
    living, dying = make(), make()
    await living.start()
    await dying.start()
    dying.intent(intent())
    await dying.flush()
    die(dying)

    await stores.until(lambda: stores.entries == {"r1": RECOVERED})

    await living.stop()
    async with asyncio.timeout(10):
        await make().start()  # the stop may have come before the folder was deleted
    assert len(list(living.root.iterdir())) == 1


async def test_the_ends_of_the_dead_are_told_for_them(make):
    """Those that they wrote down, and those that are written down for them; by whoever adopts them."""
    first = make()
    await first.start()
    first.intent(intent("r1"))
    first.intent(intent("r2"))
    first.settled(settled("r2"))
    die(first)

    second = make()
    await second.start()

    assert list(second.ends_of_the_dead) == [settled("r2"), RECOVERED]
    await second.stop()


async def test_what_the_dead_left_keeps_nobody_from_draining(make, stores, monkeypatch):
    """It may take a minute, in which one's own records must not fill the disk."""
    monkeypatch.setattr(adoption, "ADOPT_S", 0.0)
    replaying, go_on = asyncio.Event(), asyncio.Event()
    replay = leftovers.replay

    async def slow_replay(*given):
        replaying.set()
        await go_on.wait()
        return await replay(*given)

    monkeypatch.setattr(adoption, "replay", slow_replay)
    living, dying = make(), make()
    await living.start()
    await dying.start()
    dying.intent(intent())
    die(dying)
    await replaying.wait()
    living.record(audit_row(2))
    await stores.until(lambda: "r2" in stores.rows)
    before = dict(stores.entries)
    go_on.set()
    await stores.until(lambda: stores.entries == {"r1": RECOVERED})

    assert before in ({}, {"r1": intent()})
    await living.stop()


async def test_replaying_twice_changes_nothing(make, stores, monkeypatch):
    """E22: a replay that is cut short before it deletes the files begins again."""
    first = make()
    await first.start()
    first.intent(intent("r1"), audit_row(1))
    first.settled(settled("r1"))
    first.record(audit_row(1))
    first.intent(intent("r2"), audit_row(2))
    die(first)
    kept = {path: path.read_bytes() for path in first.root.rglob("*.journal")}

    second = make()
    await second.start()
    before = dict(stores.entries), dict(stores.rows)
    await second.stop()
    for path, data in kept.items():
        path.parent.mkdir()
        path.write_bytes(data)
    third = make()
    await third.start()

    assert before == (stores.entries, stores.rows)
    assert stores.entries == {"r1": settled("r1"), "r2": evolve(RECOVERED, reservation_id="r2")}


async def test_a_damaged_leftover_costs_what_is_damaged(make, stores):
    """Never a crash: the loss is counted and logged, the rest is drained."""
    first = make()
    await first.start()
    for number in range(3):
        first.record(audit_row(number))
    die(first)
    (file,) = first.root.rglob("*.journal")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    file.write_bytes(data[:-1])

    second = make()
    await second.start()

    assert list(stores.rows) == ["r0"]
    assert second.drainer.lost_bytes == pytest.approx(len(data) * 2 / 3, abs=2)


async def test_poison_goes_to_quarantine_and_does_not_come_again(make, stores):
    stores.poison = {"r1"}
    one = make()
    await one.start()
    for number in range(3):
        one.settled(settled(f"r{number}"))

    await one.stop()

    assert sorted(stores.entries) == ["r0", "r2"]
    assert len(stores.quarantine) == one.drainer.set_aside == 1
    assert list(one.root.iterdir()) == []
