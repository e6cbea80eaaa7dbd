"""The ledger in the database: of each reservation the best evidence, and sums that are always exact."""

import os
import random
import shutil
from collections import Counter

import pytest
from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.accounting import MAX_TOKENS, Evidence, LedgerEntry, Scope, Sum
from gateway.errors import StoreUnavailable, Unstorable
from gateway.storage.engines import database_at
from gateway.storage.ledger import Difference, Ledger
from gateway.storage.quarantine import Quarantine
from tests.storage.plans import index_of
from tests.storage.samples import intent, settled

PERIODS = ("2026-11-23", "2026-11", "total")


@pytest.fixture
def ledger(database):
    return Ledger(database)


def sums(spent: int, reserved: int, owner: str = "t1", scope: Scope = Scope.TENANT) -> list[Sum]:
    return [Sum(scope, owner, period, spent, reserved) for period in sorted(PERIODS)]


async def of_tenant(ledger: Ledger, tenant_id: str = "t1") -> list[Sum]:
    return [one for one in await ledger.sums(tenant_id, PERIODS) if one.scope is Scope.TENANT]


# ── one reservation ──────────────────────────────────────────────────────────────────────


async def test_an_intent_is_reserved_until_it_is_settled(ledger):
    """Then what it costs is spent, for the tenant and for the key, in all three periods."""
    await ledger.write([intent("r1", reserved=100)])
    running = await ledger.sums("t1", PERIODS)
    await ledger.write([settled("r1", tokens=30)])

    assert sorted(running, key=repr) == sorted(sums(0, 100) + sums(0, 100, "k1", Scope.KEY), key=repr)
    assert await of_tenant(ledger) == sums(30, 0)


async def test_sums_of_tenants_are_told_together(ledger):
    """Of each as a whole, in the periods that are asked for."""
    await ledger.write([intent("r1", reserved=100), settled("r2", tokens=30)])

    told = await ledger.sums_of(["t1", "gone"], ["total", "2026-11-23"])

    assert told == [Sum(Scope.TENANT, "t1", period, 30, 100) for period in ("2026-11-23", "total")]
    assert await ledger.sums_of([], ["total"]) == []


async def test_an_entry_is_kept_whole(ledger):
    """Every field under its own name."""
    entry = LedgerEntry("r1", "t1", "k1", "m", 1.5, "d", "mo", 9, 8, 7, 6, True, Evidence.EXPIRED)

    await ledger.write([entry])

    assert await ledger.entry("r1") == entry
    assert await ledger.entry("r2") is None


@pytest.mark.parametrize("first", Evidence)
@pytest.mark.parametrize("second", Evidence)
async def test_only_better_evidence_replaces(ledger, first, second):
    """settled > recovered > expired > intent; of two alike the first stays (E22: charged once)."""
    one, other = (
        evolve(settled("r1", tokens=10), evidence=first),
        evolve(settled("r1", tokens=20), evidence=second),
    )

    await ledger.write([one])
    await ledger.write([other])

    assert await ledger.entry("r1") == (other if second.rank > first.rank else one)


async def test_a_request_is_charged_to_the_periods_it_was_admitted_in(ledger):
    """E16: settled after midnight, it still costs yesterday's budget; today's sums are not even made."""
    await ledger.write([evolve(settled("r1", tokens=30), day="2026-11-22")])

    assert [(one.period, one.spent) for one in await of_tenant(ledger)] == [("2026-11", 30), ("total", 30)]


async def test_open_intents_are_those_of_the_tenant_that_have_no_end(ledger):
    """What counters are rebuilt from, the oldest first."""
    others = evolve(intent("r4"), tenant_id="t2")
    await ledger.write([intent("r3"), others, intent("r1"), intent("r2")])
    await ledger.write([settled("r1")])

    assert await ledger.open_intents("t1") == [intent("r2"), intent("r3")]
    assert await ledger.snapshot("t1", ["total"]) == (
        await ledger.sums("t1", ["total"]),
        [intent("r2"), intent("r3")],
    )


# ── batches ──────────────────────────────────────────────────────────────────────────────


@st.composite
def batches(draw: st.DrawFn) -> list[list[LedgerEntry]]:
    """Entries of a few reservations, one of each evidence at the most, in any order and cut, some twice."""
    entries = []
    for number in range(draw(st.integers(1, 5))):
        owner = draw(st.sampled_from(["a", "b"]))
        for evidence in draw(st.sets(st.sampled_from(list(Evidence)), min_size=1)):
            tokens = draw(st.integers(0, 1000))
            entry = settled(f"r{number}", tokens=tokens, reserved=1000)
            entries.append(evolve(entry, evidence=evidence, tenant_id=f"t{owner}", key_id=f"k{owner}"))
    again = draw(st.lists(st.sampled_from(entries)))
    order = draw(st.permutations(entries + again))
    cuts = sorted(draw(st.sets(st.integers(0, len(order)))))
    return [order[start:end] for start, end in zip([0, *cuts], [*cuts, len(order)], strict=True)]


def expected(entries: list[LedgerEntry]) -> Counter[tuple[str, str]]:
    """The reference: the best evidence of each reservation, added up."""
    best: dict[str, LedgerEntry] = {}
    for entry in sorted(entries, key=lambda one: one.evidence.rank):
        best[entry.reservation_id] = entry
    added: Counter[tuple[str, str]] = Counter()
    for entry in best.values():
        is_open = entry.evidence is Evidence.INTENT
        added[entry.tenant_id, "reserved" if is_open else "spent"] += (
            entry.reserved if is_open else entry.tokens
        )
    return +added


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(batches=batches())
async def test_batches_in_any_order_and_twice_end_in_the_same_sums(database, batches):
    """Replays, retries and several drainers at once change nothing: the law of the ledger."""
    ledger = Ledger(database)
    async with database.transaction() as connection:
        await connection.execute("DELETE FROM ledger")
        await connection.execute("DELETE FROM sums")

    for batch in batches:
        await ledger.write(batch)

    kept: Counter[tuple[str, str]] = Counter()
    for tenant_id in ("ta", "tb"):
        for one in await ledger.sums(tenant_id, ["total"]):
            if one.scope is Scope.TENANT:
                kept += Counter({(tenant_id, "spent"): one.spent, (tenant_id, "reserved"): one.reserved})
    assert kept == expected([entry for batch in batches for entry in batch])
    assert await ledger.verify() == []


async def test_an_entry_that_can_not_be_stored_keeps_the_whole_batch_out(ledger):
    """All or none; the drainer then finds out which one it is."""
    for tokens in (-1, MAX_TOKENS + 1, 10**30):
        with pytest.raises(Unstorable):
            await ledger.write([settled("r1"), settled("r2", tokens=tokens)])

    assert await ledger.entry("r1") is None
    assert await of_tenant(ledger) == []


async def test_nothing_to_write_is_fine(ledger):
    await ledger.write([])

    assert await ledger.verify() == []


# ── verifying ────────────────────────────────────────────────────────────────────────────


async def test_a_sum_that_is_not_what_the_ledger_adds_up_to_is_told(ledger, database):
    """Changed, missing and invented ones, with both numbers."""
    await ledger.write([settled("r1", tokens=30), intent("r2", reserved=5)])
    async with database.transaction() as connection:
        await connection.execute("UPDATE sums SET spent = 31 WHERE scope = 'tenant' AND period = 'total'")
        await connection.execute("DELETE FROM sums WHERE scope = 'key' AND period = '2026-11'")
        await connection.execute("INSERT INTO sums VALUES ('t9', 'total', 'tenant', 't9', 0, 1)")

    assert await ledger.verify() == [
        Difference(Sum(Scope.KEY, "k1", "2026-11", 0, 0), Sum(Scope.KEY, "k1", "2026-11", 30, 5)),
        Difference(Sum(Scope.TENANT, "t1", "total", 31, 5), Sum(Scope.TENANT, "t1", "total", 30, 5)),
        Difference(Sum(Scope.TENANT, "t9", "total", 0, 1), Sum(Scope.TENANT, "t9", "total", 0, 0)),
    ]


@pytest.mark.parametrize(
    ("query", "indexes"),
    [
        ("SELECT * FROM sums WHERE tenant_id = 't1' AND period IN ('a', 'b')", {"PRIMARY", "sums_pkey"}),
        ("SELECT * FROM ledger WHERE tenant_id = 't1' AND evidence = 'intent'", {"ledger_of_open_intents"}),
        ("SELECT * FROM ledger WHERE reservation_id IN ('r1', 'r2')", {"PRIMARY", "ledger_pkey"}),
    ],
)
async def test_nothing_on_the_way_reads_the_whole_ledger(database, query, indexes):
    """The cost must be the same with ten million entries."""
    assert await index_of(database, query) in indexes


# ── a database that is not there ─────────────────────────────────────────────────────────


@pytest.mark.parametrize("replaced", [False, True], ids=["deleted", "replaced"])
async def test_a_database_file_that_went_away_is_not_written_into(sqlite_url, replaced):
    """SQLite would go on and report success; what it wrote would be gone with the file."""
    path = sqlite_url.removeprefix("sqlite:///")
    async with database_at(sqlite_url) as database:
        ledger = Ledger(database)
        await ledger.write([intent("r1")])
        os.rename(path, f"{path}.old")
        if replaced:
            shutil.copyfile(f"{path}.old", path)

        with pytest.raises(StoreUnavailable):
            await ledger.write([settled("r1")])


async def test_a_closed_database_is_unavailable(database_url):
    with pytest.raises(StoreUnavailable):
        await Ledger(database_at(database_url)).write([intent("r1")])


async def test_what_is_in_quarantine_is_there_once_and_as_it_was(database):
    """A replay puts the same record there again."""
    quarantine = Quarantine(database, now=lambda: 7.5)
    record = random.Random(1).randbytes(50)

    await quarantine.keep("ledger", record, "why")
    await quarantine.keep("ledger", record, "again")

    async with database.session() as connection:
        (row,) = await connection.fetch_all("SELECT kind, record, reason, kept_at FROM quarantine")
    assert tuple(row) == ("ledger", record, "why", 7.5)
    assert await quarantine.count() == 1
