"""Usage by hour: added to by whoever writes ledger and audit log, in the same transaction.

The law: `usage_hours` is at every moment what ledger and audit log add up to, as `rules.usage` counts them.
What is written twice is counted once, and where better evidence replaces an entry, the difference is added.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, tzinfo
from typing import Final
from zlib import crc32

from attrs import asdict, astuple, fields

from gateway.rules.usage import COUNTS, Bucket
from gateway.rules.windows import zone_of
from gateway.storage.database import Session

_LOCKS: Final = 64
_BUCKET: Final = tuple(field.name for field in fields(Bucket))
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

Added = dict[Bucket, Counter[str]]


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
        counter = added.setdefault(bucket, Counter())
        for name, value in counts.items():
            counter[name] += sign * value


async def add(connection: Session, added: Added) -> None:
    """Keep it. In one order, so that two who add to the same hours never wait for each other in a circle."""
    rows = [
        {**asdict(bucket), **{name: counter[name] for name in COUNTS}}
        for bucket, counter in sorted(added.items(), key=lambda item: astuple(item[0]))
        if any(counter.values())
    ]
    await connection.execute_many(_ADD, rows)


def _zone(name: str) -> tzinfo:
    try:
        return zone_of(name)
    except ValueError:  # it was known where it was set
        return UTC
