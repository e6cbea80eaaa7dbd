"""kill -9 of a replica at each point of a request's life, among other requests that run.

What the points allow: before the intent is written nothing is on the disk, so that nothing was sent, nothing
answered, and there is no row. From then on each request has its row and its charge, between what the model
did and what was reserved; from its settlement on, exactly what the model did. A replica that lost its disk
leaves what the database and Redis know of it.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from math import inf
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest
from attrs import define, field

from gateway.accounting import Policy
from gateway.middleware.settler import LEASE_S
from tests.effort import times
from tests.engines import wait_until
from tests.fleet.books import Books
from tests.fleet.callers import WAYS, Told, ask
from tests.fleet.counted_model import Order
from tests.fleet.fleet import Customer, Fleet
from tests.fleet.victims import Launcher, Victim, all_end, all_listen

ROUNDS: Final = 1
BESIDE: Final = 3
"""How many streams run on the same replica when it dies."""
SLOT_GRACE_S: Final = 2.0

# Points that the model holds a request at, until its gateway is killed; the others are the launcher's.
HELD: Final = {"sent": -1, "prefill": 0, "streaming": 5}

# Of each point: what the ledger knows in the end, and how the request is audited.
POINTS: Final[dict[str, tuple[str | None, str | None]]] = {
    "accepted": (None, None),
    "head read": (None, None),
    "caller known": (None, None),
    "planned": (None, None),
    "taken": ("expired", None),
    "intent written": ("recovered", "cut"),
    "connecting": ("recovered", "cut"),
    "sent": ("recovered", "cut"),
    "prefill": ("recovered", "cut"),
    "streaming": ("recovered", "cut"),
    "last record read": ("recovered", "cut"),
    "settlement spooled": ("settled", "cut"),
    "settled in Redis": ("settled", "cut"),
    "last byte not sent": ("settled", "cut"),
    "row not written": ("settled", "cut"),
    "row written": ("settled", "served"),
    "ledger drained": ("settled", "served"),
    "drained, not truncated": ("settled", "served"),
}
_SOME: Final = ("taken", "intent written", "streaming", "settlement spooled")
CASES: Final = [
    *((point, "restarted") for point in POINTS),
    # When its leases have run out, and others have charged for it.
    *((point, "restarted late") for point in _SOME),
    *((point, "lost") for point in _SOME),
]


@define
class Death:
    """What happened to one replica, and what is known of it in the end."""

    point: str
    disk: str
    customer: Customer
    victim: Victim
    beside: set[str] = field(factory=set)
    """The ids of those that ran beside the fatal request."""
    died_at: float = 0.0
    slots_free_s: float = inf
    books: Books = field(init=False)
    differences: list[str] = field(factory=list)
    """What the books still disagree on in the end."""

    @property
    def evidence(self) -> str | None:
        """How the ledger knows what the fatal request cost; None when it does not know of it."""
        return self._of_the_fatal(self.books.ledger, "evidence")

    @property
    def outcome(self) -> str | None:
        return self._of_the_fatal(self.books.audit, "outcome")

    def _of_the_fatal(self, rows: dict[str, dict[str, Any]], column: str) -> str | None:
        found = [row[column] for rid, row in rows.items() if rid not in self.beside]
        assert len(found) <= 1
        return str(found[0]) if found else None


@pytest.fixture(scope="module")
def deaths(
    shared_fleet: Fleet, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[tuple[str, str], list[Death]]]:
    """By point and disk, one for each round; all of a round die at about the same time."""
    found: dict[tuple[str, str], list[Death]] = {case: [] for case in CASES}
    with Launcher.start(shared_fleet.settings) as launcher:
        for number in range(times(ROUNDS)):
            for death in _round(shared_fleet, launcher, tmp_path_factory.mktemp("victims"), number):
                found[death.point, death.disk].append(death)
        yield found


def _round(fleet: Fleet, launcher: Launcher, directory: Path, number: int) -> list[Death]:
    customers = fleet.customers(
        [f"{number}/{disk}/{point}" for point, disk in CASES],
        Policy(concurrent=10, total_tokens=1_000_000),
    )
    deaths = [
        Death(
            point,
            disk,
            customer,
            launcher.launch(directory / f"{index}", "nowhere" if point in HELD else point),
        )
        for index, ((point, disk), customer) in enumerate(zip(CASES, customers, strict=True))
    ]
    all_listen([death.victim for death in deaths])
    for death in deaths:  # what is cold is another matter
        Books(fleet, death.customer).standing(fleet.urls[0])
    asyncio.run(_die_all(fleet, deaths, number))
    for death in deaths:
        if death.disk == "lost":
            death.victim.lose_disk()
    reborn = [launcher.launch(death.victim.directory) for death in deaths if death.disk == "restarted"]
    _watch_slots(fleet, list(deaths))
    late = [death for death in deaths if death.disk == "restarted late"]
    assert wait_until(lambda: all(_is_charged(fleet, death) for death in late), 20)
    reborn += [launcher.launch(death.victim.directory) for death in late]
    all_listen(reborn)
    until = time.monotonic() + 30
    for death in deaths:
        death.books = Books(fleet, death.customer)
        death.differences = death.books.rest(max(0.0, until - time.monotonic()))
    all_end(reborn)
    return deaths


async def _die_all(fleet: Fleet, deaths: list[Death], number: int) -> None:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(
            *(_die(fleet, death, session, number + index) for index, death in enumerate(deaths))
        )


async def _die(fleet: Fleet, death: Death, session: aiohttp.ClientSession, number: int) -> None:
    """Some streams run; then comes the request that is fatal."""
    url, key, label = death.victim.url, death.customer.key, death.customer.id

    def asked(order: Order, way: tuple[str, bool]) -> tuple[Told, asyncio.Task[Told]]:
        told = Told(url, way, time.monotonic())
        return told, asyncio.create_task(ask(session, url, key, order, way, told=told))

    ways = [("ollama", True), ("openai", True)]
    running = [asked(Order(tokens=50, hold=4, label=f"{label}/{n}"), ways[n % 2]) for n in range(BESIDE)]
    await _until(lambda: all(fleet.model.holds(f"{label}/{n}") for n in range(BESIDE)))
    await _until(lambda: all(told.request_id for told, _ in running))
    death.beside = {told.request_id for told, _ in running}
    death.victim.arm()
    order = Order(tokens=6, hold=HELD.get(death.point), label=label)
    _, task = asked(order, WAYS[number % len(WAYS)])
    if death.point in HELD:
        await _until(lambda: fleet.model.holds(label))
        death.victim.kill()
    await _until(lambda: death.victim.is_dead)
    death.died_at = time.monotonic()
    await asyncio.gather(task, *(task for _, task in running))


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - of another thread, or of another process
            await asyncio.sleep(0.02)


def _watch_slots(fleet: Fleet, waiting: list[Death]) -> None:
    """Note when the slots of each are free, as the next request would find them."""
    until = time.monotonic() + LEASE_S + 3 * SLOT_GRACE_S
    while waiting and time.monotonic() < until:
        for death in list(waiting):
            if not Books(fleet, death.customer).slots(fleet.urls[0]):
                death.slots_free_s = time.monotonic() - death.died_at
                waiting.remove(death)
        time.sleep(0.5)


def _is_charged(fleet: Fleet, death: Death) -> bool:
    rows = fleet.rows("SELECT evidence FROM ledger WHERE tenant_id = :id", id=death.customer.id)
    return bool(rows) and all(row["evidence"] == "expired" for row in rows)


@pytest.mark.parametrize(("point", "disk"), CASES, ids=[f"{point}-{disk}" for point, disk in CASES])
def test_nothing_is_lost_charged_twice_or_held(
    deaths: dict[tuple[str, str], list[Death]], point: str, disk: str
):
    """Counters and ledger say the same, and between what the model did and what was reserved."""
    evidence, outcome = POINTS[point]
    for death in deaths[point, disk]:
        books = death.books
        assert death.differences == []
        books.compare()
        assert death.slots_free_s < LEASE_S + SLOT_GRACE_S
        beside = {rid: entry["evidence"] for rid, entry in books.ledger.items() if rid in death.beside}
        if disk == "lost":
            assert death.evidence == "expired"
            assert set(beside.values()) == {"expired"}
        else:
            assert (death.evidence, death.outcome) == (evidence, outcome)
            assert set(beside.values()) == {"recovered"}
            assert {books.audit[rid]["outcome"] for rid in death.beside} == {"cut"}
        assert len(beside) == BESIDE
