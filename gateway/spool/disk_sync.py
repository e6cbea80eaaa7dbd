"""Waiting for the disk, so that a power cut loses little; a kill -9 loses nothing without it."""

import asyncio
from collections.abc import Callable
from typing import Final

from loguru import logger

from gateway.spool.journal import Journal
from gateway.spool.leftovers import InThread

# A power cut loses no more than this and one wait for the disk.
SYNC_S: Final = 0.025


class DiskSync:
    """`lag_s` is the longest time that a record has waited until the disk had it.

    While it `has_news` it need not be told again.
    """

    def __init__(self, journal: Journal, in_thread: InThread, elapsed: Callable[[], float]) -> None:
        self.lag_s = 0.0
        self.has_news = False
        self._journal = journal
        self._in_thread = in_thread
        self._elapsed = elapsed
        self._unsynced = asyncio.Event()

    def note_news(self) -> None:
        self.has_news = True
        self._unsynced.set()

    async def for_ever(self) -> None:
        """The task of it."""
        while True:
            await self._unsynced.wait()
            await asyncio.sleep(SYNC_S)  # what is written meanwhile shares the wait for the disk
            self.has_news = False
            self._unsynced.clear()
            await self.sync()

    async def sync(self) -> None:
        """Wait once. A disk that fails is left alone for a moment: no intents meanwhile."""
        try:
            unsynced = self._journal.unsynced()
            if unsynced is not None:
                await self._in_thread(unsynced.flush)
                self.lag_s = max(self.lag_s, self._elapsed() - unsynced.since)
        except OSError as error:
            self._journal.refuse()
            logger.error(f"the disk under the spool fails: {error.strerror}")
