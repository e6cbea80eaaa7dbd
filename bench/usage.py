"""What `usage` costs by the length of the audit log: it should depend on the hours, not on the requests.

    python -m bench.usage [--rows 100000 1000000] [--days 30] [--engine sqlite]

For each number of rows: a database from before there was usage by hour is filled with as many audit rows,
half of them with a ledger entry, over so many days, 20 tenants, 100 keys, 3 models and 2 backends. Then the
upgrade counts them, `usage` is asked, and the same is added up from the audit log itself, to compare.
"""

import argparse
import asyncio
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gateway.storage.audit import AuditLog
from gateway.storage.audit_reading import AuditReading
from gateway.storage.audit_reading import Selection as AuditSelection
from gateway.storage.database import Database
from gateway.storage.engines import database_at
from gateway.storage.ledger import Ledger
from gateway.storage.migrations import known, migrate, migrator_of
from gateway.storage.usage import Selection, Usage
from tests.databases import ask
from tests.postgres_server import PostgresServer
from tests.storage.samples import CHAIN, audit_row, settled

HOUR_S = 3_600
END_S = 1_763_996_400
_ROUNDS = 5

# Numbers from 0 in either engine; the arithmetic spreads them over time, tenants, keys, models and backends.
_AUDIT = """
    INSERT INTO audit (request_id, received_at_us, tenant_id, key_id, key_prefix, peer, user_agent, method,
        path, operation, surface, model, backend, stream, status, outcome, prompt_tokens, completion_tokens,
        tokens_estimated, load_ms, prompt_ms, generation_ms, duration_ms, bytes_in, bytes_out:recorded_at)
    WITH RECURSIVE n (i) AS (SELECT :first UNION ALL SELECT i + 1 FROM n WHERE i < :last)
    SELECT 'req_' || (1000000000000 + i), (:begin + i * :span / :rows) * 1000000,
        't' || (i % 20), 'k' || (i % 100),
        'nz_abc12345', '192.0.2.7', 'openai-python/1.0', 'POST', '/v1/chat/completions', 'chat_completions',
        'openai', 'm' || (i % 3), 'b' || (i % 2), FALSE, CASE i % 10 WHEN 0 THEN 429 ELSE 200 END,
        CASE i % 10 WHEN 0 THEN 'refused' ELSE 'served' END, 100, 50, FALSE, 20.5, 30.25, 400.125, 500.5,
        900, 1800:recorded
    FROM n
"""
_LEDGER = """
    INSERT INTO ledger (reservation_id, tenant_id, key_id, model, admitted_at, day, month, reserved, tokens,
        prompt_tokens, completion_tokens, estimated, evidence, rank:usage_hour)
    WITH RECURSIVE n (i) AS (SELECT :first UNION ALL SELECT i + 1 FROM n WHERE i < :last)
    SELECT 'req_' || (1000000000000 + i), 't' || (i % 20), 'k' || (i % 100), 'm' || (i % 3),
        :begin + i * :span / :rows, '2025-11-24', '2025-11', 400, 150, 100, 50, FALSE, 'settled', 3:hour
    FROM n WHERE i % 2 = 0
"""
_STEP = 500_000


def before_usage(database_url: str) -> None:
    """A schema that has all but what counts usage."""
    migrate(database_url)
    migrator = migrator_of(database_url)
    with migrator.backend() as backend:
        steps = {one.id: one for one in backend.to_rollback(known(migrator))}
        with backend.transaction():
            steps["0015_usage"].process_steps(backend, "rollback")
            backend.unmark_one(steps["0015_usage"])


def fill(database_url: str, rows: int, days: int, *, is_counted: bool = False) -> None:
    """`is_counted`: as rows that `usage` has added up already, or a gateway would begin to."""
    span = days * 24 * HOUR_S
    values = {"rows": rows, "span": span, "begin": END_S - span}
    marks = {
        ":recorded_at": ", recorded_at",
        ":recorded": f", {END_S}",
        ":usage_hour": ", usage_hour",
        ":hour": ", 0",
    }
    for first in range(0, rows, _STEP):
        bounds = {"first": first, "last": min(rows, first + _STEP) - 1}
        for statement in (_AUDIT, _LEDGER):
            text = statement
            for mark, written in marks.items():
                text = text.replace(mark, written if is_counted else "")
            for name, value in {**values, **bounds}.items():
                text = text.replace(f":{name}", f"CAST({value} AS BIGINT)")
            ask(database_url, text)


async def timed(work: Callable[[], Awaitable[Any]], rounds: int = _ROUNDS) -> float:
    """The median, in seconds."""
    took = []
    for _ in range(rounds):
        began = time.perf_counter()
        await work()
        took.append(time.perf_counter() - began)
    return statistics.median(took)


async def measured(database_url: str, rows: int, days: int) -> dict[str, Any]:
    before_usage(database_url)
    began = time.perf_counter()
    fill(database_url, rows, days)
    filled = time.perf_counter()
    migrate(database_url)
    upgraded = time.perf_counter()
    if not database_url.startswith("sqlite"):
        ask(database_url, "ANALYZE")
    async with database_at(database_url, connections=1) as database:
        return {
            "rows": rows,
            "hours": ask(database_url, "SELECT count(*) AS n FROM usage_hours")[0]["n"],
            "fill_s": round(filled - began, 1),
            "upgrade_s": round(upgraded - filled, 1),
            **await _asked(database, rows, days),
            **await _batches(database),
        }


async def _asked(database: Database, rows: int, days: int) -> dict[str, float]:
    usage, reading = Usage(database), AuditReading(database)
    month = Selection(END_S - 30 * 24 * HOUR_S, END_S)
    day = Selection(END_S - 24 * HOUR_S, END_S)
    last = AuditSelection((END_S - HOUR_S) * 1_000_000, END_S * 1_000_000)
    total = sum(one.counts["requests"] for one in await usage.read(Selection(0, END_S), (), slots=1))
    if total != rows:
        raise SystemExit(f"{total} requests were counted of {rows}")

    async def from_the_audit_log() -> None:
        async with database.snapshot(patient=True) as connection:
            await connection.fetch_all(
                "SELECT tenant_id, count(*), sum(prompt_tokens) FROM audit WHERE received_at_us >= :since"
                " GROUP BY tenant_id",
                {"since": (END_S - days * 24 * HOUR_S) * 1_000_000},
            )

    return {
        "by_tenant_30d_ms": 1e3 * await timed(lambda: usage.read(month, ("tenant",), slots=24)),
        "by_key_30d_ms": 1e3 * await timed(lambda: usage.read(month, ("key",), slots=24)),
        "by_day_and_model_30d_ms": 1e3 * await timed(lambda: usage.read(month, ("model",), slots=None)),
        "by_tenant_24h_ms": 1e3 * await timed(lambda: usage.read(day, ("tenant",), slots=24)),
        "last_50_rows_of_an_hour_ms": 1e3 * await timed(lambda: reading.latest(last, 50)),
        "the_same_from_the_audit_log_ms": 1e3 * await timed(from_the_audit_log, rounds=1),
    }


async def _batches(database: Database) -> dict[str, float]:
    """What draining costs: batches of 500, of an hour and of 20 tenants, at the end of all that is there."""
    log, ledger = AuditLog(database, CHAIN), Ledger(database)
    numbers = iter(range(10**9))

    async def rows() -> None:
        batch = [next(numbers) for _ in range(500)]
        await log.write(
            [
                audit_row(n, request_id=f"req_9{n:012}", received_at_us=END_S * 10**6, tenant_id=f"t{n % 20}")
                for n in batch
            ]
        )

    async def entries() -> None:
        await ledger.write([settled(f"req_9{next(numbers):012}") for _ in range(500)])

    return {"500_rows_ms": 1e3 * await timed(rows, 20), "500_entries_ms": 1e3 * await timed(entries, 20)}


@contextmanager
def engine(name: str) -> Iterator[Callable[[], str]]:
    """Gives a new database each time."""
    with tempfile.TemporaryDirectory(prefix="bench-usage-") as folder:
        if name == "sqlite":
            numbers = iter(range(100))

            def new() -> str:
                place = Path(folder) / str(next(numbers))
                for earlier in Path(folder).iterdir():
                    shutil.rmtree(earlier)
                place.mkdir()
                return f"sqlite:///{place}/gateway.db"

            yield new
        else:
            with PostgresServer() as server:
                yield lambda: server.url(server.new_database())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--engine", choices=["sqlite", "postgres"], default="sqlite")
    arguments = parser.parse_args()
    with engine(arguments.engine) as new:
        for rows in arguments.rows:
            found = asyncio.run(measured(new(), rows, arguments.days))
            print(json.dumps({name: round(value, 2) for name, value in found.items()}), flush=True)


if __name__ == "__main__":
    main()
