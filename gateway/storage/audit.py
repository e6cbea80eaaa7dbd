"""The audit log in the database: the adapter behind `ports.AuditStore`."""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any, Final

from attrs import fields

from gateway.errors import Unstorable
from gateway.model import AuditRow
from gateway.rules.audit_chain import Chain
from gateway.rules.usage import bucket_of_row, counts_of_row
from gateway.storage.audit_sealing import seal
from gateway.storage.database import Database
from gateway.storage.turns import in_turns
from gateway.storage.usage import Added, Zones, add, count, lock_of

_COLUMNS: Final = tuple(field.name for field in fields(AuditRow))
# The names come from our own class. A batch whose outcome was unknown is written again: its rows stay.
_INSERT: Final = " ".join(
    (
        "INSERT INTO audit",
        f"({', '.join(_COLUMNS)}, recorded_at)",
        "VALUES EACH",
        f"({', '.join(f':{name}' for name in _COLUMNS)}, NOW_S())",
        "ON CONFLICT (request_id) DO NOTHING",
    )
)
_THERE: Final = "SELECT request_id FROM audit WHERE request_id IN EACH(:ids)"
_MAX_INTEGER: Final = 2**63 - 1


class AuditLog:
    """Rows in, one transaction a batch, which also counts and seals them."""

    def __init__(self, database: Database, chain: Chain) -> None:
        self._database = database
        self._chain = chain

    async def write(self, rows: Sequence[AuditRow]) -> None:
        """Keep all rows, or none: then it raises StoreUnavailable, or Unstorable. Again changes nothing.

        What a database can't hold (a backend may count to 10^30) is brought into its range, so that no row
        stands in the way of the others for ever.
        """
        try:
            await self._insert(rows)
        except Unstorable:
            storable = [{name: _storable(value) for name, value in vars(row).items()} for row in rows]
            await self._insert([AuditRow(**values) for values in storable])

    async def _insert(self, rows: Sequence[AuditRow]) -> None:
        tenants = {row.tenant_id or "" for row in rows}
        # Whoever writes the same rows waits, and then finds them: each is counted once.
        async with self._database.transaction(*map(lock_of, tenants)) as connection:
            found = await connection.fetch_all(_THERE, {"ids": [row.request_id for row in rows]})
            there = {row["request_id"] for row in found}
            new = {row.request_id: row for row in reversed(rows) if row.request_id not in there}
            await connection.execute_many(_INSERT, map(vars, reversed(new.values())))
            zones = await Zones.read(connection, tenants)
            added: Added = defaultdict(Counter)
            async for row in in_turns(new.values()):
                bucket = bucket_of_row(row, zones.of(row.tenant_id or ""))
                count(added, bucket, counts_of_row(row))
            await add(connection, added)
            await seal(connection, self._chain, new.values())


def _storable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode().replace("\0", "")
    if isinstance(value, int):
        return max(-_MAX_INTEGER, min(value, _MAX_INTEGER))
    if isinstance(value, float) and not math.isfinite(value):
        return 0.0
    return value
