"""Audit rows sealed into their days' chains (`rules.audit_chain`), in the transaction that adds them.

However many gateways write, a day has one chain: whoever adds to it holds its head until the commit. A day's
head is made once, by whoever holds the register, which all days are in; so days that begin at once never wait
for each other in a circle.
"""

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Final

from attrs import asdict, define, field

from gateway.model import AuditRow
from gateway.rules.audit_chain import NOTHING, REGISTER, SALT_BYTES, Chain, Seal, day_of
from gateway.storage.database import Session
from gateway.storage.turns import in_turns

_THERE: Final = "SELECT day FROM audit_heads WHERE day >= :first AND day <= :last"
_BEGIN: Final = """
    INSERT INTO audit_heads (day, seq, mac, proof) VALUES (:day, 0, :mac, :proof)
    ON CONFLICT (day) DO NOTHING
"""
# Holds the row until the commit.
_ADVANCE: Final = """
    UPDATE audit_heads SET seq = seq + :count WHERE day = :day
    RETURNING seq - :count AS seq, mac, NOW_S() AS at
"""
_END: Final = "UPDATE audit_heads SET mac = :mac, proof = :proof WHERE day = :day"
_ADD: Final = """
    INSERT INTO audit_seals
        (day, seq, tenant_id, sealed_at, row_count, ids, proofs, salt, digest, mac)
    VALUES (:day, :seq, :tenant_id, :sealed_at, :row_count, :ids, :proofs, :salt, :digest, :mac)
"""


@define
class _Proven:
    """Rows of one tenant, and the proofs of them."""

    salt: bytes = field(factory=lambda: os.urandom(SALT_BYTES))
    ids: list[str] = field(factory=list)
    proofs: list[bytes] = field(factory=list)

    def add(self, row: AuditRow, chain: Chain) -> None:
        self.ids.append(row.request_id)
        self.proofs.append(chain.proofs_of(row, self.salt))


async def seal(connection: Session, chain: Chain, rows: Iterable[AuditRow]) -> None:
    """Seal rows that are added in this transaction, and in no other. After all else: others wait for it."""
    days: dict[int, dict[str, _Proven]] = defaultdict(lambda: defaultdict(_Proven))
    # Most of the work, and nobody waits for it yet.
    async for row in in_turns(rows):
        days[day_of(row)][row.tenant_id or ""].add(row, chain)
    if days:
        await _begin(connection, chain, set(days))
    for day, tenants in sorted(days.items()):
        await _seal_day(connection, chain, day, tenants)


async def _seal_day(connection: Session, chain: Chain, day: int, tenants: dict[str, _Proven]) -> None:
    advanced = await _advanced(connection, day, len(tenants))
    if advanced is None:  # retention took its head away since
        await _begin(connection, chain, {day})
        advanced = await _advanced(connection, day, len(tenants))
    assert advanced is not None  # noqa: S101 - nobody else can have taken what this made
    seq, mac, at = advanced
    seals = []
    for number, (tenant_id, proven) in enumerate(tenants.items(), seq + 1):
        made = chain.seal(
            mac,
            day=day,
            seq=number,
            tenant_id=tenant_id,
            sealed_at=at,
            ids=tuple(proven.ids),
            proofs=b"".join(proven.proofs),
            salt=proven.salt,
        )
        mac = made.mac
        seals.append(made)
    await _keep(connection, chain, seals)


async def _begin(connection: Session, chain: Chain, days: set[int]) -> None:
    """Make the heads of days that have none, and enter them into the register."""
    if not days - await _there(connection, days):
        return
    await connection.execute(_BEGIN, _head(chain, REGISTER, NOTHING))
    # Held from here on: whoever else begins a day waits, and finds it begun.
    advanced = await _advanced(connection, REGISTER, 0)
    assert advanced is not None  # noqa: S101 - says it to mypy
    seq, mac, at = advanced
    seals = []
    for number, day in enumerate(sorted(days - await _there(connection, days)), seq + 1):
        made = chain.register(mac, seq=number, sealed_at=at, day=day)
        mac = made.mac
        seals.append(made)
        await connection.execute(_BEGIN, _head(chain, day, mac))
    if seals:
        await _advanced(connection, REGISTER, len(seals))
        await _keep(connection, chain, seals)


async def _there(connection: Session, days: set[int]) -> set[int]:
    rows = await connection.fetch_all(_THERE, {"first": min(days), "last": max(days)})
    return {row["day"] for row in rows}


async def _advanced(connection: Session, day: int, count: int) -> tuple[int, bytes, float] | None:
    """Where the day's chain ended so far, and the time. None where it has no head."""
    row = await connection.fetch_one(_ADVANCE, {"day": day, "count": count})
    return None if row is None else (int(row["seq"]), bytes(row["mac"]), float(row["at"]))


async def _keep(connection: Session, chain: Chain, seals: Sequence[Seal]) -> None:
    last = seals[-1]
    await connection.execute_many(_ADD, [_values(one) for one in seals])
    proof = chain.proof_of_head(last.day, last.seq, last.mac)
    await connection.execute(_END, {"day": last.day, "mac": last.mac, "proof": proof})


def _head(chain: Chain, day: int, mac: bytes) -> dict[str, Any]:
    """Of a chain that has no link yet: it begins with `mac`."""
    return {"day": day, "mac": mac, "proof": chain.proof_of_head(day, 0, mac)}


def _values(one: Seal) -> dict[str, Any]:
    return {**asdict(one), "ids": " ".join(one.ids)}
