"""Intents that are not told to their end: the disk tells of each of them, however old its file is."""

import asyncio
from typing import Final

from attrs import define, field

from gateway.accounting import LedgerEntry
from gateway.model import AuditRow
from gateway.spool.backlog import Backlog
from gateway.spool.journal import Room, Segment
from gateway.spool.records import Intent, encode

# At some 5 µs each. More at a time would hold up the event loop, and its streams.
AT_ONCE: Final = 50


@define
class _Open:
    """Until it is settled and, if its row came with it, audited."""

    record: Intent
    payload: bytes
    segment: Segment
    is_settled: bool
    is_audited: bool

    def stand_in(self, segment: Segment) -> None:
        self.segment.live -= len(self.payload)
        self.segment = segment
        self.segment.live += len(self.payload)


@define
class OpenIntents:
    """By reservation, which is the request's id too. Each counts as live in the segment where it stands."""

    _backlog: Backlog
    _open: dict[str, _Open] = field(factory=dict)

    @property
    def is_empty(self) -> bool:
        return not self._open

    def begin(self, entry: LedgerEntry, row: AuditRow | None) -> None:
        """Write an intent. Raises JournalFull."""
        record = Intent(entry, row)
        # A copy: what orjson gives holds on to all that it wrote into, 4 or 16 KiB, and this is kept.
        payload = memoryview(encode(record)).tobytes()
        segment = self._backlog.append(record, payload, Room.INTENT)
        segment.live += len(payload)
        self._open[entry.reservation_id] = _Open(
            record, payload, segment, is_settled=False, is_audited=row is None
        )

    def settled(self, reservation_id: str) -> None:
        found = self._open.get(reservation_id)
        if found is not None:
            found.is_settled = True
            if found.is_audited:
                self._forget(reservation_id, found)

    def audited(self, request_id: str) -> None:
        found = self._open.get(request_id)
        if found is not None:
            found.is_audited = True
            if found.is_settled:
                self._forget(request_id, found)

    async def carry_over(self, segment: Segment) -> None:
        """Write again what stands in a segment that is to be deleted, in turns. Raises JournalFull."""
        standing = [known for known, found in self._open.items() if found.segment is segment]
        for number, reservation_id in enumerate(standing, 1):
            found = self._open.get(reservation_id)
            if found is not None:  # else it has ended meanwhile
                found.stand_in(self._backlog.append(found.record, found.payload, Room.END))
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)

    def _forget(self, reservation_id: str, ended: _Open) -> None:
        ended.segment.live -= len(ended.payload)
        del self._open[reservation_id]
