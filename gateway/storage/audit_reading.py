"""Reading the audit log: the last rows, all of a time in pages, those that just came in.

Pages go by time and id, so that a page costs the same wherever it is, and memory holds one of them.
"""

from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from attrs import asdict, evolve, fields, frozen

from gateway.model import AuditRow
from gateway.storage.database import Database, Row

PAGE_ROWS: Final = 2_000
# A transaction that adds rows takes at most ten seconds, and its rows are then of when they were added.
LATE_S: Final = 15.0

COLUMNS: Final = tuple(field.name for field in fields(AuditRow))
_BOOLEANS: Final = frozenset({"stream", "tokens_estimated"})
# The names are those of our own class.
_SELECT: Final = " ".join(("SELECT", ", ".join(COLUMNS)))


@frozen
class Selection:
    """Which rows; what is None is any. Times are microseconds since the epoch, from one to before another."""

    since_us: int
    until_us: int
    tenant_id: str | None = None
    key_prefix: str | None = None
    model: str | None = None
    outcome: str | None = None
    request_id: str | None = None
    least_status: int | None = None
    most_status: int | None = None


_FILTERS: Final = {
    "since_us": "received_at_us >= :since_us",
    "until_us": "received_at_us < :until_us",
    "tenant_id": "tenant_id = :tenant_id",
    "key_prefix": "key_prefix = :key_prefix",
    "model": "model = :model",
    "outcome": "outcome = :outcome",
    "request_id": "request_id = :request_id",
    "least_status": "status >= :least_status",
    "most_status": "status <= :most_status",
}


class AuditReading:
    """All raise StoreUnavailable when the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def count(self, selection: Selection) -> int:
        where, values = _where(selection)
        async with self._database.snapshot(patient=True) as connection:
            return int(
                await connection.fetch_val(" ".join(("SELECT count(*) FROM audit WHERE", where)), values)
            )

    async def latest(self, selection: Selection, limit: int) -> list[AuditRow]:
        """The last so many; the oldest of them first."""
        where, values = _where(selection)
        order = "ORDER BY received_at_us DESC, request_id DESC LIMIT :limit"
        async with self._database.snapshot(patient=True) as connection:
            rows = await connection.fetch_all(
                f"{_SELECT} FROM audit WHERE {where} {order}", {**values, "limit": limit}
            )
        return [row_read(row) for row in reversed(rows)]

    async def pages(self, selection: Selection, page: int = PAGE_ROWS) -> AsyncIterator[list[AuditRow]]:
        """All of them in their order, a page at a time. What is added meanwhile may be among them."""
        after, after_id = selection.since_us, ""
        while True:
            where, values = _where(evolve(selection, since_us=after))
            order = "AND (received_at_us > :since_us OR request_id > :after_id)"
            limit = "ORDER BY received_at_us, request_id LIMIT :page"
            async with self._database.snapshot(patient=True) as connection:
                rows = await connection.fetch_all(
                    f"{_SELECT} FROM audit WHERE {where} {order} {limit}",
                    {**values, "after_id": after_id, "page": page},
                )
            if not rows:
                return
            read = [row_read(row) for row in rows]
            after, after_id = read[-1].received_at_us, read[-1].request_id
            yield read

    async def recorded(self, selection: Selection, since: float) -> list[AuditRow]:
        """What came in since a moment by the database's clock, whenever it was received."""
        where, values = _where(selection)
        order = "AND recorded_at > :recorded ORDER BY recorded_at, received_at_us, request_id"
        async with self._database.snapshot(patient=True) as connection:
            rows = await connection.fetch_all(
                f"{_SELECT} FROM audit WHERE {where} {order}", {**values, "recorded": since}
            )
        return [row_read(row) for row in rows]


def _where(selection: Selection) -> tuple[str, Mapping[str, Any]]:
    """The conditions that are given, and their values: the words are all our own."""
    values = {name: value for name, value in asdict(selection).items() if value is not None}
    return " AND ".join(_FILTERS[name] for name in values), values


def row_read(row: Row) -> AuditRow:
    """What the database has of a row, as it was given: in the order of its fields."""
    values: dict[str, Any] = dict(zip(COLUMNS, row, strict=True))
    for name in _BOOLEANS:
        values[name] = bool(values[name])
    return AuditRow(**values)
