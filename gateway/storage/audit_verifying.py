"""Whether the audit log is what was written: its chain is walked from the first link, each row is proven."""

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any, Final
from zlib import crc32

from attrs import define, field, frozen

from gateway.model import AuditRow
from gateway.rules.audit_chain import (
    DAY_US,
    NOTHING,
    PROOF_BYTES,
    REGISTER,
    Chain,
    Seal,
    digest_of,
    is_emptied,
)
from gateway.storage.audit_reading import COLUMNS, row_read
from gateway.storage.audit_removals import Removals
from gateway.storage.database import Database, Row, Session

_PAGE_SEALS: Final = 500
_PAGE_ROWS: Final = 2_000
_MOST_IDS: Final = 500_000
# Of one day so many are told; how many there are, in any case.
_MOST_TOLD: Final = 100
_ADDED: Final = "was added, or written by a gateway of an older version"
_SEALS: Final = """
    SELECT day, seq, tenant_id, sealed_at, row_count, ids, proofs, salt, digest, mac FROM audit_seals
    WHERE day = :day AND seq > :after ORDER BY seq LIMIT :page
"""
_HEAD: Final = "SELECT seq, mac, proof FROM audit_heads WHERE day = :day"
_DAYS: Final = "SELECT DISTINCT day FROM audit_seals WHERE day > :register"
_ROWS: Final = " ".join(("SELECT", ", ".join(COLUMNS), "FROM audit WHERE request_id IN EACH(:ids)"))
_ANY: Final = "SELECT request_id FROM audit LIMIT 1"
_COUNT: Final = "SELECT count(*) FROM audit WHERE received_at_us >= :since AND received_at_us < :until"
_IDS: Final = """
    SELECT request_id, received_at_us FROM audit
    WHERE received_at_us >= :since AND received_at_us < :until
        AND (received_at_us > :since OR request_id > :after)
    ORDER BY received_at_us, request_id LIMIT :page
"""


@frozen
class Fault:
    """Something that nobody who has the secret did. `what` is told of the row, or of the chain at `seq`."""

    what: str
    request_id: str | None = None
    seq: int | None = None


@define
class Day:
    """How it is with a day's rows; `unsealed` are those from before there were seals."""

    day: int
    rows: int = 0
    seals: int = 0
    purged: int = 0
    expired: int = 0
    unsealed: int = 0
    fault_count: int = 0
    faults: list[Fault] = field(factory=list)

    def fault(self, what: str, request_id: str | None = None, seq: int | None = None) -> None:
        self.fault_count += 1
        if len(self.faults) < _MOST_TOLD:
            self.faults.append(Fault(what, request_id, seq))


@frozen
class Head:
    """Where a day's chain ends: kept elsewhere, it tells later whether that was taken away."""

    day: int
    seq: int
    mac: bytes


@define
class _Walk:
    """How far a day's chain was followed."""

    told: Day
    mac: bytes
    seq: int = 0


@frozen
class _Register:
    """Which days were begun and are not gone, with what their chains begin with; and since when."""

    begun: dict[int, bytes]
    since_us: int | None


class Verifying:
    """Reads each day at one moment; gateways may write meanwhile. All raise StoreUnavailable."""

    def __init__(
        self,
        database: Database,
        chain: Chain,
        anchors: Iterable[Head] = (),
        on_rows: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._database = database
        self._chain = chain
        self._on_rows = on_rows
        self._anchors = list(anchors)
        self.heads: list[Head] = []
        """Of the chains that were walked."""

    async def days(self, only: int | None = None) -> AsyncIterator[Day]:
        """How it is with the register (as day -1) and with each day; or with it and `only` that one."""
        async with self._database.snapshot(patient=True) as connection:
            told, register = await self._register(connection)
        yield told
        if only is not None:
            yield await self._alone(only, register)
            return
        last = REGISTER
        for day in sorted(register.begun):
            if (found := await self._unsealed_between(last, day, register)) is not None:
                yield found
            async with self._database.snapshot(patient=True) as connection:
                yield await self._day(connection, day, register)
            last = day
        if (found := await self._unsealed_between(last, None, register)) is not None:
            yield found

    async def _alone(self, day: int, register: _Register) -> Day:
        if day not in register.begun:
            return await self._unsealed_between(day - 1, day + 1, register) or Day(day)
        async with self._database.snapshot(patient=True) as connection:
            return await self._day(connection, day, register)

    async def _register(self, connection: Session) -> tuple[Day, _Register]:
        removals = await Removals.read(connection, self._chain)
        walk = _Walk(Day(REGISTER), NOTHING)
        begun: dict[int, bytes] = {}
        since_us: int | None = None
        async for seal in _seals(connection, REGISTER):
            self._follow(walk, seal)
            since_us = int(seal.sealed_at * 1e6) if since_us is None else since_us
            day = _day_in(seal)
            if day is not None and day >= removals.gone_before:
                begun[day] = seal.mac
        await self._end(connection, walk)
        for removal in removals.forged:
            walk.told.fault(f"the note of what was removed ({removal.kind}) was not made with the secret")
        if since_us is None and await connection.fetch_one(_ANY) is not None:
            walk.told.fault("there are rows, and no seals: nothing can be verified")
        there = {int(row["day"]) for row in await connection.fetch_all(_DAYS, {"register": REGISTER})}
        for day in sorted(there - set(begun)):
            if day >= removals.gone_before:
                walk.told.fault(f"there are seals of a day that was never begun, {day}")
        return walk.told, _Register(begun, since_us)

    async def _day(self, connection: Session, day: int, register: _Register) -> Day:
        removals = await Removals.read(connection, self._chain)
        walk = _Walk(Day(day), register.begun[day])
        if day < removals.gone_before:
            return walk.told  # it went while others were looked at
        page: list[Seal] = []
        async for seal in _seals(connection, day):
            self._follow(walk, seal)
            page.append(seal)
            if sum(one.row_count for one in page) >= _PAGE_ROWS:
                await self._prove(connection, page, walk.told, removals)
                page = []
        await self._prove(connection, page, walk.told, removals)
        await self._end(connection, walk)
        await _look_for_unsealed(connection, walk.told, register)
        return walk.told

    def _follow(self, walk: _Walk, seal: Seal) -> None:
        """One link further. Behind a broken one, links are taken as they are: one fault is told once."""
        told = walk.told
        told.seals += 1
        if seal.seq != walk.seq + 1:
            told.fault("seals are missing before this one", seq=seal.seq)
        elif self._chain.mac_of(walk.mac, seal) != seal.mac:
            told.fault("the seal was changed, or does not follow the one before it", seq=seal.seq)
        elif seal.ids and digest_of(seal.ids, seal.proofs) != seal.digest:
            told.fault("the seal was changed", seq=seal.seq)
        walk.seq, walk.mac = seal.seq, seal.mac

    async def _end(self, connection: Session, walk: _Walk) -> None:
        """Whether the chain ends where its head says, and still has what was its end once."""
        told = walk.told
        row = await connection.fetch_one(_HEAD, {"day": told.day})
        if row is not None:
            head = Head(told.day, int(row["seq"]), bytes(row["mac"]))
            self.heads.append(head)
            if self._chain.proof_of_head(head.day, head.seq, head.mac) != bytes(row["proof"]):
                told.fault("the end of the chain was changed")
            elif (head.seq, head.mac) != (walk.seq, walk.mac):
                told.fault("the last seals are missing", seq=walk.seq)
        elif told.day != REGISTER or walk.seq:
            told.fault("the end of the chain is missing")
        for anchor in self._anchors:
            if anchor.day == told.day and not await _has(connection, anchor):
                told.fault("the chain is not the one that was anchored", seq=anchor.seq)

    async def _prove(self, connection: Session, seals: Sequence[Seal], told: Day, removals: Removals) -> None:
        ids = [id_ for seal in seals for id_ in seal.ids]
        found = await connection.fetch_all(_ROWS, {"ids": ids}) if ids else ()
        rows = {row.request_id: row for row in map(row_read, found)}
        for seal in seals:
            self._prove_seal(seal, rows, told, removals)
        self._on_rows(len(rows))

    def _prove_seal(self, seal: Seal, rows: dict[str, AuditRow], told: Day, removals: Removals) -> None:
        has_expired = removals.has_expired(seal.tenant_id, seal.day)
        if not seal.ids:
            told.expired += seal.row_count
            if not has_expired:
                told.fault("a seal was emptied before the time of its rows", seq=seal.seq)
        for number, id_ in enumerate(seal.ids):
            row = rows.get(id_)
            if row is not None:
                told.rows += 1
                proofs = seal.proofs[2 * number * PROOF_BYTES : 2 * (number + 1) * PROOF_BYTES]
                self._prove_row(seal, row, proofs, told, removals)
            elif has_expired:
                told.expired += 1
            else:
                told.fault("was deleted", id_, seal.seq)

    def _prove_row(self, seal: Seal, row: AuditRow, proofs: bytes, told: Day, removals: Removals) -> None:
        facts, personal = proofs[:PROOF_BYTES], proofs[PROOF_BYTES:]
        if self._chain.proof_of_facts(row) != facts:
            told.fault("was changed", row.request_id, seal.seq)
        elif is_emptied(row) and removals.is_purged(seal.tenant_id, seal.sealed_at):
            told.purged += 1
        elif seal.salt is None or self._chain.proof_of_personal(row, seal.salt) != personal:
            told.fault("was changed in what is personal", row.request_id, seal.seq)

    async def _unsealed_between(self, after: int, before: int | None, register: _Register) -> Day | None:
        """The first row of days that were never begun, where there is one that should have been sealed."""
        if register.since_us is None:
            return None
        async with self._database.snapshot(patient=True) as connection:
            # Of days that are gone there may still be rows: of one that is being removed, or that came late.
            gone_before = (await Removals.read(connection, self._chain)).gone_before
            values = {
                "since": max(max(after + 1, gone_before) * DAY_US, register.since_us),
                "until": 2**63 - 1 if before is None else before * DAY_US,
                "after": "",
                "page": 1,
            }
            found = await connection.fetch_one(_IDS, values)
        if found is None:
            return None
        told = Day(int(found["received_at_us"]) // DAY_US)
        told.fault(_ADDED, found["request_id"])
        return told


async def _look_for_unsealed(connection: Session, told: Day, register: _Register) -> None:
    """Rows that are in no seal. They are searched for only where there are more rows than were sealed."""
    since, until = told.day * DAY_US, (told.day + 1) * DAY_US
    count = int(await connection.fetch_val(_COUNT, {"since": since, "until": until}))
    if count == told.rows:
        return
    # In as many turns as keep what memory holds of a day's ids within bounds.
    turns = 1 + max(count, told.rows) // _MOST_IDS
    for turn in range(turns):
        sealed: set[str] = set()
        async for seal in _seals(connection, told.day):
            sealed.update(id_ for id_ in seal.ids if crc32(id_.encode()) % turns == turn)
        async for id_, received_at_us in _ids(connection, since, until):
            if crc32(id_.encode()) % turns != turn or id_ in sealed:
                continue
            if register.since_us is None or received_at_us < register.since_us:
                told.unsealed += 1
            else:
                told.fault(_ADDED, id_)


async def _ids(connection: Session, since_us: int, until_us: int) -> AsyncIterator[tuple[str, int]]:
    after = ""
    while True:
        values = {"since": since_us, "until": until_us, "after": after, "page": _PAGE_ROWS}
        rows = await connection.fetch_all(_IDS, values)
        if not rows:
            return
        for row in rows:
            yield row["request_id"], int(row["received_at_us"])
        since_us, after = rows[-1]["received_at_us"], rows[-1]["request_id"]


async def _seals(connection: Session, day: int) -> AsyncIterator[Seal]:
    """A day's chain, from its first link."""
    after = 0
    while True:
        rows = await connection.fetch_all(_SEALS, {"day": day, "after": after, "page": _PAGE_SEALS})
        if not rows:
            return
        for row in rows:
            yield _seal(row)
        after = int(rows[-1]["seq"])


async def _has(connection: Session, anchor: Head) -> bool:
    if anchor.seq == 0:
        return True
    values = {"day": anchor.day, "after": anchor.seq - 1, "page": 1}
    row = await connection.fetch_one(_SEALS, values)
    return row is not None and (int(row["seq"]), bytes(row["mac"])) == (anchor.seq, anchor.mac)


def _day_in(seal: Seal) -> int | None:
    """Which day a seal of the register says was begun."""
    try:
        return int(seal.ids[0])
    except (IndexError, ValueError):
        return None


def _seal(row: Row) -> Seal:
    ids: Any = row["ids"]
    return Seal(
        int(row["day"]),
        int(row["seq"]),
        row["tenant_id"],
        float(row["sealed_at"]),
        int(row["row_count"]),
        tuple(ids.split(" ")) if ids else (),
        bytes(row["proofs"]),
        None if row["salt"] is None else bytes(row["salt"]),
        bytes(row["digest"]),
        bytes(row["mac"]),
    )
