"""The audit log in the database: the adapter behind `ports.AuditStore`."""

import math
from collections.abc import Sequence
from operator import attrgetter
from typing import Any, Final

from attrs import fields

from gateway.errors import Unstorable
from gateway.model import AuditRow
from gateway.storage.database import UNSTORABLE, Database

_COLUMNS: Final = tuple(field.name for field in fields(AuditRow))
_values_of = attrgetter(*_COLUMNS)
# The names come from our own class. A batch whose outcome was unknown is written again: its rows stay.
_INSERT: Final = " ".join(
    (
        "INSERT INTO audit",
        f"({', '.join(_COLUMNS)})",
        "VALUES",
        f"({', '.join('?' * len(_COLUMNS))})",
        "ON CONFLICT (request_id) DO NOTHING",
    )
)
_MAX_INTEGER: Final = 2**63 - 1


class AuditLog:
    """Rows in, one transaction a batch. On the driver's own connection: `databases` takes 300 µs a row."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def write(self, rows: Sequence[AuditRow]) -> None:
        """Keep all rows, or none: then it raises StoreUnavailable, or Unstorable. Again changes nothing.

        What SQLite can't hold (a backend may count to 10^30) is brought into its range, so that no row
        stands in the way of the others for ever.
        """
        values = [_values_of(row) for row in rows]
        try:
            await self._insert(values)
        except UNSTORABLE:
            try:
                await self._insert([tuple(_storable(value) for value in row) for row in values])
            except UNSTORABLE as error:
                raise Unstorable(str(error)) from error

    async def _insert(self, values: list[tuple[Any, ...]]) -> None:
        async with self._database.transaction() as connection:
            await connection.raw_connection.executemany(_INSERT, values)


def _storable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, int):
        return max(-_MAX_INTEGER, min(value, _MAX_INTEGER))
    if isinstance(value, float) and not math.isfinite(value):
        return 0.0
    return value
