"""The ledger in the database: the adapter behind `ports.LedgerStore`.

The law: `sums` is at every moment what `ledger` adds up to. Both change in one transaction, by the exact
difference between the entry that was kept before and the one that is kept now; so the same batch twice,
or batches in any order, end in the same numbers.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC
from typing import Any, Final, NamedTuple

from attrs import fields, frozen

from gateway.accounting import Evidence, LedgerEntry, Scope, Sum
from gateway.rules.usage import TOKENS, bucket_of_entry, counts_of_entry, hour_of
from gateway.storage.database import Database, Row, Session, Values
from gateway.storage.turns import in_turns
from gateway.storage.usage import Added, Zones, add, count, lock_of

TOTAL: Final = "total"
_RANK: Final = {evidence: evidence.rank for evidence in Evidence}
COLUMNS: Final = tuple(field.name for field in fields(LedgerEntry))
# What is kept with an entry and is none of its own.
_ASIDE: Final = ("rank", "usage_hour")
NOT_COUNTED: Final = -1
"""As its `usage_hour`: nothing is added to the usage for it yet."""
# The names come from our own class.
_SELECT: Final = " ".join(("SELECT", ", ".join(COLUMNS), "FROM ledger WHERE "))
_THESE: Final = _SELECT.replace(" FROM", ", usage_hour FROM") + "reservation_id IN EACH(:ids)"
_OPEN: Final = _SELECT + "tenant_id = :tenant_id AND evidence = 'intent' ORDER BY reservation_id"
_ONE: Final = _SELECT + "reservation_id = :reservation_id"
_KEEP: Final = " ".join(
    (
        "INSERT INTO ledger",
        f"({', '.join((*COLUMNS, *_ASIDE))})",
        f"VALUES EACH ({', '.join(f':{name}' for name in (*COLUMNS, *_ASIDE))})",
        "ON CONFLICT (reservation_id) DO UPDATE SET",
        ", ".join(f"{name} = excluded.{name}" for name in (*COLUMNS[1:], *_ASIDE)),
        "WHERE excluded.rank > ledger.rank",
    )
)
_ADD: Final = """
    INSERT INTO sums (tenant_id, period, scope, owner, spent, reserved)
    VALUES (:tenant_id, :period, :scope, :owner, :spent, :reserved)
    ON CONFLICT (tenant_id, period, scope, owner)
    DO UPDATE SET spent = sums.spent + excluded.spent, reserved = sums.reserved + excluded.reserved
"""
_SUMS: Final = """
    SELECT scope, owner, period, spent, reserved FROM sums
    WHERE tenant_id = :tenant_id AND period IN EACH(:periods)
    ORDER BY period, scope, owner
"""
_OF_TENANTS: Final = """
    SELECT scope, owner, period, spent, reserved FROM sums
    WHERE tenant_id IN EACH(:tenant_ids) AND period IN EACH(:periods)
        AND scope = 'tenant' AND owner = tenant_id
    ORDER BY owner, period
"""
# One statement, so that it sees one moment. The ledger is read once; what it adds up to is small.
_VERIFY: Final = """
    WITH added (tenant_id, key_id, day, month, spent, reserved) AS (
        SELECT tenant_id, key_id, day, month,
            CAST(sum(CASE evidence WHEN 'intent' THEN 0 ELSE tokens END) AS BIGINT),
            CAST(sum(CASE evidence WHEN 'intent' THEN reserved ELSE 0 END) AS BIGINT)
        FROM ledger GROUP BY tenant_id, key_id, day, month
    ),
    periods (tenant_id, key_id, period, spent, reserved) AS (
        SELECT tenant_id, key_id, day, spent, reserved FROM added
        UNION ALL SELECT tenant_id, key_id, month, spent, reserved FROM added
        UNION ALL SELECT tenant_id, key_id, 'total', spent, reserved FROM added
    ),
    compared (tenant_id, scope, owner, period, spent, reserved, true_spent, true_reserved) AS (
        SELECT tenant_id, scope, owner, period, spent, reserved, 0, 0 FROM sums
        UNION ALL SELECT tenant_id, 'tenant', tenant_id, period, 0, 0, spent, reserved FROM periods
        UNION ALL SELECT tenant_id, 'key', key_id, period, 0, 0, spent, reserved FROM periods
    )
    SELECT scope, owner, period, CAST(sum(spent) AS BIGINT), CAST(sum(reserved) AS BIGINT),
        CAST(sum(true_spent) AS BIGINT), CAST(sum(true_reserved) AS BIGINT)
    FROM compared
    GROUP BY tenant_id, scope, owner, period
    HAVING sum(spent) <> sum(true_spent) OR sum(reserved) <> sum(true_reserved)
    ORDER BY scope, owner, period
"""


# Tokens of the usage by hour, and of the ledger, by all that both know of them. What waits to be counted
# is in neither.
_VERIFY_USAGE: Final = """
    WITH compared (tenant_id, key_id, model, backend, tokens, prompt_tokens, completion_tokens,
        true_tokens, true_prompt_tokens, true_completion_tokens) AS (
        SELECT tenant_id, key_id, model, backend, tokens, prompt_tokens, completion_tokens, 0, 0, 0
        FROM usage_hours
        UNION ALL
        SELECT tenant_id, key_id, model, backend, 0, 0, 0, tokens, prompt_tokens, completion_tokens
        FROM ledger WHERE evidence <> 'intent' AND usage_hour <> -1
    )
    SELECT tenant_id, key_id, model, backend,
        CAST(sum(tokens) AS BIGINT), CAST(sum(prompt_tokens) AS BIGINT),
        CAST(sum(completion_tokens) AS BIGINT), CAST(sum(true_tokens) AS BIGINT),
        CAST(sum(true_prompt_tokens) AS BIGINT), CAST(sum(true_completion_tokens) AS BIGINT)
    FROM compared
    GROUP BY tenant_id, key_id, model, backend
    HAVING sum(tokens) <> sum(true_tokens) OR sum(prompt_tokens) <> sum(true_prompt_tokens)
        OR sum(completion_tokens) <> sum(true_completion_tokens)
    ORDER BY tenant_id, key_id, model, backend
"""


@frozen
class Difference:
    """A sum that is not what the ledger adds up to."""

    kept: Sum
    by_ledger: Sum


@frozen
class UsageDifference:
    """Tokens of the usage by hour that are not what the ledger adds up to, by their names in it."""

    tenant_id: str
    key_id: str
    model: str
    backend: str
    kept: dict[str, int]
    by_ledger: dict[str, int]


class _Account(NamedTuple):
    """Whose sum of what."""

    tenant_id: str
    period: str
    scope: Scope
    owner: str


# Tenant, key, day and month: entries that have these in common are charged to the same accounts.
_Charged = tuple[str, str, str, str]


class Ledger:
    """All raise StoreUnavailable when the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def write(self, entries: Sequence[LedgerEntry]) -> None:
        """Keep all entries, or none: then it raises StoreUnavailable, or Unstorable.

        In any order, and as often as you like: of each reservation the entry with the highest rank stays,
        of two with the same rank the first.
        """
        best = await _best(entries)
        # Other gateways' entries of the same tenants add to the same sums.
        tenants = {entry.tenant_id for entry in best.values()}
        async with self._database.transaction(*map(lock_of, tenants)) as connection:
            await _keep(connection, best)

    async def sums(self, tenant_id: str, periods: Sequence[str]) -> list[Sum]:
        """What the tenant and its keys have spent and reserved; owners without any are not in it."""
        return [_sum(row) for row in await self._fetch(_SUMS, _periods_of(tenant_id, periods))]

    async def sums_of(self, tenant_ids: Sequence[str], periods: Sequence[str]) -> list[Sum]:
        """What these tenants as a whole have spent and reserved; those without any are not in it."""
        asked = {"tenant_ids": list(tenant_ids), "periods": list(periods)}
        return [_sum(row) for row in await self._fetch(_OF_TENANTS, asked)]

    async def open_intents(self, tenant_id: str) -> list[LedgerEntry]:
        """Reservations of which nothing better is known than that they were made, the oldest first."""
        return [entry_of(row) for row in await self._fetch(_OPEN, {"tenant_id": tenant_id})]

    async def snapshot(self, tenant_id: str, periods: Sequence[str]) -> tuple[list[Sum], list[LedgerEntry]]:
        """`sums` and `open_intents` of one moment: nothing is in both, and nothing in neither."""
        async with self._database.snapshot() as connection:
            sums = await connection.fetch_all(_SUMS, _periods_of(tenant_id, periods))
            intents = await connection.fetch_all(_OPEN, {"tenant_id": tenant_id})
        return [_sum(row) for row in sums], [entry_of(row) for row in intents]

    async def entry(self, reservation_id: str) -> LedgerEntry | None:
        """What one reservation has cost, by the best evidence so far."""
        rows = await self._fetch(_ONE, {"reservation_id": reservation_id})
        return entry_of(rows[0]) if rows else None

    async def verify(self) -> list[Difference]:
        """Add the whole ledger up again, and tell where `sums` says something else. Reads every row."""
        async with self._database.snapshot(patient=True) as connection:
            rows = await connection.fetch_all(_VERIFY)
        return [Difference(_sum(row[:5]), by_ledger=_sum((*row[:3], *row[5:]))) for row in rows]

    async def verify_usage(self) -> list[UsageDifference]:
        """Add the whole ledger up again, and tell where the usage by hour says something else."""
        async with self._database.snapshot(patient=True) as connection:
            rows = await connection.fetch_all(_VERIFY_USAGE)
        return [
            UsageDifference(
                tenant_id=row[0],
                key_id=row[1],
                model=row[2],
                backend=row[3],
                kept=dict(zip(TOKENS, row[4:7], strict=True)),
                by_ledger=dict(zip(TOKENS, row[7:], strict=True)),
            )
            for row in rows
        ]

    async def _fetch(self, statement: str, values: Values) -> Sequence[Row]:
        async with self._database.session() as connection:
            return await connection.fetch_all(statement, values)


def _periods_of(tenant_id: str, periods: Sequence[str]) -> dict[str, Any]:
    return {"tenant_id": tenant_id, "periods": list(periods)}


async def _best(entries: Iterable[LedgerEntry]) -> dict[str, LedgerEntry]:
    """Of each reservation the entry with the highest rank."""
    best: dict[str, LedgerEntry] = {}
    async for entry in in_turns(entries):
        if _is_better(entry, best.get(entry.reservation_id)):
            best[entry.reservation_id] = entry
    return best


async def _keep(connection: Session, best: dict[str, LedgerEntry]) -> None:
    rows = await connection.fetch_all(_THESE, {"ids": list(best)})
    before = {row["reservation_id"]: entry_of(row[:-1]) async for row in in_turns(rows)}
    better = [
        entry
        async for entry in in_turns(best.values())
        if _is_better(entry, before.get(entry.reservation_id))
    ]
    replaced = [before[entry.reservation_id] for entry in better if entry.reservation_id in before]
    differences = [
        {**account._asdict(), "spent": spent, "reserved": reserved}
        for account, (spent, reserved) in _differences(better, replaced).items()
    ]
    hours = {row["reservation_id"]: int(row["usage_hour"]) for row in rows}
    hours = await _count_usage(connection, better, before, hours)
    kept = [
        {
            **vars(entry),
            "rank": _RANK[entry.evidence],
            "usage_hour": hours[entry.reservation_id],
        }
        async for entry in in_turns(better)
    ]
    await connection.execute_many(_KEEP, kept)
    await connection.execute_many(_ADD, differences)


async def _count_usage(
    connection: Session,
    better: Sequence[LedgerEntry],
    before: Mapping[str, LedgerEntry],
    known_hours: Mapping[str, int],
) -> dict[str, int]:
    """Add what entries cost to the usage, less what those cost that they replace: the hour of each.

    An entry stays in the hour that it was first counted in, whatever becomes of its tenant's time zone. What
    is not counted (it still ran, or a gateway that knows no usage wrote it) is replaced by the whole cost.
    """
    zones = await Zones.read(connection, {entry.tenant_id for entry in better})
    added: Added = defaultdict(Counter)
    hours: dict[str, int] = {}
    async for entry in in_turns(better):
        known = known_hours.get(entry.reservation_id, NOT_COUNTED)
        if entry.evidence is Evidence.INTENT:
            hours[entry.reservation_id] = NOT_COUNTED
            continue
        is_counted = known != NOT_COUNTED
        zone = UTC if is_counted else zones.of(entry.tenant_id)
        hour = known if is_counted and known else hour_of(entry.admitted_at, zone)
        hours[entry.reservation_id] = hour
        count(added, bucket_of_entry(entry, hour), counts_of_entry(entry))
        if is_counted:
            replaced = before[entry.reservation_id]
            count(added, bucket_of_entry(replaced, hour), counts_of_entry(replaced), -1)
    await add(connection, added)
    return hours


def _is_better(entry: LedgerEntry, before: LedgerEntry | None) -> bool:
    return before is None or _RANK[entry.evidence] > _RANK[before.evidence]


def _differences(
    better: Iterable[LedgerEntry], replaced: Iterable[LedgerEntry]
) -> dict[_Account, tuple[int, int]]:
    """By how much what is spent and what is reserved change: an intent is reserved, all else is spent."""
    spent: Counter[_Charged] = Counter()
    reserved: Counter[_Charged] = Counter()
    for sign, entries in ((1, better), (-1, replaced)):
        for entry in entries:
            charged = entry.tenant_id, entry.key_id, entry.day, entry.month
            if entry.evidence is Evidence.INTENT:
                reserved[charged] += sign * entry.reserved
            else:
                spent[charged] += sign * entry.tokens
    found: dict[_Account, tuple[int, int]] = {}
    for charged in spent.keys() | reserved.keys():
        for account in _accounts(*charged):
            before = found.get(account, (0, 0))
            found[account] = before[0] + spent[charged], before[1] + reserved[charged]
    return found


def _accounts(tenant_id: str, key_id: str, day: str, month: str) -> Iterator[_Account]:
    for period in (day, month, TOTAL):
        yield _Account(tenant_id, period, Scope.TENANT, tenant_id)
        yield _Account(tenant_id, period, Scope.KEY, key_id)


def _sum(row: Row) -> Sum:
    scope, owner, period, spent, reserved = row
    return Sum(Scope(scope), owner, period, spent, reserved)


def entry_of(row: Row) -> LedgerEntry:
    """The entry whose COLUMNS were read."""
    values = dict(zip(COLUMNS, row, strict=True))
    values["estimated"], values["evidence"] = bool(values["estimated"]), Evidence(values["evidence"])
    return LedgerEntry(**values)
