"""Usage by hour: at every moment what ledger and audit log add up to, in whatever order they are written."""

import asyncio
from collections import Counter
from typing import Any

import pytest
from attrs import asdict, evolve, fields
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.accounting import Evidence, LedgerEntry
from gateway.model import AuditRow, Tenant
from gateway.rules.usage import COUNTS, OUTCOMES
from gateway.storage import uncounted
from gateway.storage.audit import AuditLog
from gateway.storage.audit_removals import opened
from gateway.storage.engines import database_at
from gateway.storage.ledger import Ledger
from gateway.storage.migrations import known, migrate, migrator_of
from gateway.storage.tenants import Tenants
from gateway.storage.uncounted import Uncounted
from tests.databases import ask
from tests.storage.samples import ACME, CHAIN, audit_row, intent, settled

# Of samples.intent, and of samples.audit_row.
HOUR = 1_699_999_200


async def usage(database: Any) -> dict[tuple[Any, ...], dict[str, int]]:
    """By hour, tenant, key, model and backend what is not 0."""
    async with database.session() as connection:
        rows = await connection.fetch_all("SELECT * FROM usage_hours")
    return {
        (row["hour"], row["tenant_id"], row["key_id"], row["model"], row["backend"]): {
            name: row[name] for name in COUNTS if row[name]
        }
        for row in rows
    }


async def test_a_request_and_its_cost_count_in_its_hour(database):
    """Its tokens by the ledger, all else by the audit log; both know it by the same names."""
    await Ledger(database).write([evolve(settled("r1", tokens=30), backend="gpu1", model="llama3")])
    await AuditLog(database, CHAIN).write([audit_row(1, load_ms=700.5)])

    assert await usage(database) == {
        (HOUR, "t1", "k1", "llama3", "gpu1"): {
            "requests": 1,
            "served": 1,
            "tokens": 30,
            "prompt_tokens": 10,
            "completion_tokens": 20,
            "load_us": 700_500,
            "prompt_us": 2_000,
            "generation_us": 3_250,
            "model_loads": 1,
        }
    }


async def test_what_runs_costs_nothing_yet_and_better_evidence_corrects(database):
    """expired → recovered → settled: the difference is added, also where the backend gets known."""
    ledger = Ledger(database)
    seen = []
    for evidence, tokens, backend in [
        (Evidence.INTENT, 100, ""),
        (Evidence.EXPIRED, 100, ""),
        (Evidence.RECOVERED, 90, ""),
        (Evidence.SETTLED, 30, "gpu1"),
    ]:
        entry = evolve(settled("r1", tokens=tokens), evidence=evidence, backend=backend)
        await ledger.write([entry])
        await ledger.write([entry])
        seen.append({key[-1]: counts.get("tokens", 0) for key, counts in (await usage(database)).items()})

    assert seen == [{}, {"": 100}, {"": 90}, {"": 0, "gpu1": 30}]


@pytest.mark.parametrize(
    ("status", "outcome", "code", "counted"),
    [
        (200, "served", None, "served"),
        (499, "client_left", None, "client_left"),
        (502, "backend_failed", "backend_failed", "backend_failed"),
        (200, "cut", "draining", "cut"),
        (401, "refused", "invalid_api_key", "refused_auth"),
        (403, "refused", "tenant_suspended", "refused_forbidden"),
        (404, "refused", "not_found", "refused_invalid"),
        (413, "refused", "request_too_large", "refused_invalid"),
        (429, "refused", "rate_limit_exceeded", "refused_limit"),
        (429, "refused", "insufficient_quota", "refused_budget"),
        (503, "refused", "overloaded", "refused_unavailable"),
    ],
)
async def test_each_request_counts_once_by_how_it_ended(database, status, outcome, code, counted):
    """And a refusal by its reason: all of them together are the requests."""
    await AuditLog(database, CHAIN).write([audit_row(1, status=status, outcome=outcome, error_code=code)])

    (counts,) = (await usage(database)).values()
    assert {name: counts[name] for name in ("requests", *OUTCOMES) if name in counts} == {
        "requests": 1,
        counted: 1,
    }


async def test_who_has_no_key_and_what_does_not_exist_make_no_rows(database):
    """A flood of invented models, or of wrong keys, adds to one row; also while no backend can be asked."""
    log = AuditLog(database, CHAIN)
    nobody = {"tenant_id": None, "key_id": None, "model": None, "backend": None, "outcome": "refused"}
    await log.write([audit_row(n, **nobody, status=401) for n in range(5)])
    ends = [
        {"outcome": "refused", "status": 404, "error_code": "model_not_found"},
        {"outcome": "backend_failed", "status": 502, "error_code": "backend_unavailable"},
        {"outcome": "refused", "status": 503, "error_code": "overloaded"},
        {"outcome": "client_left", "status": 499},
    ]
    await log.write([audit_row(10 + n, backend=None, model=f"m{n}", **end) for n, end in enumerate(ends)])

    assert {key: counts["requests"] for key, counts in (await usage(database)).items()} == {
        (HOUR, "", "", "", ""): 5,
        (HOUR, "t1", "k1", "", ""): 4,
    }


@pytest.mark.parametrize(
    "end",
    [
        {"outcome": "served", "status": 200},
        {"outcome": "refused", "status": 429, "error_code": "insufficient_quota"},
        {"outcome": "cut", "status": 499},
        {"outcome": "client_left", "status": 499, "backend": "gpu1"},
        {"outcome": "backend_failed", "status": 502, "backend": "gpu1"},
    ],
    ids=lambda end: f"{end['outcome']} {end['status']}",
)
async def test_a_model_that_the_catalogue_had_is_counted_by_its_name(database, end):
    """Shown, over a limit, admitted by a process that died, or sent to a backend: it was found before."""
    await AuditLog(database, CHAIN).write([audit_row(1, **{"backend": None} | end)])

    assert [key[3] for key in await usage(database)] == ["llama3"]


async def test_hours_are_those_of_the_tenants_zone(database):
    """So that its days are sums of hours also where they begin at half past."""
    await Tenants(database).add(Tenant("t1", "acme", 1.0, time_zone="Asia/Kolkata"))
    await Ledger(database).write([settled("r1", tokens=30)])
    await AuditLog(database, CHAIN).write([audit_row(1)])
    await Tenants(database).set_time_zone("acme", "UTC")
    await Ledger(database).write([evolve(settled("r2"), evidence=Evidence.EXPIRED)])
    await Ledger(database).write([settled("r1", tokens=5)])  # no better: it stays

    assert {
        key[0]: counts["tokens"] for key, counts in (await usage(database)).items() if "tokens" in counts
    } == {
        HOUR - 1_800 + 0: 30,
        HOUR: 30,
    }


async def test_a_correction_stays_in_its_hour(database):
    """Whatever became of the tenant's time zone in between: nothing is left behind, nothing goes below 0."""
    await Tenants(database).add(Tenant("t1", "acme", 1.0, time_zone="Asia/Kolkata"))
    await Ledger(database).write([evolve(settled("r1", tokens=100), evidence=Evidence.EXPIRED)])
    await Tenants(database).set_time_zone("acme", "UTC")
    await Ledger(database).write([settled("r1", tokens=30)])

    assert {key[0]: counts["tokens"] for key, counts in (await usage(database)).items()} == {HOUR - 1_800: 30}


async def test_times_that_no_calendar_has_stand_in_nobodys_way(database):
    """A mad clock: counted in the hour 0, rather than drained again for ever."""
    await AuditLog(database, CHAIN).write([audit_row(1, received_at_us=2**62)])
    await Ledger(database).write([evolve(settled("r1"), admitted_at=1e300)])

    assert {key[0] for key in await usage(database)} == {0}


# ── any order, twice ─────────────────────────────────────────────────────────────────────


@st.composite
def batches(draw: st.DrawFn) -> list[list[LedgerEntry | AuditRow]]:
    records: list[LedgerEntry | AuditRow] = []
    for number in range(draw(st.integers(1, 5))):
        owner, model = draw(st.sampled_from(["a", "b"])), draw(st.sampled_from(["m", "n"]))
        for evidence in draw(st.sets(st.sampled_from(list(Evidence)), min_size=1)):
            entry = settled(f"r{number}", tokens=draw(st.integers(0, 1000)), reserved=1000)
            at = entry.admitted_at + draw(st.integers(0, 3)) * 3600
            records.append(
                evolve(entry, evidence=evidence, tenant_id=owner, key_id=owner, model=model, admitted_at=at)
            )
        records.append(audit_row(number, tenant_id=owner, key_id=owner, model=model))
    order = draw(st.permutations(records + draw(st.lists(st.sampled_from(records)))))
    cuts = sorted(draw(st.sets(st.integers(0, len(order)))))
    return [order[start:end] for start, end in zip([0, *cuts], [*cuts, len(order)], strict=True)]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(batches=batches())
async def test_usage_is_what_ledger_and_audit_log_add_up_to(database, batches):
    """Drained in any order and cut, some of it twice: the sums are those of what is kept."""
    async with database.transaction() as connection, opened(connection):
        for table in ("ledger", "sums", "audit", "usage_hours"):
            await connection.execute(f"DELETE FROM {table}")
    ledger, log = Ledger(database), AuditLog(database, CHAIN)
    for batch in batches:
        await ledger.write([one for one in batch if isinstance(one, LedgerEntry)])
        await log.write([one for one in batch if isinstance(one, AuditRow)])

    counted: Counter[tuple[str, str]] = Counter()
    for (_, tenant_id, *_), counts in (await usage(database)).items():
        for name in ("tokens", "prompt_tokens", "completion_tokens", "requests"):
            counted[tenant_id, name] += counts.get(name, 0)
    assert counted == await _added_up(database)
    assert await ledger.verify() == []
    assert await ledger.verify_usage() == []


async def _added_up(database: Any) -> Counter[tuple[str, str]]:
    added: Counter[tuple[str, str]] = Counter()
    async with database.session() as connection:
        for row in await connection.fetch_all("SELECT * FROM ledger WHERE evidence <> 'intent'"):
            for name in ("tokens", "prompt_tokens", "completion_tokens"):
                added[row["tenant_id"], name] += row[name]
        for row in await connection.fetch_all(
            "SELECT tenant_id, count(*) AS n FROM audit GROUP BY tenant_id"
        ):
            added[row["tenant_id"], "requests"] += row["n"]
    return added


async def test_usage_that_is_not_what_the_ledger_adds_up_to_is_told(database):
    """Changed and missing, with both numbers."""
    ledger = Ledger(database)
    await ledger.write([settled("r1", tokens=30), intent("r2")])
    async with database.transaction() as connection:
        await connection.execute("UPDATE usage_hours SET tokens = 31")

    (found,) = await ledger.verify_usage()

    assert (found.tenant_id, found.key_id, found.model, found.backend) == ("t1", "k1", "llama3:latest", "")
    assert (found.kept["tokens"], found.by_ledger["tokens"]) == (31, 30)


# ── from before ──────────────────────────────────────────────────────────────────────────


async def test_an_upgrade_counts_what_is_there(database, database_url):
    """As if it had been counted all along, save where the ledger did not know the backend."""
    await Tenants(database).add(ACME)
    entries = [settled(f"r{n}", tokens=10 * n) for n in range(1, 4)]
    later = evolve(settled("r9", tokens=7), admitted_at=1_700_010_000.75)
    await Ledger(database).write([*entries, later, intent("r5")])
    await AuditLog(database, CHAIN).write(
        [
            audit_row(1, load_ms=900.25),
            audit_row(2, status=429, outcome="refused", error_code="insufficient_quota"),
            audit_row(3, status=429, outcome="refused", error_code="rate_limit_exceeded", generation_ms=None),
            audit_row(4, status=404, outcome="refused", error_code="model_not_found", backend=None),
            audit_row(
                5, status=401, outcome="refused", tenant_id=None, key_id=None, model=None, backend=None
            ),
            audit_row(6, status=503, outcome="refused", received_at_us=1_700_009_999_999_999),
            audit_row(7, status=499, outcome="client_left"),
            audit_row(8, status=499, outcome="client_left", model="invented", backend=None),
            audit_row(9, status=499, outcome="cut", backend=None),
            audit_row(10, operation="show", backend=None),
        ]
    )
    before = await usage(database)
    migrator = migrator_of(database_url)
    with migrator.backend() as backend:
        last = [one for one in backend.to_rollback(known(migrator)) if one.id == "0015_usage"]
        with backend.transaction():
            last[0].process_steps(backend, "rollback")
            backend.unmark_one(last[0])

    assert migrate(database_url) == ["0015_usage"]

    assert await usage(database) == before
    assert ask(database_url, "SELECT count(*) AS n FROM audit WHERE recorded_at <> 0") == [{"n": 0}]
    await Ledger(database).write([settled("r5", tokens=9)])
    assert await Ledger(database).verify_usage() == []


# ── gateways of the version before ───────────────────────────────────────────────────────


async def by_an_older_gateway(database: Any, entry: LedgerEntry) -> None:
    """Write an entry as one does that knows no usage: what is kept beside it stays, or is the default."""
    names = [field.name for field in fields(LedgerEntry) if field.name != "backend"]
    statement = " ".join(
        (
            f"INSERT INTO ledger ({', '.join(names)}, rank) VALUES (:{', :'.join(names)}, :rank)",
            "ON CONFLICT (reservation_id) DO UPDATE SET rank = excluded.rank,",
            ", ".join(f"{name} = excluded.{name}" for name in names[1:]),
        )
    )
    values = {name: getattr(entry, name) for name in names} | {"rank": entry.evidence.rank}
    async with database.transaction() as connection:
        await connection.execute(statement, values)


async def audited_by_an_older_gateway(database: Any, *rows: AuditRow) -> None:
    names = [field.name for field in fields(AuditRow)]
    statement = f"INSERT INTO audit ({', '.join(names)}) VALUES (:{', :'.join(names)})"
    async with database.transaction() as connection:
        await connection.execute_many(statement, [asdict(row) for row in rows])


async def test_what_an_older_gateway_charged_is_corrected_to_the_whole_cost(database):
    """It was never added, so nothing is taken away: the hour does not go below 0."""
    ledger = Ledger(database)
    await by_an_older_gateway(database, evolve(settled("r1", tokens=100), evidence=Evidence.EXPIRED))
    await ledger.write([settled("r1", tokens=30)])

    assert [counts["tokens"] for counts in (await usage(database)).values()] == [30]
    assert await ledger.verify_usage() == []


@pytest.mark.parametrize("is_known", [False, True], ids=["all of it", "the end of a newer one's request"])
async def test_what_older_gateways_wrote_is_counted_later_and_once(database, is_known):
    """While a fleet is rolled: no damage before, in the tenant's hours then, and once."""
    await Tenants(database).add(Tenant("t1", "acme", 1.0, time_zone="Asia/Kolkata"))
    ledger = Ledger(database)
    await ledger.write([intent("r1"), intent("r9")] if is_known else [])
    await by_an_older_gateway(database, settled("r1", tokens=30))
    await audited_by_an_older_gateway(database, audit_row(1), audit_row(2, tenant_id=None))
    assert await usage(database) == {}
    assert await ledger.verify_usage() == []

    await asyncio.gather(*(Uncounted(database, CHAIN).count() for _ in range(2)))
    await Uncounted(database, CHAIN).count()

    counted = {key[:2]: counts for key, counts in (await usage(database)).items() if "tokens" in counts}
    assert {key: counts["tokens"] for key, counts in counted.items()} == {(HOUR - 1_800, "t1"): 30}
    assert sum(counts.get("requests", 0) for counts in (await usage(database)).values()) == 2
    assert await ledger.verify_usage() == []


async def test_more_than_one_batch_is_counted(database, monkeypatch):
    """An older gateway may drain for hours before it is replaced."""
    monkeypatch.setattr(uncounted, "BATCH", 2)
    for number in range(5):
        await by_an_older_gateway(database, settled(f"r{number}", tokens=10))
    await audited_by_an_older_gateway(database, *(audit_row(number) for number in range(5)))

    await Uncounted(database, CHAIN).count()

    counts = list((await usage(database)).values())
    assert sum(one.get("tokens", 0) for one in counts) == 50
    assert sum(one.get("requests", 0) for one in counts) == 5


async def test_two_who_drain_the_same_rows_count_them_once(database, database_url):
    """A gateway that adopted what another one left, while that one's last batch is still on its way."""
    async with database_at(database_url) as other:
        logs = AuditLog(database, CHAIN), AuditLog(other, CHAIN)
        ledgers = Ledger(database), Ledger(other)
        rows = [audit_row(number) for number in range(50)]
        entries = [settled(f"r{number}", tokens=10) for number in range(50)]
        await asyncio.gather(
            *(log.write(rows) for log in logs), *(ledger.write(entries) for ledger in ledgers)
        )

    counted = list((await usage(database)).values())
    assert sum(counts.get("requests", 0) for counts in counted) == 50
    assert sum(counts.get("tokens", 0) for counts in counted) == 500
