"""The database or the disk away under one gateway that runs alone, under load; see SPEC's failure matrix.

What callers are told while it lasts; that what runs goes on; and that in the end each request has one audit
row and the cost that it truly had, by the model's own count.
"""

import contextlib
import fcntl
import resource
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from gateway.accounting import Policy
from gateway.config import MIN_SPOOL_BYTES
from tests.engines import wait_until
from tests.fleet.books import Books
from tests.fleet.callers import Load, Told
from tests.fleet.counted_model import MODEL, CountedModel, Order
from tests.fleet.fleet import Customer, Fleet
from tests.fleet.trials import SHORT, under_load
from tests.gateways import Gateway

NOTICED_S: Final = 15.0
RUNNING: Final = 4
POLICY: Final = Policy(total_tokens=10_000_000, concurrent=1000)

Outage = Callable[[Gateway], AbstractContextManager[None]]


@pytest.fixture
def alone(tmp_path: Path, model: CountedModel) -> Iterator[Fleet]:
    """A fleet of one, on SQLite, without Redis."""
    settings = {
        "DATABASE_URL": f"sqlite:///{tmp_path}/gateway.db",
        # Room for some ten seconds of all that the callers here can ask.
        "GATEWAY_SPOOL_MAX_BYTES": str(4 * MIN_SPOOL_BYTES),
    }
    with Fleet(tmp_path, model, settings) as fleet:
        yield fleet.start("only")


@pytest.fixture
def gateway(alone: Fleet) -> Gateway:
    return alone.replicas[0]


# ── outages ──────────────────────────────────────────────────────────────────────────────


@contextmanager
def written_to(gateway: Gateway) -> Iterator[None]:
    """Somebody's transaction never ends: nothing can be written."""
    with closing(sqlite3.connect(file_of(gateway), isolation_level=None, timeout=30)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


@contextmanager
def locked(gateway: Gateway) -> Iterator[None]:
    """Somebody holds all of SQLite's own locks: nothing can be read either."""
    with open(f"{file_of(gateway)}-shm", "r+b") as shared:
        fcntl.lockf(shared, fcntl.LOCK_EX, 8, 120)  # https://sqlite.org/walformat.html, "WAL locks"
        yield


@contextmanager
def moved_away(gateway: Gateway) -> Iterator[None]:
    """SQLite would write on into the file that was moved."""
    file = file_of(gateway)
    file.rename(f"{file}.away")
    yield
    Path(f"{file}.away").rename(file)


@contextmanager
def full(gateway: Gateway) -> Iterator[None]:
    """No file of the process grows any more: neither database nor spool nor log."""
    assert gateway.process is not None
    # As on a full disk, the room that was allocated can be written to; here only as far as this file goes.
    segment = max(gateway.directory.glob("data/spool/*/*.journal"))
    limits = resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE, (segment.stat().st_size, limits[1]))
    yield
    with contextlib.suppress(ProcessLookupError):  # killed meanwhile
        resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE, limits)


def file_of(gateway: Gateway) -> Path:
    return Path(gateway.database_url.removeprefix("sqlite:///"))


def missing(gateway: Gateway) -> list[str]:
    """What /readyz names."""
    told: dict[str, Any] = httpx.get(f"{gateway.url}/readyz", timeout=10, trust_env=False).json()
    return list(told.get("missing", []))


# ── tests ────────────────────────────────────────────────────────────────────────────────


@contextmanager
def noticed(gateway: Gateway, outage: Outage, named: str) -> Iterator[None]:
    """From when /readyz names it until it does no more."""
    with outage(gateway):
        assert wait_until(lambda: named in missing(gateway), NOTICED_S)
        yield
    assert wait_until(lambda: missing(gateway) == [], NOTICED_S)


def balance(alone: Fleet, customer: Customer, told: Sequence[Told]) -> None:
    """Each request has one row, and cost what the model did for it; and the sums say the same."""
    (gateway,) = alone.replicas
    Books(alone, customer, told).close(30)
    assert gateway.json("verify-ledger")["equal"]
    assert "Traceback" not in gateway.log.read_text()


@pytest.mark.parametrize(
    ("outage", "status"),
    [(written_to, 200), (locked, 503), (moved_away, 200)],
    ids=["written-to", "locked", "moved-away"],
)
def test_without_a_database_known_keys_go_on(alone: Fleet, gateway: Gateway, outage: Outage, status: int):
    """Others are told 503, never 401, where they can't be read; what was spooled is in the ledger soon."""
    customer, stranger = alone.customers(["known", "stranger"], POLICY)
    strangers: list[httpx.Response] = []

    @contextmanager
    def with_a_stranger() -> Iterator[None]:
        with noticed(gateway, outage, "database"):
            yield
            strangers.append(asked_once(gateway, stranger.key))

    seen = under_load(alone, customer, with_a_stranger())

    assert seen.during
    assert {one.status for one in seen.all} == {200}
    assert [one.status_code for one in strangers] == [status]
    assert status == 200 or int(strangers[0].headers["retry-after"]) >= 1
    balance(alone, customer, seen.all)


def asked_once(gateway: Gateway, key: str) -> httpx.Response:
    body = {"model": MODEL, "messages": [{"role": "user", "content": SHORT.prompt}]}
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.post(
        f"{gateway.url}/v1/chat/completions", json=body, headers=headers, timeout=30, trust_env=False
    )


def test_a_full_disk_lets_nothing_new_begin_and_everything_end(alone: Fleet, gateway: Gateway):
    customer = alone.customer("known", POLICY)

    seen = under_load(alone, customer, noticed(gateway, full, "spool"))

    assert {one.status for one in seen.during} == {503}
    assert {one.status for one in seen.all} == {200, 503}
    assert all(int(one.retry_after or 0) >= 1 for one in seen.during)
    balance(alone, customer, seen.all)


@pytest.mark.parametrize(("outage", "status"), [(written_to, 200), (full, 503)], ids=["written-to", "full"])
def test_a_kill_in_an_outage_loses_nothing(alone: Fleet, gateway: Gateway, outage: Outage, status: int):
    """What was on the disk is drained by the next start; what ran is charged its reservation."""
    customer = alone.customer("known", POLICY)
    endless = Order(hold=5, label=customer.id)
    with Load(alone.urls, customer.key, SHORT) as before:
        assert wait_until(lambda: len(before.since(0)) >= 100, 20)  # so that the spool's file has a size
    with Load(alone.urls, customer.key, endless, callers=RUNNING, once=True) as running:
        assert wait_until(lambda: len(alone.model.labelled(customer.id)) == RUNNING, 20)
        with outage(gateway):
            with Load(alone.urls, customer.key, SHORT, once=True) as load:
                assert wait_until(lambda: len(load.since(0)) == load.callers, 20)
            assert gateway.process is not None
            gateway.process.kill()
            gateway.wait()
    gateway.start()

    assert {one.status for one in load.told} == {status}
    assert not any(one.is_complete for one in running.told)
    balance(alone, customer, [*before.told, *load.told])
    rows = alone.rows("SELECT outcome FROM audit WHERE outcome <> 'served' AND status <> 503")
    assert [row["outcome"] for row in rows] == ["cut"] * RUNNING
