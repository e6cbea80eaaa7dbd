"""What a dead process left behind: its records are drained, and what it did not end is ended for it."""

import os
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

from attrs import define, evolve, frozen

from gateway.accounting import Evidence, LedgerEntry, charged_in_full
from gateway.model import Outcome
from gateway.spool.drainer import BATCH_RECORDS, Batch, Drainer, Item, read_batch
from gateway.spool.folders import Folder
from gateway.spool.records import Audited, End, Intent, Record

# Runs a function in a thread.
InThread = Callable[..., Awaitable[Any]]


@define
class _Story:
    """What the process told of one request."""

    intent: Intent
    is_settled: bool = False
    is_audited: bool = False


@frozen
class Replayed:
    """How many records there were, and how many requests had no end; `ends` are those of all others too."""

    records: int
    recovered: int
    ends: tuple[LedgerEntry, ...]


async def replay(folder: Folder, drainer: Drainer, in_thread: InThread) -> Replayed:
    """Drain a dead process's folder, end its open intents, and delete it.

    Such an intent costs its whole reservation, for nobody knows what its backend did; its request is
    audited as cut. Deleted only when all is committed: raises StoreUnavailable or OSError, then it can be
    replayed again, which changes nothing that was written before.
    """
    stories: dict[str, _Story] = {}
    ends: list[LedgerEntry] = []
    records = 0
    for path in await in_thread(folder.segments):
        start = 0
        while (batch := await in_thread(_read_file, path, start)).used_bytes:
            await drainer.drain(batch, path.name)
            _note(stories, batch.items)
            ends += _ends_in(item.record for item in batch.items)
            start += batch.used_bytes
            records += len(batch.items)
    endings = [ending for story in stories.values() for ending in _endings(story)]
    for start in range(0, len(endings), BATCH_RECORDS):
        await drainer.store([Item(one) for one in endings[start : start + BATCH_RECORDS]])
    await in_thread(folder.remove)
    ends += _ends_in(endings)
    return Replayed(records, sum(not story.is_settled for story in stories.values()), tuple(ends))


def _read_file(path: Path, start: int) -> Batch:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return read_batch(descriptor, start, os.fstat(descriptor).st_size)
    finally:
        os.close(descriptor)


def _note(stories: dict[str, _Story], items: Iterable[Item]) -> None:
    for item in items:
        match item.record:
            case Intent(entry, row) as intent:
                # It comes a second time when its segment was dropped while it was open.
                stories.setdefault(entry.reservation_id, _Story(intent, is_audited=row is None))
            case End(entry) if entry.reservation_id in stories:
                stories[entry.reservation_id].is_settled = True
            case Audited(row) if row.request_id in stories:
                stories[row.request_id].is_audited = True


def _ends_in(records: Iterable[object]) -> list[LedgerEntry]:
    return [record.entry for record in records if isinstance(record, End)]


def _endings(story: _Story) -> list[Record]:
    """What is still to be told of a request."""
    entry, row = story.intent.entry, story.intent.row
    endings: list[Record] = []
    if not story.is_settled:
        endings.append(End(charged_in_full(entry, Evidence.RECOVERED)))
    if row is not None and not story.is_audited:
        endings.append(Audited(evolve(row, outcome=Outcome.CUT.value)))
    return endings
