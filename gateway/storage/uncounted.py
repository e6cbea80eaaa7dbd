"""Usage that gateways of an older version wrote down and did not count, as while a fleet is rolled.

They know no usage, so their rows keep what the columns beside it are by default. Each row is counted once, by
whoever comes first: it is marked in the transaction that counts it.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Final

from gateway.rules.audit_chain import Chain
from gateway.rules.usage import bucket_of_entry, bucket_of_row, counts_of_entry, counts_of_row, hour_of
from gateway.storage.audit_reading import COLUMNS as AUDIT_COLUMNS
from gateway.storage.audit_reading import row_read
from gateway.storage.audit_sealing import seal
from gateway.storage.database import Database, Row, Session
from gateway.storage.ledger import COLUMNS, entry_of
from gateway.storage.usage import Added, Zones, add, count, lock_of

# A transaction of so many takes some tens of milliseconds, for which the tenants' other writers wait.
BATCH: Final = 500

# In the words of the index that has nothing else in it.
_ENTRIES: Final = "usage_hour = -1 AND evidence <> 'intent'"
_ROWS: Final = "recorded_at IS NULL"
_FIND_ENTRIES: Final = " ".join(
    ("SELECT reservation_id, tenant_id FROM ledger WHERE", _ENTRIES, "LIMIT :batch")
)
_FIND_ROWS: Final = " ".join(("SELECT request_id, tenant_id FROM audit WHERE", _ROWS, "LIMIT :batch"))
_READ_ENTRIES: Final = " ".join(
    ("SELECT", ", ".join(COLUMNS), "FROM ledger WHERE reservation_id IN EACH(:ids) AND", _ENTRIES)
)
_READ_ROWS: Final = " ".join(
    (
        "SELECT",
        ", ".join(AUDIT_COLUMNS),
        "FROM audit WHERE request_id IN EACH(:ids) AND",
        _ROWS,
    )
)
_MARK_ENTRY: Final = "UPDATE ledger SET usage_hour = :hour WHERE reservation_id = :id"
_MARK_ROW: Final = "UPDATE audit SET recorded_at = NOW_S() WHERE request_id = :id"


class Uncounted:
    """Counts it. Where there is nothing, two looks into indexes that are empty then."""

    def __init__(self, database: Database, chain: Chain) -> None:
        self._database = database
        self._chain = chain

    async def count(self) -> None:
        """Until nothing is left. Raises StoreUnavailable: what was counted by then stays counted."""
        while found := await self._find(_FIND_ENTRIES):
            async with self._database.transaction(*_locks(found)) as connection:
                await _count_entries(connection, [row[0] for row in found])
        while found := await self._find(_FIND_ROWS):
            async with self._database.transaction(*_locks(found)) as connection:
                await _count_rows(connection, self._chain, [row[0] for row in found])

    async def _find(self, statement: str) -> Sequence[Row]:
        async with self._database.session() as connection:
            return await connection.fetch_all(statement, {"batch": BATCH})


async def _count_entries(connection: Session, ids: Sequence[str]) -> None:
    """Read again behind the locks: what somebody else counted or corrected meanwhile is not in it."""
    entries = [entry_of(row) for row in await connection.fetch_all(_READ_ENTRIES, {"ids": ids})]
    zones = await Zones.read(connection, {entry.tenant_id for entry in entries})
    added: Added = defaultdict(Counter)
    marks = []
    for entry in entries:
        hour = hour_of(entry.admitted_at, zones.of(entry.tenant_id))
        count(added, bucket_of_entry(entry, hour), counts_of_entry(entry))
        marks.append({"id": entry.reservation_id, "hour": hour})
    await connection.execute_many(_MARK_ENTRY, marks)
    await add(connection, added)


async def _count_rows(connection: Session, chain: Chain, ids: Sequence[str]) -> None:
    """Nobody sealed them either."""
    rows = [row_read(row) for row in await connection.fetch_all(_READ_ROWS, {"ids": ids})]
    zones = await Zones.read(connection, {row.tenant_id or "" for row in rows})
    added: Added = defaultdict(Counter)
    for row in rows:
        count(added, bucket_of_row(row, zones.of(row.tenant_id or "")), counts_of_row(row))
    await connection.execute_many(_MARK_ROW, [{"id": row.request_id} for row in rows])
    await add(connection, added)
    await seal(connection, chain, rows)


def _locks(found: Sequence[Row]) -> set[str]:
    return {lock_of(row[1] or "") for row in found}
