"""The hash chain over audit rows: what of a row is proven, and what each link of the chain is made of.

All of it is keyed by GATEWAY_SECRET: whoever has the database alone can compute none of it. A row has two
proofs, of its facts and of what is personal in it, so that the latter can be removed on purpose (purge) while
the former still holds. Proofs of personal data are salted: without the salt, which is removed too, they tell
nothing, also not to whoever tries all addresses.
"""

import hashlib
import struct
from collections.abc import Sequence
from operator import attrgetter
from typing import Any, Final

import orjson
from attrs import evolve, fields, frozen

from gateway.model import AuditRow
from gateway.rules.mac import Mac

DAY_S: Final = 86_400
DAY_US: Final = DAY_S * 1_000_000
# The chain that has one seal for each day that was begun: no request is of that day.
REGISTER: Final = -1
# 128 bits: nobody finds another row with the same proof.
PROOF_BYTES: Final = 16
SALT_BYTES: Final = 16
# What a chain begins with where there is nothing before it.
NOTHING: Final = b""

_PERSONAL: Final = ("peer", "user_agent", "client_request_id")
_FACTS: Final = tuple(field.name for field in fields(AuditRow) if field.name not in _PERSONAL)
_MILLISECONDS: Final = frozenset(name for name in _FACTS if name.endswith("_ms"))
_facts_of = attrgetter(*_FACTS)
_personal_of = attrgetter(*_PERSONAL)


@frozen
class Seal:
    """A link of a day's chain: rows of one tenant ("" for nobody's) that came in together, in this order.

    `ids` are empty where its rows were removed on purpose, `salt` is None where what is personal in them was.
    `sealed_at` is seconds since the epoch, by the database's clock.
    """

    day: int
    seq: int
    tenant_id: str
    sealed_at: float
    row_count: int
    ids: tuple[str, ...]
    proofs: bytes
    salt: bytes | None
    digest: bytes
    mac: bytes


@frozen
class Removal:
    """What was removed on purpose.

    `purge`: what is personal of a tenant, of rows sealed until `at`; `retention`: its rows of days before
    `before_day`; `days`: all rows of these days, and their seals.
    """

    kind: str
    tenant_id: str
    before_day: int
    at: float


class Chain:
    """Proofs and links under one secret."""

    def __init__(self, secret: bytes) -> None:
        self._mac = Mac(Mac(secret).of(b"neuronetz-gateway: audit chain"))

    def proofs_of(self, row: AuditRow, salt: bytes) -> bytes:
        """Of its facts, and of what is personal in it: PROOF_BYTES each."""
        return self.proof_of_facts(row) + self.proof_of_personal(row, salt)

    def proof_of_facts(self, row: AuditRow) -> bytes:
        return self._proof(b"facts", _told(_FACTS, _facts_of(row)))

    def proof_of_personal(self, row: AuditRow, salt: bytes) -> bytes:
        told = _told(_PERSONAL, _personal_of(row))
        return self._proof(b"personal", salt + row.request_id.encode() + told)

    def seal(
        self,
        previous: bytes,
        *,
        day: int,
        seq: int,
        tenant_id: str,
        sealed_at: float,
        ids: tuple[str, ...],
        proofs: bytes,
        salt: bytes,
    ) -> Seal:
        """The seal of rows with these `proofs_of` them, behind the one whose mac is `previous`."""
        digest = digest_of(ids, proofs)
        made = Seal(day, seq, tenant_id, sealed_at, len(ids), ids, proofs, salt, digest, b"")
        return self._closed(previous, made)

    def register(self, previous: bytes, *, seq: int, sealed_at: float, day: int) -> Seal:
        """The seal that says that a day was begun."""
        ids = (str(day),)
        made = Seal(REGISTER, seq, "", sealed_at, 0, ids, b"", None, digest_of(ids, b""), b"")
        return self._closed(previous, made)

    def mac_of(self, previous: bytes, seal: Seal) -> bytes:
        """What the mac has to be: of all but the salt, which may go, and ids and proofs by their digest."""
        told = struct.pack(">qqdq", seal.day, seal.seq, seal.sealed_at, seal.row_count)
        parts = (b"seal", previous, told, seal.tenant_id.encode(), seal.digest)
        return self._mac.of(b"".join(map(_framed, parts)))

    def proof_of_head(self, day: int, seq: int, mac: bytes) -> bytes:
        """That a day's chain ends there."""
        return self._mac.of(b"head" + struct.pack(">qq", day, seq) + mac)

    def proof_of_removal(self, removal: Removal) -> bytes:
        """That somebody who has the secret removed it."""
        told = struct.pack(">qd", removal.before_day, removal.at)
        parts = (b"removal", removal.kind.encode(), removal.tenant_id.encode(), told)
        return self._mac.of(b"".join(map(_framed, parts)))

    def _closed(self, previous: bytes, seal: Seal) -> Seal:
        return evolve(seal, mac=self.mac_of(previous, seal))

    def _proof(self, kind: bytes, told: bytes) -> bytes:
        return self._mac.of(kind + told)[:PROOF_BYTES]


def digest_of(ids: Sequence[str], proofs: bytes) -> bytes:
    return hashlib.sha256(_framed(" ".join(ids).encode()) + proofs).digest()


def day_of(row: AuditRow) -> int:
    """In UTC, counted from 1970."""
    return row.received_at_us // DAY_US


def is_emptied(row: AuditRow) -> bool:
    """Nothing personal is in it, as after a purge."""
    return not row.peer and row.user_agent is None and row.client_request_id is None


def _told(names: Sequence[str], values: Sequence[Any]) -> bytes:
    """Names and values of what is known, alike before and after a database had it.

    A field that a later version adds changes nothing for rows that do not have it. NaN is NULL to SQLite. A
    whole number of milliseconds comes back as a float, and minus zero as zero.
    """
    return orjson.dumps(
        [
            (name, float(value) + 0.0 if name in _MILLISECONDS else value)
            for name, value in zip(names, values, strict=True)
            if value is not None and value == value  # noqa: PLR0124
        ]
    )


def _framed(part: bytes) -> bytes:
    """No part can pass for the end of one and the beginning of the next."""
    return len(part).to_bytes(4, "big") + part
