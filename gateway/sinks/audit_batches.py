"""Audit rows on their way to the database: taken at once, written in batches, kept while it is away."""

import asyncio
from collections import deque
from typing import Final

from loguru import logger

from gateway.errors import StoreUnavailable
from gateway.model import AuditRow
from gateway.ports import AuditStore

BATCH_ROWS: Final = 1000
BATCH_WAIT_S: Final = 0.25
RETRY_S: Final = 1.0
# About 1 KB a row: 50 MB at the most, minutes of an outage under load. Beyond it new work is refused.
MAX_WAITING_ROWS: Final = 50_000


class AuditBatches:
    """The sink that feeds the audit log. `start` and `stop` inside the event loop; `stop` writes the rest."""

    def __init__(self, store: AuditStore, max_waiting_rows: int = MAX_WAITING_ROWS) -> None:
        self._store = store
        self._max_waiting_rows = max_waiting_rows
        self._waiting: deque[AuditRow] = deque()
        self._new = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None
        self._stopping = False

    @property
    def is_full(self) -> bool:
        return len(self._waiting) >= self._max_waiting_rows

    def record(self, row: AuditRow) -> None:
        """Keep the row. What is admitted is recorded even when `is_full`: that only stops new work."""
        self._waiting.append(row)
        self._new.set()

    async def start(self) -> None:
        self._writer = asyncio.create_task(self._write_batches())

    async def stop(self) -> None:
        """Write what waits. Raises StoreUnavailable when the database does not take it."""
        self._stopping = True
        self._new.set()
        if self._writer is not None:
            await self._writer
        while self._waiting:
            await self._write_one()

    async def _write_batches(self) -> None:
        while not self._stopping:
            await self._new.wait()
            self._new.clear()
            try:
                while self._waiting:
                    await self._write_one()
            except StoreUnavailable:
                logger.bind(rows=len(self._waiting)).warning("audit rows wait for the database")
                self._new.set()
                await asyncio.sleep(RETRY_S)
            else:
                if not self._stopping:
                    # Gather the next batch: a commit costs the same for one row and for a thousand.
                    await asyncio.sleep(BATCH_WAIT_S)

    async def _write_one(self) -> None:
        batch = [self._waiting[index] for index in range(min(BATCH_ROWS, len(self._waiting)))]
        await self._store.write(batch)
        for _ in batch:
            self._waiting.popleft()
