"""Reading the audit log: the last rows, all of a time in pages, those that just came in; what is personal.

Pages go by time and id, so that a page costs the same wherever it is, and memory holds one of them.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final

from attrs import asdict, evolve, fields, frozen

from gateway.model import AuditRow, Tenant
from gateway.storage.actions import NOBODY, Actor, note
from gateway.storage.database import Database, Row, Session

PAGE_ROWS: Final = 2_000
# A transaction that adds rows takes at most ten seconds, and its rows are then of when they were added.
LATE_S: Final = 15.0

_COLUMNS: Final = tuple(field.name for field in fields(AuditRow))
_BOOLEANS: Final = frozenset({"stream", "tokens_estimated"})
# The names are those of our own class.
_SELECT: Final = " ".join(("SELECT", ", ".join(_COLUMNS)))
_PURGED_IDS: Final = """
    SELECT request_id, received_at_us FROM audit
    WHERE tenant_id = :tenant_id AND received_at_us >= :after
        AND (received_at_us > :after OR request_id > :after_id)
    ORDER BY received_at_us, request_id LIMIT :page
"""
# What says who sent a request rather than for whom: an address, a program, a number of the caller's own.
_PURGE: Final = """
    UPDATE audit SET peer = '', user_agent = NULL, client_request_id = NULL
    WHERE request_id = :request_id
        AND (peer <> '' OR user_agent IS NOT NULL OR client_request_id IS NOT NULL)
"""
_PERSONAL: Final = """
    SELECT CAST(coalesce(sum(CASE WHEN peer <> '' THEN 1 ELSE 0 END), 0) AS BIGINT) AS addresses,
        count(user_agent) AS user_agents, count(client_request_id) AS client_request_ids
    FROM audit WHERE tenant_id = :tenant_id
"""
_QUARANTINED: Final = "SELECT digest, record FROM quarantine WHERE kind <> 'ledger'"
_RELEASE: Final = "DELETE FROM quarantine WHERE digest = :digest"


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


@frozen
class Personal:
    """How many rows have what is personal, or how much of it was removed."""

    addresses: int
    user_agents: int
    client_request_ids: int
    quarantined: int = 0
    """Records that could not be stored, and were kept as they came."""


class AuditReading:
    """All raise StoreUnavailable when the database does not answer."""

    def __init__(self, database: Database, actor: Actor = NOBODY) -> None:
        self._database = database
        self._actor = actor

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
        return [_row(row) for row in reversed(rows)]

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
            read = [_row(row) for row in rows]
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
        return [_row(row) for row in rows]

    async def personal(self, tenant_id: str) -> Personal:
        """What of a tenant's rows is personal."""
        async with self._database.snapshot(patient=True) as connection:
            found = await connection.fetch_one(_PERSONAL, {"tenant_id": tenant_id})
            quarantined = await _quarantined(connection, tenant_id)
        addresses, user_agents, client_request_ids = found or (0, 0, 0)
        return Personal(int(addresses), int(user_agents), int(client_request_ids), len(quarantined))

    async def purge(self, tenant_id: str, page: int = PAGE_ROWS) -> AsyncIterator[int]:
        """Remove what is personal from a tenant's rows: after each page, how many rows were gone through.

        Rows stay, and with them who used what: what is billed. Cut short, it can be done again.
        """
        after, after_id = -(2**63), ""
        while True:
            values = {"tenant_id": tenant_id, "after": after, "after_id": after_id, "page": page}
            async with self._database.transaction() as connection:
                rows = await connection.fetch_all(_PURGED_IDS, values)
                ids = [{"request_id": row["request_id"]} for row in rows]
                await connection.execute_many(_PURGE, ids)
            if not rows:
                return
            after, after_id = rows[-1]["received_at_us"], rows[-1]["request_id"]
            yield len(rows)

    async def begin_purge(self, tenant: Tenant) -> Personal:
        """Note what will be removed, and what of it is in quarantine remove at once: what there is.

        Before anything else is removed, so that nothing is without its note.
        """
        found = await self.personal(tenant.id)
        async with self._database.transaction() as connection:
            for digest in await _quarantined(connection, tenant.id):
                await connection.execute(_RELEASE, {"digest": digest})
            changes = {name: (count, 0) for name, count in asdict(found).items()}
            await note(connection, self._actor, "purge_tenant", tenant, changes)
        return found


def _where(selection: Selection) -> tuple[str, Mapping[str, Any]]:
    """The conditions that are given, and their values: the words are all our own."""
    values = {name: value for name, value in asdict(selection).items() if value is not None}
    return " AND ".join(_FILTERS[name] for name in values), values


async def _quarantined(connection: Session, tenant_id: str) -> Sequence[bytes]:
    """Which of the records that could not be stored speak of a tenant: there are few, if any."""
    rows = await connection.fetch_all(_QUARANTINED)
    return [row["digest"] for row in rows if tenant_id.encode() in row["record"]]


def _row(row: Row) -> AuditRow:
    values: dict[str, Any] = dict(zip(_COLUMNS, row, strict=True))
    for name in _BOOLEANS:
        values[name] = bool(values[name])
    return AuditRow(**values)
