"""How current is what was read of the database? One cheap number, polled, answers for all records at once.

The law: a record is as current as the latest poll that showed the revision it was read under, or as its own
reading. When a poll shows another revision, every record read before may be outdated: its age is infinite.
"""

import asyncio
import math
from typing import Final

from attrs import frozen
from loguru import logger

from gateway.errors import StoreUnavailable
from gateway.ports import Clock, PulsingKeyStore

POLL_S: Final = 0.25
# How long anybody waits for the database.
READ_S: Final = 1.0
# After a failure nobody queues for the database for so long, unless a poll succeeds before.
PAUSE_S: Final = 1.0


@frozen
class Stamp:
    """When a record was read, and under which revision. Taken before reading, so never too new."""

    revision: int | None
    at: float
    """Seconds on the monotonic clock."""


class RevisionWatch:
    """Polls the revision of tenants and keys. `start` and `stop` inside the event loop."""

    def __init__(self, store: PulsingKeyStore, clock: Clock, poll_s: float = POLL_S) -> None:
        self._store = store
        self._clock = clock
        self._poll_s = poll_s
        self._revision: int | None = None
        self._confirmed_at = -math.inf
        self._failed_at = -math.inf
        self._is_down = False
        self._ahead_s: float | None = None
        self._polling: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()

    @property
    def revision(self) -> int | None:
        """The latest that is known."""
        return self._revision

    def now(self) -> float:
        """Seconds since the epoch by the database's clock, which is one for all gateways.

        As it was at the last poll, and gone on with on the monotonic clock. Ours, until there was one.
        """
        return self._clock.now() if self._ahead_s is None else self._clock.elapsed() + self._ahead_s

    def stamp(self) -> Stamp:
        return Stamp(self._revision, self._clock.elapsed())

    def age_s(self, stamp: Stamp) -> float:
        """Seconds since what was read under this stamp was known to be current; infinite if it may not be."""
        if stamp.revision != self._revision:
            return math.inf
        return self._clock.elapsed() - max(stamp.at, self._confirmed_at)

    @property
    def is_down(self) -> bool:
        """The database failed, and no poll has succeeded since."""
        return self._is_down

    @property
    def is_pausing(self) -> bool:
        """The database failed a moment ago: do not even try."""
        return self._clock.elapsed() - self._failed_at < PAUSE_S

    def note_failure(self) -> None:
        self._failed_at = self._clock.elapsed()
        if not self._is_down:
            self._is_down = True
            logger.error("the database does not answer; keys that were confirmed lately go on")

    async def poll(self) -> None:
        """Ask once. A database that does not answer leaves everything as old as it is."""
        async with self._turn:
            await self._ask()

    async def reach(self, revision: int) -> None:
        """See to it that this revision, or a later one, is known. Many who wait for it share one poll.

        Raises StoreUnavailable when the database does not answer in time, or knows of no such revision.
        """
        if self._knows(revision):
            return
        try:
            async with asyncio.timeout(READ_S), self._turn:
                if not self._knows(revision) and not self.is_pausing:
                    await self._ask()
        except TimeoutError:
            self.note_failure()
        if not self._knows(revision):
            raise StoreUnavailable

    def _knows(self, revision: int) -> bool:
        return self._revision is not None and self._revision >= revision

    async def _ask(self) -> None:
        asked_at = self._clock.elapsed()
        try:
            pulse = await self._store.pulse()
        except StoreUnavailable:
            self.note_failure()
            return
        self._revision, self._confirmed_at, self._failed_at = pulse.revision, asked_at, -math.inf
        self._ahead_s = pulse.now - self._clock.elapsed()
        if self._is_down:
            self._is_down = False
            logger.info("the database answers again")

    async def start(self) -> None:
        """Poll once, then in the background."""
        await self.poll()
        self._polling = asyncio.create_task(self._poll_for_ever())

    async def stop(self) -> None:
        if self._polling is not None:
            self._polling.cancel()
            await asyncio.wait([self._polling])

    async def _poll_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._poll_s)
            await self.poll()
