"""What a killed process left on this disk is drained by whoever lives beside it, or starts after it."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from loguru import logger

from gateway.spool import folders
from gateway.spool.drainer import Drainer
from gateway.spool.folders import Folder
from gateway.spool.journal import Journal
from gateway.spool.leftovers import InThread, replay

ADOPT_S: Final = 10.0


class Adoption:
    """`adopt` when it `is_due`; `release` at the end."""

    def __init__(
        self,
        root: Path,
        journal: Journal,
        drainer: Drainer,
        in_thread: InThread,
        elapsed: Callable[[], float] = time.monotonic,
    ) -> None:
        self._root = root
        self._journal = journal
        self._drainer = drainer
        self._in_thread = in_thread
        self._elapsed = elapsed
        self._adopted: list[Folder] = []
        self._adopted_at = elapsed()

    @property
    def is_due(self) -> bool:
        return self._elapsed() - self._adopted_at >= ADOPT_S

    async def adopt(self) -> None:
        """Drain what dead processes left behind. Raises StoreUnavailable: then they stay adopted."""
        self._adopted_at = self._elapsed()
        await self._in_thread(self._hold_leftovers)
        self._journal.others_bytes = await self._in_thread(_bytes_of, list(self._adopted))
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
        if replayed.records:
            logger.bind(rows=replayed.records).info(
                f"drained what a dead process left behind; {replayed.recovered} requests had no end"
            )


def _bytes_of(leftovers: list[Folder]) -> int:
    return sum(path.stat().st_size for folder in leftovers for path in folder.segments())
