"""The spool: what a request leaves behind is on the local disk at once, and soon in the database.

`intent`, `settled` and `record` write synchronously, a few microseconds into the page cache. Three tasks do
the rest off the request path: one waits for the disk, one drains into the database in batches, one looks
after the dead. A segment goes when all of it is committed; intents in it that still run are written again
before, so that the disk always tells of every request that runs. At the next start, or in another gateway on
the same disk, the leftovers of a dead process are drained, and its open intents are charged in full.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from gateway.accounting import LedgerEntry
from gateway.errors import AuditUnavailable
from gateway.model import AuditRow, Outcome
from gateway.ports import AuditStore, LedgerStore, Quarantine
from gateway.spool import folders
from gateway.spool.adoption import Adoption
from gateway.spool.backlog import Backlog
from gateway.spool.disk_sync import DiskSync
from gateway.spool.drainer import Drainer
from gateway.spool.draining import Draining
from gateway.spool.journal import SEGMENT_BYTES, Journal, JournalFull, Room
from gateway.spool.open_intents import OpenIntents
from gateway.spool.records import Audited, End


class SpoolUnusable(Exception):
    """The spool's folder can't be made or locked: a sentence for the operator."""


class Spool:
    """The adapter behind `ports.Spool`, and the sink that feeds the audit log.

    `start` and `stop` inside the event loop; nothing else before `start`.
    """

    def __init__(
        self,
        root: Path,
        ledger: LedgerStore,
        audit: AuditStore,
        quarantine: Quarantine,
        *,
        max_bytes: int,
        segment_bytes: int = SEGMENT_BYTES,
        elapsed: Callable[[], float] = time.monotonic,
    ) -> None:
        self.root = root
        self._elapsed = elapsed
        self.drainer = Drainer(ledger, audit, quarantine)
        self._journal = Journal(root, max_bytes, segment_bytes, elapsed)
        self._backlog = Backlog(self._journal)
        self._open = OpenIntents(self._backlog)
        self._executor = ThreadPoolExecutor(3, thread_name_prefix="spool")
        self._disk = DiskSync(self._journal, self._in_thread, elapsed)
        self._draining = Draining(
            self._journal, self._backlog, self._open, self.drainer, self._in_thread, elapsed
        )
        self._adoption = Adoption(root, self._journal, self.drainer, self._in_thread)
        self._tasks: list[asyncio.Task[None]] = []

    # ── on the request path ──────────────────────────────────────────────────────────────

    @property
    def is_full(self) -> bool:
        """True when no intent is taken: the space is used up, or the disk refuses."""
        return self._backlog.is_full

    @property
    def is_cut_off(self) -> bool:
        """True while the database does not take what is spooled."""
        return self._draining.is_cut_off

    @property
    def waiting_bytes(self) -> int:
        """What the database does not have yet."""
        return self._backlog.waiting_bytes

    @property
    def waiting_records(self) -> int:
        """How many intents, settlements and audit rows that is."""
        return self._backlog.waiting_records

    @property
    def lag_s(self) -> float:
        """The longest time that a record has waited until the disk had it."""
        return self._disk.lag_s

    @property
    def ledger_lag_s(self) -> float:
        """For how long the database has not had all of what was noted; 0 when it has all."""
        return 0.0 if self._backlog.is_empty else max(0.0, self._elapsed() - self._draining.drained_at)

    @property
    def dropped(self) -> int:
        """Records that neither the disk nor the memory could take."""
        return self._backlog.dropped

    @property
    def ends_of_the_dead(self) -> deque[LedgerEntry]:
        """See `Adoption.ends`."""
        return self._adoption.ends

    def intent(self, entry: LedgerEntry, row: AuditRow | None = None) -> None:
        """Note a reservation, before anything is sent for it. Raises AuditUnavailable: then send nothing.

        `row` is the audit row as far as it is known: it is kept, as cut, if this process dies before
        it records a better one. Its request_id is the reservation's id.
        """
        try:
            self._open.begin(entry, row)
        except JournalFull:
            raise AuditUnavailable from None
        self._note_news()

    def settled(self, entry: LedgerEntry) -> None:
        """Note what became of an intent. Never raises: there is space kept for it."""
        self._backlog.keep(End(entry), Room.END)
        self._open.settled(entry.reservation_id)
        self._note_news()

    def record(self, row: AuditRow) -> None:
        """Keep the audit row of a finished request. Never raises; what was let in has space kept for it."""
        was_refused = row.outcome == Outcome.REFUSED
        self._backlog.keep(Audited(row), Room.REFUSAL if was_refused else Room.END)
        self._open.audited(row.request_id)
        self._note_news()

    def _note_news(self) -> None:
        if not self._draining.has_news:
            self._draining.note_news()
        if not self._disk.has_news:
            self._disk.note_news()

    # ── opening and closing ──────────────────────────────────────────────────────────────

    async def start(self) -> None:
        """Make a folder, drain the leftovers of dead processes, and begin. Raises SpoolUnusable.

        However long it takes: before the ledger has all of them, their tenants would be allowed it again.
        """
        self._make_folder()
        try:
            await self._adoption.catch_up()
        except BaseException:
            self._close()
            raise
        self._draining.drained_at = self._elapsed()
        loops = self._draining.for_ever(), self._disk.for_ever(), self._adoption.for_ever()
        self._tasks = [asyncio.create_task(loop) for loop in loops]

    def _make_folder(self) -> None:
        try:
            self._folder = folders.make(self.root)
            self._journal.folder = self._folder.path
            self._journal.open()
        except OSError as error:
            raise SpoolUnusable(f"The spool at {self.root} can't be used: {error.strerror}.") from error
        self._backlog.tell_fullness()

    async def stop(self) -> None:
        """Drain the rest. Raises StoreUnavailable when the database does not take it: the disk keeps it."""
        if not self._tasks:
            return
        tasks, self._tasks = self._tasks, []
        for task in tasks:  # what one of them had begun is done again
            task.cancel()
        await asyncio.wait(tasks)
        try:
            await self._disk.sync()
            await self.flush()
        finally:
            self._close()

    async def flush(self) -> None:
        """Drain what was noted before now. Raises StoreUnavailable."""
        await self._draining.flush()

    def _close(self) -> None:
        self._executor.shutdown()
        is_done = self._open.is_empty and self._backlog.is_empty
        self._journal.close()
        if is_done:
            self._folder.remove()
        else:
            self._folder.release()
        self._adoption.release()

    async def _in_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *arguments)
