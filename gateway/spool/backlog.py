"""What the database does not have yet: all of it on the disk, and its beginning in memory too.

In memory it need not be read and parsed again, which costs more than writing it did. When the database is
away for long, memory holds the beginning only; the rest is read from the disk when its turn comes. What the
disk does not take at all waits in memory alone.
"""

from collections import deque
from itertools import islice
from typing import Final

from attrs import define, field, frozen
from loguru import logger

from gateway.spool.drainer import BATCH_RECORDS, Batch, Item, read_batch
from gateway.spool.journal import Journal, JournalFull, Room, Segment
from gateway.spool.leftovers import InThread
from gateway.spool.records import Record, encode

# About 2 KB each.
MAX_FRESH: Final = 5000
# About 1 KB each. Beyond it something is lost, and counted.
MAX_HELD: Final = 50_000


# A record in memory: where it ends on the disk, and itself. A tuple, for there are three a request.
_Fresh = tuple[Segment, int, Item]


@frozen
class Piece:
    """The next records of one segment; None: of those that are in memory alone."""

    segment: Segment | None
    batch: Batch
    _queue: deque[_Fresh] | deque[Item] | None = None
    """Where they are in memory too."""

    @property
    def source(self) -> str:
        return self.segment.path.name if self.segment else "memory"


@frozen
class End:
    """Where the files ended at some moment."""

    _segment: Segment
    _written: int

    @property
    def is_drained(self) -> bool:
        return self._segment.drained >= self._written


@define
class Backlog:
    """The journal as a queue. The law: what is in memory is whole and the oldest of all that waits."""

    _journal: Journal
    dropped: int = 0
    """Records that neither the disk nor the memory could take."""
    _fresh: deque[_Fresh] = field(factory=deque)
    _is_behind: bool = False
    """Newer records are on the disk only: until they are read, none is kept in memory."""
    _from_disk: Piece | None = None
    """What was read and is not `committed` yet: older than all that is in memory."""
    _held: deque[Item] = field(factory=deque)
    """What the disk did not take."""
    _was_full: bool = False
    _written: int = 0
    """Records on the disk that were not stored yet. Those of damaged places are in it until it is empty."""

    @property
    def is_full(self) -> bool:
        """True when no intent is taken: the space is used up, or the disk refuses."""
        return self._journal.is_full or bool(self._held)

    @property
    def is_empty(self) -> bool:
        return not self._held and not self.waiting_bytes

    @property
    def end(self) -> End:
        """As of now."""
        newest = self._journal.segments[-1]
        return End(newest, newest.written)

    @property
    def waiting_bytes(self) -> int:
        """How much of the files waits."""
        return sum(segment.written - segment.drained for segment in self._journal.segments)

    @property
    def waiting_records(self) -> int:
        return len(self._held) + (self._written if self.waiting_bytes else 0)

    def append(self, record: Record, payload: bytes, room: Room) -> Segment:
        """Write one record, and return where. Raises JournalFull."""
        try:
            if self._held and room is Room.INTENT:
                raise JournalFull
            segment = self._journal.append(payload, room)
        except JournalFull:
            self.tell_fullness()
            raise
        self._written += 1
        self._is_behind = self._is_behind or len(self._fresh) >= MAX_FRESH
        if not self._is_behind:
            self._fresh.append((segment, segment.written, Item(record)))
        return segment

    def keep(self, record: Record, room: Room) -> None:
        """Write one record, or hold it in memory. Never raises."""
        try:
            self.append(record, encode(record), room)
        except JournalFull:
            self._hold(Item(record))

    async def next(self, in_thread: InThread, end: End) -> Piece | None:
        """What is to be stored next; the same again until it is `committed`. Raises OSError.

        Of the files up to `end` and a little beyond, then what the disk did not take.
        """
        if self._from_disk:
            return self._from_disk
        if not end.is_drained:
            if self._fresh:
                return self._from_memory()
            for segment in self._journal.segments:
                if segment.drained < segment.written:
                    return await self._read(segment, in_thread)
        if self._held:
            held = list(islice(self._held, BATCH_RECORDS))
            return Piece(None, Batch(held, 0, 0, 0), self._held)
        return None

    def committed(self, piece: Piece) -> None:
        self._from_disk = None
        if piece.segment is not None:
            piece.segment.drained += piece.batch.used_bytes
            self._written = max(0, self._written - len(piece.batch.items)) if self.waiting_bytes else 0
        if piece._queue is not None:
            for _ in piece.batch.items:
                piece._queue.popleft()

    def tell_fullness(self) -> None:
        """Log when no new work is taken any more, and when it is again."""
        if self.is_full == self._was_full:
            return
        self._was_full = not self._was_full
        if self._was_full:
            root = self._journal.folder.parent
            logger.error(f"the spool at {root} is full or not writable: no new work is taken")
        else:
            logger.info("the spool takes new work again")

    def _from_memory(self) -> Piece:
        segment = self._fresh[0][0]
        found = [one for one in islice(self._fresh, BATCH_RECORDS) if one[0] is segment]
        end = found[-1][1]
        return Piece(segment, Batch([item for _, _, item in found], end - segment.drained, 0, 0), self._fresh)

    async def _read(self, segment: Segment, in_thread: InThread) -> Piece:
        batch = await in_thread(read_batch, segment.descriptor, segment.drained, segment.written)
        self._from_disk = Piece(segment, batch)
        # When that was all there is, what comes next is kept in memory again.
        is_newest = segment is self._journal.segments[-1]
        self._is_behind = not is_newest or segment.drained + batch.used_bytes < segment.written
        return self._from_disk

    def _hold(self, item: Item) -> None:
        if len(self._held) < MAX_HELD:
            self._held.append(item)
            self.tell_fullness()
            return
        if not self.dropped:
            logger.error("records are lost: the spool is full, and so is the memory that is left for them")
        self.dropped += 1
