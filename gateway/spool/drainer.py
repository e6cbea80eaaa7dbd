"""From records to the database, in batches: all that can be kept is kept, whatever stands beside it."""

import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

from attrs import define, frozen
from loguru import logger

from gateway.accounting import LedgerEntry
from gateway.errors import Unstorable
from gateway.model import AuditRow
from gateway.ports import AuditStore, LedgerStore, Quarantine
from gateway.spool import frames
from gateway.spool.records import Audited, Record, Unreadable, decode, encode

# Three a request. What a batch costs besides its rows is as much as the rows of a hundred requests; the
# stores work on them in turns, so that the event loop never waits for all.
BATCH_RECORDS: Final = 1000

_T = TypeVar("_T")


@frozen
class Item:
    """A record, and its bytes where they were read; of others they are made when somebody asks for them."""

    record: Record | Unreadable
    read: bytes | None = None

    @property
    def payload(self) -> bytes:
        if self.read is None and not isinstance(self.record, Unreadable):
            return encode(self.record)
        return self.read or b""


@frozen
class Batch:
    """Some records of a file, in their order. `used_bytes` is how far they reach."""

    items: list[Item]
    used_bytes: int
    gaps: int
    lost_bytes: int


def read_batch(descriptor: int, start: int, end: int) -> Batch:
    """The next records between two offsets of a file, for a thread. Raises OSError."""
    # What somebody has cut off is lost as what somebody has overwritten.
    data = os.pread(descriptor, end - start, start).ljust(end - start, b"\xff")
    reading = frames.read(data, BATCH_RECORDS)
    items = [Item(_decoded(payload), payload) for payload in reading.payloads]
    return Batch(items, reading.used_bytes, reading.gaps, reading.lost_bytes)


def _decoded(payload: bytes) -> Record | Unreadable:
    try:
        return decode(payload)
    except Unreadable as error:
        return error


@define
class Drainer:
    """Writes records to the stores; what can't be stored goes to quarantine, found by halving the batch."""

    ledger: LedgerStore
    audit: AuditStore
    quarantine: Quarantine
    set_aside: int = 0
    """How many records went to quarantine."""
    lost_bytes: int = 0
    """How much of the files was torn or overwritten."""

    async def drain(self, batch: Batch, file: str) -> None:
        """Store a batch, and tell what of it is lost. Raises StoreUnavailable: then give it again."""
        await self.store(batch.items)
        if batch.gaps:
            self.lost_bytes += batch.lost_bytes
            logger.error(
                f"the spool file {file} is damaged: {batch.lost_bytes} bytes in {batch.gaps} places are lost"
            )

    async def store(self, items: Sequence[Item]) -> None:
        """Keep or set aside all of them. Raises StoreUnavailable: then all are to be given again."""
        entries: list[tuple[Item, LedgerEntry]] = []
        rows: list[tuple[Item, AuditRow]] = []
        for item in items:
            match item.record:
                case Unreadable() as error:
                    await self._set_aside("unreadable", item.payload, str(error))
                case Audited(row):
                    rows.append((item, row))
                case found:
                    entries.append((item, found.entry))
        await self._write("ledger", entries, self.ledger.write)
        await self._write("audit", rows, self.audit.write)

    async def _write(
        self, kind: str, found: list[tuple[Item, _T]], write: Callable[[list[_T]], Awaitable[None]]
    ) -> None:
        """Several records of one reservation stay apart here: the store takes the best, or sets one aside."""
        if not found:
            return
        try:
            await write([value for _, value in found])
        except Unstorable as error:
            if len(found) == 1:
                await self._set_aside(kind, found[0][0].payload, str(error))
                return
            middle = len(found) // 2
            await self._write(kind, found[:middle], write)
            await self._write(kind, found[middle:], write)

    async def _set_aside(self, kind: str, payload: bytes, reason: str) -> None:
        await self.quarantine.keep(kind, payload, reason)
        self.set_aside += 1
        logger.bind(rows=1).error(f"a record for the {kind} can't be stored and went to quarantine: {reason}")
