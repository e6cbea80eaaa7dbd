"""Usage by hour: added to by whoever writes ledger and audit log, in the same transaction.

The law: `usage_hours` is at every moment what ledger and audit log add up to, as `rules.usage` counts them.
What is written twice is counted once, and where better evidence replaces an entry, the difference is added.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, tzinfo
from operator import itemgetter
from typing import Final
from zlib import crc32

from attrs import asdict, frozen

from gateway.rules.usage import COUNTS, HOUR_S, Bucket
from gateway.rules.windows import zone_of
from gateway.storage.database import Database, Session

_LOCKS: Final = 64
_BUCKET: Final = Bucket._fields
_ZONES: Final = "SELECT id, time_zone FROM tenants WHERE id IN EACH(:ids)"
# The names come from our own modules.
_ADD: Final = " ".join(
    (
        "INSERT INTO usage_hours",
        f"({', '.join((*_BUCKET, *COUNTS))})",
        f"VALUES ({', '.join(f':{name}' for name in (*_BUCKET, *COUNTS))})",
        f"ON CONFLICT ({', '.join(_BUCKET)}) DO UPDATE SET",
        ", ".join(f"{name} = usage_hours.{name} + excluded.{name}" for name in COUNTS),
    )
)

# What usage may be told by, and what that is in the database. A key is one of its tenant's.
_COLUMNS: Final = {
    "tenant": ("tenant_id",),
    "key": ("tenant_id", "key_id"),
    "model": ("model",),
    "backend": ("backend",),
}
DIMENSIONS: Final = tuple(_COLUMNS)

Added = defaultdict[Bucket, Counter[str]]


@frozen
class Selection:
    """Which usage: from one moment to another, seconds since the epoch; and whose, where that is given."""

    since: float
    until: float
    tenant_id: str | None = None
    key_id: str | None = None
    model: str | None = None
    backend: str | None = None


@frozen
class Used:
    """What was used in one slot of time, by the values of what was asked for ("" is not known).

    `slot` is an hour, seconds since the epoch, or a number counted from the first of them: see `read`. `zone`
    is where its hours begin.
    """

    of: dict[str, str]
    slot: int
    zone: str
    counts: dict[str, int]


class Usage:
    """Reads usage by hour. All raise StoreUnavailable when the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(self, selection: Selection, by: Sequence[str], *, slots: int | None) -> list[Used]:
        """What was used, by some of DIMENSIONS, and by hour or by so many slots of equal length.

        An hour that a selection cuts counts whole. Reads the hours that were asked for, and nothing else.
        """
        columns = list(dict.fromkeys(column for name in by for column in _COLUMNS[name]))
        since, until = math.floor(selection.since), math.ceil(selection.until)
        values = {**asdict(selection), "since": since - HOUR_S, "until": until}
        if slots is not None:
            values |= {"origin": since, "width": max(HOUR_S, math.ceil((until - since) / slots))}
        async with self._database.snapshot(patient=True) as connection:
            rows = await connection.fetch_all(_read(columns, in_slots=slots is not None), values)
        width = len(columns)
        return [
            Used(
                of=dict(zip(columns, row[:width], strict=True)),
                slot=int(row[width]),
                zone=row[width + 1],
                counts={name: int(value) for name, value in zip(COUNTS, row[width + 2 :], strict=True)},
            )
            for row in rows
        ]


def _read(columns: Sequence[str], *, in_slots: bool) -> str:
    """The statement: all names in it are our own."""
    slot = "CAST((hour - :origin) / :width AS BIGINT)" if in_slots else "hour"
    zone = "''" if in_slots else "coalesce(time_zone, 'UTC')"
    terms = [*columns, f"{slot} AS slot", f"{zone} AS zone"]
    terms += [f"CAST(sum({name}) AS BIGINT) AS {name}" for name in COUNTS]
    filters = [
        f"({name} = :{name} OR :{name} IS NULL)" for name in ("tenant_id", "key_id", "model", "backend")
    ]
    # Zones are for days and hours alone: whoever asks for neither is spared the look-up, hour by hour.
    tenants = "" if in_slots else "LEFT JOIN tenants ON tenants.id = tenant_id"
    parts = (
        "SELECT",
        ", ".join(terms),
        "FROM usage_hours",
        tenants,
        "WHERE hour > :since AND hour < :until AND",
        " AND ".join(filters),
        "GROUP BY",
        ", ".join(str(number) for number in range(1, len(columns) + 3)),
    )
    return " ".join(parts)


def lock_of(tenant_id: str) -> str:
    """One of a few: a batch may hold more tenants than the database has room for locks."""
    return f"ledger {crc32(tenant_id.encode('utf-8', 'replace')) % _LOCKS}"


class Zones:
    """In which zones the hours of tenants begin; UTC for whoever is not known, or was deleted."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self._zones = {tenant_id: _zone(name) for tenant_id, name in names.items()}

    @classmethod
    async def read(cls, connection: Session, tenant_ids: Iterable[str]) -> "Zones":
        rows = await connection.fetch_all(_ZONES, {"ids": sorted(tenant_ids)})
        return cls({row["id"]: row["time_zone"] for row in rows})

    def of(self, tenant_id: str) -> tzinfo:
        return self._zones.get(tenant_id, UTC)


def count(added: Added, bucket: Bucket, counts: Mapping[str, int], sign: int = 1) -> None:
    """Add what is counted, or take it away again."""
    if counts:
        counter = added[bucket]
        for name, value in counts.items():
            counter[name] += sign * value


async def add(connection: Session, added: Added) -> None:
    """Keep it. In one order, so that two who add to the same hours never wait for each other in a circle."""
    rows = [
        {**bucket._asdict(), **{name: counter[name] for name in COUNTS}}
        for bucket, counter in sorted(added.items(), key=itemgetter(0))
        if any(counter.values())
    ]
    await connection.execute_many(_ADD, rows)


def _zone(name: str) -> tzinfo:
    try:
        return zone_of(name)
    except ValueError:  # it was known where it was set
        return UTC
