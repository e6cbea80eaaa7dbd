"""The spool: what a request leaves behind is on the local disk at once, and soon in the database.

`intent`, `settled` and `record` write synchronously, a few microseconds into the page cache. Two tasks do the
rest off the request path: one waits for the disk, one drains into the database in batches. A segment goes
when all of it is committed; intents in it that still run are written again before, so that the disk always
tells of every request that runs. At the next start, or in another gateway on the same disk, the leftovers
of a dead process are drained, and its open intents are charged in full.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final

from attrs import define
from loguru import logger

from gateway.accounting import LedgerEntry
from gateway.errors import AuditUnavailable, StoreUnavailable
from gateway.model import AuditRow, Outcome
from gateway.ports import AuditStore, LedgerStore, Quarantine
from gateway.spool import folders
from gateway.spool.backlog import Backlog
from gateway.spool.drainer import BATCH_RECORDS, Drainer, Item
from gateway.spool.folders import Folder
from gateway.spool.journal import MAX_BYTES, SEGMENT_BYTES, Journal, JournalFull, Room, Segment
from gateway.spool.leftovers import InThread, replay
from gateway.spool.records import Audited, End, Intent, Record, encode

BATCH_WAIT_S: Final = 0.25
RETRY_S: Final = 1.0
MAX_RETRY_S: Final = 5.0
# A power cut loses no more than this and one wait for the disk.
SYNC_S: Final = 0.025
TEND_S: Final = 1.0
ADOPT_S: Final = 10.0
# A segment of which more still runs stays: writing it again would cost more than it frees.
MAX_CARRIED: Final = 0.25
# What the disk does not take at all waits here, about 1 KB each. Beyond it something is lost, and counted.
MAX_HELD: Final = 50_000


class SpoolUnusable(Exception):
    """The spool's folder can't be made or locked: a sentence for the operator."""


@define
class _Running:
    """An intent that is not told to its end: settled and, if its row came with it, audited."""

    record: Intent
    payload: bytes
    segment: Segment
    is_settled: bool
    is_audited: bool

    def stand_in(self, segment: Segment) -> None:
        self.segment.live -= len(self.payload)
        self.segment = segment
        self.segment.live += len(self.payload)


class Spool:
    """The adapter behind `ports.Spool`, and the sink that feeds the audit log.

    `start` and `stop` inside the event loop; nothing else before `start`. `lag_s` is the longest time that
    a record has waited until the disk had it.
    """

    def __init__(
        self,
        root: Path,
        ledger: LedgerStore,
        audit: AuditStore,
        quarantine: Quarantine,
        *,
        max_bytes: int = MAX_BYTES,
        segment_bytes: int = SEGMENT_BYTES,
        elapsed: Callable[[], float] = time.monotonic,
    ) -> None:
        self.root = root
        self.drainer = Drainer(ledger, audit, quarantine)
        self.lag_s = 0.0
        self.dropped = 0
        """Records that neither the disk nor the memory could take."""
        self._journal = Journal(root, max_bytes, segment_bytes, elapsed)
        self._backlog = Backlog(self._journal)
        self._elapsed = elapsed
        self._running: dict[str, _Running] = {}
        self._held: deque[Item] = deque()
        self._adopted: list[Folder] = []
        self._adopted_at = elapsed()
        self._was_full = False
        self._new = asyncio.Event()
        self._unsynced = asyncio.Event()
        self._draining = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []

    # ── on the request path ──────────────────────────────────────────────────────────────

    @property
    def is_full(self) -> bool:
        """True when no intent is taken: the space is used up, or the disk refuses."""
        return self._journal.is_full or bool(self._held)

    @property
    def waiting_bytes(self) -> int:
        """What the database does not have yet."""
        return self._backlog.waiting_bytes

    def intent(self, entry: LedgerEntry, row: AuditRow | None = None) -> None:
        """Note a reservation, before anything is sent for it. Raises AuditUnavailable: then send nothing.

        `row` is the audit row as far as it is known: it is kept, as cut, if this process dies before
        it records a better one. Its request_id is the reservation's id.
        """
        record = Intent(entry, row)
        payload = encode(record)
        try:
            if self._held:
                raise JournalFull
            segment = self._backlog.append(record, payload, Room.INTENT)
        except JournalFull:
            self._tell_fullness()
            raise AuditUnavailable from None
        segment.live += len(payload)
        self._running[entry.reservation_id] = _Running(
            record, payload, segment, is_settled=False, is_audited=row is None
        )
        self._note_news()

    def settled(self, entry: LedgerEntry) -> None:
        """Note what became of an intent. Never raises: there is space kept for it."""
        self._keep(End(entry), Room.END)
        running = self._running.get(entry.reservation_id)
        if running is not None:
            running.is_settled = True
            self._forget_ended(entry.reservation_id, running)

    def record(self, row: AuditRow) -> None:
        """Keep the audit row of a finished request. Never raises; what was let in has space kept for it."""
        was_refused = row.outcome == Outcome.REFUSED.value
        self._keep(Audited(row), Room.REFUSAL if was_refused else Room.END)
        running = self._running.get(row.request_id)
        if running is not None:
            running.is_audited = True
            self._forget_ended(row.request_id, running)

    def _forget_ended(self, reservation_id: str, running: _Running) -> None:
        if running.is_settled and running.is_audited:
            running.segment.live -= len(running.payload)
            del self._running[reservation_id]

    def _keep(self, record: Record, room: Room) -> None:
        payload = encode(record)
        try:
            self._backlog.append(record, payload, room)
        except JournalFull:
            self._hold(Item(payload, record))
        self._note_news()

    def _hold(self, item: Item) -> None:
        self._tell_fullness()
        if len(self._held) < MAX_HELD:
            self._held.append(item)
            return
        if not self.dropped:
            logger.error("records are lost: the spool is full, and so is the memory that is left for them")
        self.dropped += 1

    def _note_news(self) -> None:
        self._new.set()
        self._unsynced.set()

    def _tell_fullness(self) -> None:
        if self.is_full != self._was_full:
            self._was_full = not self._was_full
            if self._was_full:
                logger.error(f"the spool at {self.root} is full or not writable: no new work is taken")
            else:
                logger.info("the spool takes new work again")

    # ── opening and closing ──────────────────────────────────────────────────────────────

    async def start(self) -> None:
        """Make a folder, drain the leftovers of dead processes, and begin. Raises SpoolUnusable.

        While the database does not answer, the leftovers wait.
        """
        self._executor = ThreadPoolExecutor(2, thread_name_prefix="spool")
        self._in_thread: InThread = partial(asyncio.get_running_loop().run_in_executor, self._executor)
        self._make_folder()
        try:
            await self._adopt()
        except StoreUnavailable:
            self._warn()
        self._tasks = [
            asyncio.create_task(self._drain_for_ever()),
            asyncio.create_task(self._sync_for_ever()),
        ]

    def _make_folder(self) -> None:
        try:
            self._folder = folders.make(self.root)
            self._journal.folder = self._folder.path
            self._journal.open()
        except OSError as error:
            raise SpoolUnusable(f"The spool at {self.root} can't be used: {error.strerror}.") from error
        self._tell_fullness()

    async def stop(self) -> None:
        """Drain the rest. Raises StoreUnavailable when the database does not take it: the disk keeps it."""
        if not self._tasks:
            return
        tasks, self._tasks = self._tasks, []
        for task in tasks:  # what one of them had begun is done again
            task.cancel()
        await asyncio.wait(tasks)
        try:
            await self._sync()
            await self.flush()
        finally:
            self._close()

    async def flush(self) -> None:
        """Drain what was noted before now. Raises StoreUnavailable."""
        async with self._draining:
            while await self._drain_some():
                pass

    def _close(self) -> None:
        self._executor.shutdown()
        is_done = not self._running and not self._held and not self.waiting_bytes
        self._journal.close()
        if is_done:
            self._folder.remove()
        else:
            self._folder.release()
        while self._adopted:
            self._adopted.pop().release()

    # ── towards the disk ─────────────────────────────────────────────────────────────────

    async def _sync_for_ever(self) -> None:
        while True:
            await self._unsynced.wait()
            await asyncio.sleep(SYNC_S)  # what is written meanwhile shares the wait for the disk
            self._unsynced.clear()
            await self._sync()

    async def _sync(self) -> None:
        try:
            unsynced = self._journal.unsynced()
            if unsynced is not None:
                await self._in_thread(unsynced.flush)
                self.lag_s = max(self.lag_s, self._elapsed() - unsynced.since)
        except OSError as error:
            self._journal.refuse()
            logger.error(f"the disk under the spool fails: {error.strerror}")

    # ── towards the database ─────────────────────────────────────────────────────────────

    async def _drain_for_ever(self) -> None:
        retry_s = RETRY_S
        while True:
            await self._news()
            try:
                await self._drain_and_tend()
                retry_s = RETRY_S
                await asyncio.sleep(BATCH_WAIT_S)
            except StoreUnavailable:
                self._warn()
                await asyncio.sleep(retry_s)
                retry_s = min(2 * retry_s, MAX_RETRY_S)
            except Exception:  # noqa: BLE001 - a defect or a bad disk must not end draining for good
                logger.exception("draining the spool failed; it is tried again")
                await asyncio.sleep(retry_s)

    async def _news(self) -> None:
        """Return when there is something to drain, after TEND_S at the latest."""
        if not self.waiting_bytes and not self._held:
            self._new.clear()
        try:
            async with asyncio.timeout(TEND_S):
                await self._new.wait()
        except TimeoutError:
            pass

    async def _drain_and_tend(self) -> None:
        if self._elapsed() - self._adopted_at >= ADOPT_S:
            await self._adopt()
        await self.flush()
        self._tell_fullness()

    async def _drain_some(self) -> bool:
        """One batch; False when there is nothing left. Raises StoreUnavailable."""
        self._let_go_of_drained()
        piece = await self._backlog.next(self._in_thread)
        if piece is not None:
            await self.drainer.drain(piece.batch, piece.segment.path.name)
            self._backlog.committed(piece)
            return True
        if self._held:
            held = list(islice(self._held, BATCH_RECORDS))
            await self.drainer.store(held)
            for _ in held:
                self._held.popleft()
            return True
        return False

    def _let_go_of_drained(self) -> None:
        """Delete what is committed, once the intents in it that still run stand somewhere else."""
        try:
            self._journal.leave_drained_reserve()
            for segment in self._journal.segments[:-1]:
                if segment.drained == segment.written and segment.live <= segment.written * MAX_CARRIED:
                    self._carry_over(segment)
                    self._journal.drop(segment)
        except (JournalFull, OSError):
            pass  # no room for the intents at the moment: the segment waits
        self._journal.tend()

    def _carry_over(self, segment: Segment) -> None:
        for running in self._running.values():
            if running.segment is segment:
                running.stand_in(self._backlog.append(running.record, running.payload, Room.END))

    async def _adopt(self) -> None:
        """Drain what dead processes left behind. Raises StoreUnavailable: then they stay adopted."""
        self._adopted_at = self._elapsed()
        await self._in_thread(self._hold_leftovers)
        self._journal.others_bytes = await self._in_thread(_bytes_of, list(self._adopted))
        while self._adopted:
            await self._replay(self._adopted[0])
            self._adopted.pop(0)
        self._journal.others_bytes = 0

    def _hold_leftovers(self) -> None:
        for folder in folders.leftovers(self.root):
            self._adopted.append(folder)  # one by one, in the thread: a cancellation forgets none

    async def _replay(self, folder: Folder) -> None:
        try:
            replayed = await replay(folder, self.drainer, self._in_thread)
        except OSError as error:
            logger.error(f"the leftovers in {folder.path} can't be read: {error.strerror}")
            folder.release()
            return
        if replayed.records:
            logger.bind(rows=replayed.records).info(
                f"drained what a dead process left behind; {replayed.recovered} requests had no end"
            )

    def _warn(self) -> None:
        logger.warning(
            f"ledger entries and audit rows wait for the database: {self.waiting_bytes} bytes are spooled"
        )


def _bytes_of(leftovers: list[Folder]) -> int:
    return sum(path.stat().st_size for folder in leftovers for path in folder.segments())
