"""The audit log in the database: the adapter behind `ports.AuditStore`."""

import math
from collections.abc import Sequence
from typing import Any, Final

from attrs import asdict, fields

from gateway.errors import Unstorable
from gateway.model import AuditRow
from gateway.storage.database import Database

_COLUMNS: Final = tuple(field.name for field in fields(AuditRow))
# The names come from our own class. A batch whose outcome was unknown is written again: its rows stay.
_INSERT: Final = " ".join(
    (
        "INSERT INTO audit",
        f"({', '.join(_COLUMNS)})",
        "VALUES",
        f"({', '.join(f':{name}' for name in _COLUMNS)})",
        "ON CONFLICT (request_id) DO NOTHING",
    )
)
_MAX_INTEGER: Final = 2**63 - 1


class AuditLog:
    """Rows in, one transaction a batch."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def write(self, rows: Sequence[AuditRow]) -> None:
        """Keep all rows, or none: then it raises StoreUnavailable, or Unstorable. Again changes nothing.

        What a database can't hold (a backend may count to 10^30) is brought into its range, so that no row
        stands in the way of the others for ever.
        """
        values = [asdict(row, recurse=False) for row in rows]
        try:
            await self._insert(values)
        except Unstorable:
            await self._insert([{name: _storable(value) for name, value in row.items()} for row in values])

    async def _insert(self, rows: list[dict[str, Any]]) -> None:
        async with self._database.transaction() as connection:
            await connection.execute_many(_INSERT, rows)


def _storable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode().replace("\0", "")
    if isinstance(value, int):
        return max(-_MAX_INTEGER, min(value, _MAX_INTEGER))
    if isinstance(value, float) and not math.isfinite(value):
        return 0.0
    return value
