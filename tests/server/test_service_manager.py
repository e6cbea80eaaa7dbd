"""sd_notify: what a manager of services is told, and that it can't hold anything up."""

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.server.service_manager import ServiceManager
from tests.managers import ManagerDouble, manager_double


@pytest.fixture
def double(tmp_path: Path) -> Iterator[ManagerDouble]:
    with manager_double(tmp_path) as double:
        yield double


def test_it_is_told_of_a_life(double: ManagerDouble):
    """From ready over a reload to the stop; MONOTONIC_USEC is what `Type=notify-reload` waits for."""
    manager = ServiceManager.of({"NOTIFY_SOCKET": double.address})

    manager.ready()
    with manager.reloading():
        reloading = double.until("RELOADING")[-1]
    manager.stopping(3)

    assert reloading["RELOADING"] == "1"
    assert int(reloading["MONOTONIC_USEC"]) > 0
    assert double.next() == {"READY": "1", "STATUS": "Serving."}
    stopping = double.next()
    assert stopping["STOPPING"] == "1"
    assert "3 requests run" in stopping["STATUS"]


def test_who_stops_is_not_ready_again(double: ManagerDouble):
    """A reload before the start has ended, or while it drains, must not say that it serves."""
    manager = ServiceManager(double.address)

    with manager.reloading():
        pass
    manager.stopping(0)
    with manager.reloading():
        pass

    assert double.next().keys() == {"STOPPING", "STATUS"}
    with pytest.raises(TimeoutError):
        double.next(within_s=0.05)


async def test_a_living_loop_beats(double: ManagerDouble):
    """And asks for more time as long as it starts, and when it stops."""
    watched = {"NOTIFY_SOCKET": double.address, "WATCHDOG_USEC": "60000"}  # a beat each 20 ms
    manager = ServiceManager.of(watched)

    async with manager.beating():
        starting = await asyncio.to_thread(double.next)
        manager.ready()
        await asyncio.to_thread(double.until, "READY")
        serving = await asyncio.to_thread(double.next)
        manager.stopping(1)
        await asyncio.to_thread(double.until, "STOPPING")
        stopping = await asyncio.to_thread(double.next)

    assert starting == stopping == {"WATCHDOG": "1", "EXTEND_TIMEOUT_USEC": "30000000"}
    assert serving == {"WATCHDOG": "1"}


@pytest.mark.parametrize(
    ("pid", "beat_s"),
    [(str(os.getpid()), 2.0), ("", 2.0), ("1", 5.0)],
    ids=["this process", "whoever", "another process"],
)
def test_a_watchdog_of_another_process_is_not_ours(pid: str, beat_s: float):
    environment = {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "6000000", "WATCHDOG_PID": pid}

    assert ServiceManager.of(environment)._beat_s == beat_s


async def test_nobody_is_told_where_nobody_asks():
    """As on a terminal: no task, no datagram."""
    manager = ServiceManager.of({})

    before = asyncio.all_tasks()
    async with manager.beating():
        manager.ready()
        assert asyncio.all_tasks() == before


def test_a_manager_that_is_gone_or_does_not_read_holds_nothing_up(tmp_path: Path, double: ManagerDouble):
    """Its socket may be missing, or full: nothing is waited for, and nothing is raised."""
    ServiceManager(str(tmp_path / "missing")).ready()

    manager = ServiceManager(double.address)
    for _ in range(2000):
        manager.ready()


def test_an_abstract_socket_is_reached():
    """`@` stands for the zero byte that such addresses begin with."""
    name = f"neuronetz-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"\0{name}")
        ServiceManager(f"@{name}").ready()

        assert listening.recv(100).startswith(b"READY=1\n")
