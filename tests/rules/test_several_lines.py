"""Shares and throughput over several backends, in virtual time: who waits stands in line at each of them."""

import heapq
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import count
from random import Random

import pytest
from attrs import define, field

from gateway.rules.fair_queue import Ticket
from gateway.rules.schedule import Schedule

TURN_S = 10.0


@define
class Backends:
    """Alike, each with a slot. A ticket that finds none has its place in the shortest line, and is a guest in
    the others; who serves it takes it out of all of them.
    """

    schedules: list[Schedule]
    service_s: Callable[[], float]
    now: float = 0.0
    waits: dict[str, list[float]] = field(factory=lambda: defaultdict(list))
    runs: list[int] = field(factory=list)
    _events: list[tuple[float, int, Callable[[], None]]] = field(factory=list)
    _number: Iterator[int] = field(factory=count)

    def at(self, time: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._events, (time, next(self._number), act))

    def send(self, tenant: str, then: Callable[[], None] = lambda: None) -> None:
        one = Ticket(tenant, "k", "m", self.now)
        self._then[id(one)] = one, then
        for schedule in self.schedules:
            if schedule.start_at_once(one, self.now):
                self._start(one, schedule)
                return
        home = min(self.schedules, key=lambda schedule: schedule.waiting)
        for schedule in self.schedules:
            schedule.enqueue(one, is_guest=schedule is not home)

    def run(self) -> None:
        while self._events:
            self.now, _, act = heapq.heappop(self._events)
            act()
            for schedule in self.schedules:
                while (one := schedule.next(self.now)) is not None:
                    for other in self.schedules:
                        if other is not schedule:
                            other.leave(one)
                    self._start(one, schedule)

    _then: dict[int, tuple[Ticket, Callable[[], None]]] = field(factory=dict)

    def _start(self, one: Ticket, schedule: Schedule) -> None:
        self.waits[one.tenant].append(self.now - one.arrived)
        self.runs.append(id(one))
        self.at(self.now + self.service_s(), lambda: self._end(one, schedule))

    def _end(self, one: Ticket, schedule: Schedule) -> None:
        schedule.heard(one, self.now)
        schedule.finish(one, self.now, is_served=True)
        self._then[id(one)][1]()


def warm(count: int) -> list[Schedule]:
    schedules = [Schedule(1, TURN_S) for _ in range(count)]
    for schedule in schedules:
        schedule.turns.seen(["m"])
    return schedules


@pytest.mark.parametrize("backends", [2, 3])
@pytest.mark.parametrize("seed", range(5))
def test_fifty_at_once_do_not_keep_one_waiting_at_any_backend(backends: int, seed: int):
    """Its wait is at most as long as the longest two requests, one that runs and one whose turn comes first.

    Nobody is sent twice, and no slot is idle while somebody waits: all is done as soon as first come, first
    served would have it, save for the last request of each.
    """
    random = Random(seed)
    took_s: list[float] = []

    def service_s() -> float:
        took_s.append(random.uniform(0.5, 1.5))
        return took_s[-1]

    world = Backends(warm(backends), service_s)
    for _ in range(50):
        world.at(0, lambda: world.send("many"))

    def one_by_one() -> None:
        if world.now < 12:
            world.send("single", then=one_by_one)

    world.at(0, one_by_one)
    world.run()

    assert max(world.waits["single"]) <= 2 * 1.5
    assert len(world.runs) == len(set(world.runs)) == len(took_s)
    slots = [0.0] * backends
    for seconds in took_s:
        heapq.heapreplace(slots, slots[0] + seconds)
    assert world.now <= max(slots) * 1.05
