"""What the database does not have yet: all of it on the disk, and its beginning in memory too.

In memory it need not be read and parsed again, which costs more than writing it did. When the database is
away for long, memory holds the beginning only; the rest is read from the disk when its turn comes.
"""

from collections import deque
from itertools import islice
from typing import Final

from attrs import define, field, frozen

from gateway.spool.drainer import BATCH_RECORDS, Batch, Item, read_batch
from gateway.spool.journal import Journal, Room, Segment
from gateway.spool.leftovers import InThread
from gateway.spool.records import Record

# About 3 KB each.
MAX_FRESH: Final = 5000


@frozen
class _Fresh:
    """A record in memory: where it ends on the disk, and itself."""

    segment: Segment
    end: int
    item: Item


@frozen
class Piece:
    """The next records of one segment."""

    segment: Segment
    batch: Batch
    _fresh: int


@define
class Backlog:
    """The journal as a queue. The law: what is in memory is whole and the oldest of all that waits."""

    _journal: Journal
    _fresh: deque[_Fresh] = field(factory=deque)
    _is_behind: bool = False
    """Newer records are on the disk only: until they are drained, none is kept in memory."""

    @property
    def waiting_bytes(self) -> int:
        return sum(segment.written - segment.drained for segment in self._journal.segments)

    def append(self, record: Record, payload: bytes, room: Room) -> Segment:
        """Write one record, and return where. Raises JournalFull."""
        segment = self._journal.append(payload, room)
        self._is_behind = self._is_behind or len(self._fresh) >= MAX_FRESH
        if not self._is_behind:
            self._fresh.append(_Fresh(segment, segment.written, Item(payload, record)))
        return segment

    async def next(self, in_thread: InThread) -> Piece | None:
        """What is to be stored next; the same again until it is `committed`. Raises OSError."""
        if self._fresh:
            return self._from_memory()
        for segment in self._journal.segments:
            if segment.drained < segment.written:
                batch = await in_thread(read_batch, segment.descriptor, segment.drained, segment.written)
                return Piece(segment, batch, 0)
        self._is_behind = False
        return None

    def committed(self, piece: Piece) -> None:
        piece.segment.drained += piece.batch.used_bytes
        for _ in range(piece._fresh):
            self._fresh.popleft()

    def _from_memory(self) -> Piece:
        segment = self._fresh[0].segment
        found = [one for one in islice(self._fresh, BATCH_RECORDS) if one.segment is segment]
        items = [one.item for one in found]
        return Piece(segment, Batch(items, found[-1].end - segment.drained, 0, 0), len(found))
