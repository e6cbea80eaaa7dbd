"""The way of the backlog into the database, and off the disk once it is there."""

import asyncio
from collections.abc import Callable
from typing import Final

from attrs import define, field
from loguru import logger

from gateway.errors import StoreUnavailable
from gateway.spool.backlog import Backlog, End
from gateway.spool.drainer import Drainer
from gateway.spool.journal import Journal, JournalFull, Segment
from gateway.spool.leftovers import InThread
from gateway.spool.open_intents import OpenIntents

BATCH_WAIT_S: Final = 0.25
RETRY_S: Final = 1.0
MAX_RETRY_S: Final = 5.0
TEND_S: Final = 1.0
# A segment of which more still runs stays: writing it again would cost more than it frees.
MAX_CARRIED: Final = 0.25


@define(eq=False)
class Draining:
    """A segment goes when all of it is committed; intents in it that still run are written again before."""

    _journal: Journal
    _backlog: Backlog
    _open: OpenIntents
    _drainer: Drainer
    _in_thread: InThread
    _elapsed: Callable[[], float]
    is_cut_off: bool = False
    """The database did not take the last batch."""
    drained_at: float = 0.0
    """All that was noted before then, by `_elapsed`, is in the database."""
    has_news: bool = False
    """Something was noted since there was nothing to drain: it need not be told again."""
    _new: asyncio.Event = field(factory=asyncio.Event)
    _draining: asyncio.Lock = field(factory=asyncio.Lock)

    def note_news(self) -> None:
        self.has_news = True
        self._new.set()

    async def flush(self) -> None:
        """Drain what was noted before now. Raises StoreUnavailable."""
        async with self._draining:
            # What is noted meanwhile may be as much as is drained: then this would never be over.
            began, end = self._elapsed(), self._backlog.end
            while await self._drain_some(end):
                pass
            self.drained_at = began

    async def for_ever(self) -> None:
        """The task of it."""
        retry_s = RETRY_S
        while True:
            await self._news()
            try:
                await self.flush()
                self._backlog.tell_fullness()
                retry_s = RETRY_S
                await asyncio.sleep(BATCH_WAIT_S)
            except StoreUnavailable:
                self.is_cut_off = True
                waiting = self._backlog.waiting_bytes
                logger.warning(f"ledger entries and audit rows, {waiting} bytes, wait for the database")
                await asyncio.sleep(retry_s)
                retry_s = min(2 * retry_s, MAX_RETRY_S)
            except Exception:  # noqa: BLE001 - a defect or a bad disk must not end draining for good
                logger.exception("draining the spool failed; it is tried again")
                await asyncio.sleep(retry_s)

    async def _news(self) -> None:
        """Return when there is something to drain, after TEND_S at the latest."""
        if self._backlog.is_empty:
            self.has_news = False
            self._new.clear()
        try:
            async with asyncio.timeout(TEND_S):
                await self._new.wait()
        except TimeoutError:
            pass

    async def _drain_some(self, end: End) -> bool:
        """One batch; False when nothing is left before `end`. Raises StoreUnavailable."""
        await self._let_go_of_drained()
        piece = await self._backlog.next(self._in_thread, end)
        if piece is None:
            return False
        await self._drainer.drain(piece.batch, piece.source)
        self._backlog.committed(piece)
        self.is_cut_off = False
        return True

    async def _let_go_of_drained(self) -> None:
        """Delete what is committed, once the intents in it that still run stand somewhere else."""
        try:
            self._journal.leave_drained_reserve()
            for segment in self._journal.segments[:-1]:
                if segment.drained == segment.written and segment.live <= segment.written * MAX_CARRIED:
                    await self._open.carry_over(segment)
                    await self._delete(segment)
        except (JournalFull, OSError):
            pass  # no room for the intents at the moment: the segment waits
        self._journal.tend()

    async def _delete(self, segment: Segment) -> None:
        self._journal.drop(segment)
        try:
            await self._in_thread(segment.delete)
        finally:
            # Also where nobody waits for it any more.
            self._journal.freed(segment)
