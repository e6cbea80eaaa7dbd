"""What a killed process left on this disk is drained by whoever lives beside it, or starts after it."""

import asyncio
from collections import deque
from pathlib import Path
from typing import Final

from attrs import define, field
from loguru import logger

from gateway.accounting import LedgerEntry
from gateway.errors import StoreUnavailable
from gateway.spool import folders
from gateway.spool.drainer import Drainer
from gateway.spool.folders import Folder
from gateway.spool.journal import Journal
from gateway.spool.leftovers import InThread, replay

ADOPT_S: Final = 10.0
RETRY_S: Final = 1.0


@define(eq=False)
class Adoption:
    """`release` at the end."""

    _root: Path
    _journal: Journal
    _drainer: Drainer
    _in_thread: InThread
    ends: deque[LedgerEntry] = field(factory=deque)
    """What requests of the dead have cost. Whoever tells the counters takes them out."""
    _adopted: list[Folder] = field(factory=list)

    async def for_ever(self) -> None:
        """The task of it. Beside draining: what the dead left may take a minute."""
        while True:
            await asyncio.sleep(ADOPT_S)
            try:
                await self.catch_up()
            except Exception:  # noqa: BLE001 - a defect must not end it for good
                logger.exception("what a dead process left behind can't be drained; it is tried again")

    async def catch_up(self) -> None:
        """Drain all that dead processes left behind, however long the database is away. Raises OSError."""
        while True:
            try:
                await self._adopt()
            except StoreUnavailable:
                logger.warning("what a dead process left behind waits for the database")
                await asyncio.sleep(RETRY_S)
            else:
                return

    async def _adopt(self) -> None:
        """Raises StoreUnavailable: then they stay adopted."""
        await self._in_thread(self._hold_leftovers)
        waiting = self._journal.others_bytes = await self._in_thread(_bytes_of, list(self._adopted))
        if waiting:
            logger.info(f"draining {waiting} bytes that dead processes left behind")
        while self._adopted:
            await self._replay(self._adopted[0])
            self._adopted.pop(0)
        self._journal.others_bytes = 0

    def release(self) -> None:
        """Let others adopt what was not drained."""
        while self._adopted:
            self._adopted.pop().release()

    def _hold_leftovers(self) -> None:
        for folder in folders.leftovers(self._root):
            self._adopted.append(folder)  # one by one, in the thread: a cancellation forgets none

    async def _replay(self, folder: Folder) -> None:
        try:
            replayed = await replay(folder, self._drainer, self._in_thread)
        except OSError as error:
            logger.error(f"the leftovers in {folder.path} can't be read: {error.strerror}")
            folder.release()
            return
        self.ends += replayed.ends
        if replayed.records:
            logger.bind(rows=replayed.records).info(
                f"drained what a dead process left behind; {replayed.recovered} requests had no end"
            )


def _bytes_of(leftovers: list[Folder]) -> int:
    return sum(path.stat().st_size for folder in leftovers for path in folder.segments())
