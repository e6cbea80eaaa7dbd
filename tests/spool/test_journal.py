"""The journal: bounded, rotated, and with a tenth kept for what must still be written."""

import asyncio
import errno
import os
import tracemalloc

import pytest
from attrs import define

from gateway.spool import frames, journal
from gateway.spool.backlog import Backlog
from gateway.spool.journal import Journal, JournalFull, Room, Segment
from gateway.spool.open_intents import AT_ONCE, OpenIntents
from tests.storage.samples import audit_row, intent

KIB = 1024
PAYLOAD = b"x" * 1000
FRAMED = len(frames.frame(PAYLOAD))


@define
class SetClock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return SetClock()


@pytest.fixture
def opened(tmp_path, clock):
    one = Journal(tmp_path, max_bytes=200 * KIB, segment_bytes=20 * KIB, elapsed=clock)
    one.open()
    yield one
    one.close()


def fill(one: Journal, room: Room) -> int:
    """Append until there is no room; how many records it took."""
    count = 0
    while True:
        try:
            one.append(PAYLOAD, room)
        except JournalFull:
            return count
        count += 1


def delete(one: Journal, segment: Segment) -> None:
    one.drop(segment)
    segment.delete()
    one.freed(segment)


def payloads_in(one: Journal) -> list[bytes]:
    return [
        payload
        for segment in one.segments
        for payload in frames.read(segment.path.read_bytes()[: segment.written], 10_000).payloads
    ]


def test_records_are_in_the_file_when_append_returns(opened):
    """The page cache has them: a kill -9 in the next moment loses nothing."""
    opened.append(b"one", Room.INTENT)
    opened.append(b"two", Room.END)

    assert payloads_in(opened) == [b"one", b"two"]


def test_a_file_that_is_full_is_followed_by_the_next(opened):
    """So that what is committed can be deleted piece by piece."""
    numbers = [opened.append(PAYLOAD, Room.INTENT).number for _ in range(41)]

    per_file = 20 * KIB // FRAMED
    assert numbers == [1 + count // per_file for count in range(41)]
    assert len(payloads_in(opened)) == 41


def test_dropping_a_file_makes_room(opened):
    taken = fill(opened, Room.INTENT)
    is_full = opened.is_full

    delete(opened, opened.segments[0])

    assert is_full
    assert not opened.is_full
    assert fill(opened, Room.INTENT) == 20 * KIB // FRAMED
    assert taken == pytest.approx(180 * KIB / FRAMED, abs=3)


def test_a_tenth_is_kept_for_ends_and_half_of_it_for_what_was_let_in(opened, tmp_path):
    """A flood of refusals must not take the settlements' room."""
    fill(opened, Room.INTENT)

    refusals, ends = fill(opened, Room.REFUSAL), fill(opened, Room.END)

    assert refusals == pytest.approx(10 * KIB / FRAMED, abs=3)
    assert ends == pytest.approx(10 * KIB / FRAMED, abs=1)
    assert opened.used_bytes <= 200 * KIB
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 200 * KIB


def test_no_intent_is_taken_while_nothing_is_kept_for_its_end(opened):
    """The kept tenth was used: first it must be there again."""
    fill(opened, Room.INTENT)
    fill(opened, Room.REFUSAL)
    for segment in opened.segments[:-1]:
        delete(opened, segment)
    used = opened.is_full

    active = opened.segments[-1]
    active.drained = active.written
    opened.leave_drained_reserve()
    delete(opened, active)
    opened.tend()

    assert used
    assert not opened.is_full
    assert opened.append(PAYLOAD, Room.INTENT) is opened.segments[-1]


def test_leftovers_of_dead_processes_count(opened):
    """They are on the same disk; but ends always have what is kept for them."""
    opened.others_bytes = 180 * KIB

    assert opened.is_full
    with pytest.raises(JournalFull):
        opened.append(PAYLOAD, Room.INTENT)
    opened.append(PAYLOAD, Room.END)


class FullDisk:
    """Ordinary files take a part of each record; what was allocated beforehand takes all."""

    def __init__(self, error: int = errno.ENOSPC, part: int = 0) -> None:
        self.error, self.part = error, part
        self.write = os.pwrite

    def __call__(self, descriptor: int, data: bytes, offset: int) -> int:
        if os.fstat(descriptor).st_size > offset:
            return self.write(descriptor, data, offset)
        if self.part:
            return self.write(descriptor, data[: self.part], offset)
        raise OSError(self.error, "the disk says no")


@pytest.mark.parametrize(
    "disk", [FullDisk(), FullDisk(part=5), FullDisk(errno.EROFS), FullDisk(errno.EIO)],
    ids=["full", "full in the middle", "read-only", "broken"],
)  # fmt: skip
def test_a_disk_that_refuses_stops_intents_and_takes_ends(opened, clock, disk, monkeypatch):
    """What somebody else has filled has the kept tenth all the same; a moment later it is tried again."""
    opened.append(b"before", Room.INTENT)
    monkeypatch.setattr(os, "pwrite", disk)
    with pytest.raises(JournalFull):
        opened.append(b"refused", Room.INTENT)
    opened.append(b"end", Room.END)
    opened.append(b"another end", Room.END)
    refusing = opened.is_full
    monkeypatch.undo()

    assert refusing
    assert payloads_in(opened) == [b"before", b"end", b"another end"]
    clock.now += journal.REFUSED_S
    opened.tend()
    assert not opened.is_full
    opened.append(b"after", Room.INTENT)
    assert payloads_in(opened)[-1] == b"after"


def test_what_even_the_kept_room_does_not_take_is_told(opened):
    fill(opened, Room.INTENT)
    fill(opened, Room.END)

    with pytest.raises(JournalFull):
        opened.append(PAYLOAD, Room.END)


def test_what_waits_for_the_disk_waits_as_one(opened, clock):
    """One wait for all that was written meanwhile, and for the folder when there is a new file."""
    for _ in range(30):
        opened.append(PAYLOAD, Room.INTENT)
        clock.now += 0.001
    unsynced = opened.unsynced()

    assert unsynced is not None
    assert unsynced.since == 100.0
    delete(opened, opened.segments[0])  # meanwhile
    unsynced.flush()
    assert opened.unsynced() is None


def test_open_files_are_closed(tmp_path):
    before = os.listdir("/proc/self/fd")

    one = Journal(tmp_path, max_bytes=200 * KIB, segment_bytes=20 * KIB)
    one.open()
    fill(one, Room.END)
    unsynced = one.unsynced()
    assert unsynced is not None
    unsynced.flush()
    one.close()

    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_an_intent_takes_no_more_memory_than_it_has_bytes(tmp_path):
    """Thousands may run, or wait while the database is away. orjson's own bytes hold 16 KiB each."""
    one = Journal(tmp_path, max_bytes=10 * KIB * KIB)
    one.open()
    intents = OpenIntents(Backlog(one))
    entries = [intent(f"r{number}") for number in range(100)]
    row = audit_row(1)
    tracemalloc.start()
    try:
        for entry in entries:
            intents.begin(entry, row)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert taken < 2 * one.segments[-1].written
    one.close()


async def test_intents_stand_elsewhere_before_their_segment_goes_unless_they_end_meanwhile(opened):
    """Some in each turn of the event loop."""
    intents = OpenIntents(Backlog(opened))
    for number in range(2 * AT_ONCE):
        intents.begin(intent(f"r{number}"), None)
    first, size = opened.segments[0], opened.used_bytes
    opened._begin_segment()

    carrying = asyncio.create_task(intents.carry_over(first))
    await asyncio.sleep(0)
    at_once = opened.segments[-1].written
    for number in range(AT_ONCE, 2 * AT_ONCE):
        intents.settled(f"r{number}")
    await carrying

    assert 0 < at_once < size
    assert first.live == 0
    assert opened.segments[-1].written == at_once
    assert opened.segments[-1].live == sum(map(len, payloads_in(opened)[-AT_ONCE:]))
