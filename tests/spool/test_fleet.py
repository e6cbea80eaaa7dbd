"""Waiting until the ledger has what every process has spooled."""

import asyncio

import pytest

from gateway.errors import StoreUnavailable
from gateway.spool.fleet import FleetSpools
from gateway.storage.engines import database_at
from gateway.storage.migrations import migrate
from gateway.storage.replicas import Replicas


class Process:
    """A gateway's spool, as far as others can see it: with `stuck`, its database is away."""

    def __init__(self, replicas: Replicas) -> None:
        self.stuck = False
        self.spooled = 0
        self.in_ledger = 0
        self.fleet = FleetSpools(replicas, self.flush, report_s=0.02)

    async def flush(self) -> None:
        if self.stuck:
            raise StoreUnavailable
        spooled = self.spooled
        await asyncio.sleep(0.01)
        self.in_ledger = spooled


@pytest.fixture
async def processes(tmp_path):
    url = f"sqlite:///{tmp_path}/gateway.db"
    migrate(url)
    async with database_at(url) as database:
        both = [Process(Replicas(database)) for _ in range(2)]
        for process in both:
            await process.fleet.start()
        yield both
        for process in both:
            process.stuck = False
            await process.fleet.stop()


async def test_what_anybody_spooled_before_is_in_the_ledger_after(processes: list[Process]):
    for rounds in range(1, 6):
        for process in processes:
            process.spooled = rounds
        await processes[0].fleet.drained()

        assert [process.in_ledger for process in processes] == [rounds, rounds]


async def test_one_that_can_not_drain_is_waited_for(processes: list[Process]):
    processes[1].stuck = True
    processes[1].spooled = 1
    waiting = asyncio.create_task(processes[0].fleet.drained())
    done, _ = await asyncio.wait([waiting], timeout=0.5)
    assert not done
    processes[1].stuck = False

    await asyncio.wait_for(waiting, 5)
    assert processes[1].in_ledger == 1


async def test_one_that_stopped_is_not_waited_for(processes: list[Process]):
    await processes[1].fleet.stop()
    processes[1].stuck = True

    await asyncio.wait_for(processes[0].fleet.drained(), 5)


async def test_who_can_not_reach_the_ledger_says_so(processes: list[Process]):
    processes[0].stuck = True

    with pytest.raises(StoreUnavailable):
        await processes[0].fleet.drained()
