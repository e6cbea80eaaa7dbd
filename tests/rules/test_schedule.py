"""The schedule of a backend with slots, in virtual time: shares, throughput, loads, and what hangs."""

import heapq
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import count, pairwise
from random import Random
from typing import Any

import pytest
from attrs import define, field

from gateway.rules.fair_queue import Ticket
from gateway.rules.schedule import Schedule

TURN_S = 10.0


def ticket(tenant: str = "a", model: str = "m", *, at: float = 0.0, **more: Any) -> Ticket:
    return Ticket(tenant, more.pop("key", "k"), model, at, **more)


@define
class World:
    """A backend that takes `service_s` for a request, and `load_s` more when it holds another model.

    It holds one model, as an Ollama that has no memory for two. Events are by time; nothing sleeps.
    """

    schedule: Schedule
    service_s: Callable[[Ticket], float] = lambda _: 1.0
    load_s: float = 0.0
    now: float = 0.0
    waits: dict[str, list[float]] = field(factory=lambda: defaultdict(list))
    ends: list[tuple[float, Ticket]] = field(factory=list)
    loads: dict[str, list[float]] = field(factory=lambda: defaultdict(list))
    most_at_once: int = 0
    _held: str = ""
    _events: list[tuple[float, int, Callable[[], None]]] = field(factory=list)
    _number: Iterator[int] = field(factory=count)

    def at(self, time: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._events, (time, next(self._number), act))

    def send(self, one: Ticket, then: Callable[[], None] = lambda: None) -> None:
        """It comes now; `then` when it was answered."""
        one.arrived, self._then[id(one)] = self.now, then
        if self.schedule.start_at_once(one, self.now):
            self._start(one)
        else:
            self.schedule.enqueue(one)

    def run(self, until: float = 1e6) -> None:
        while self._events and self._events[0][0] <= until:
            self.now, _, act = heapq.heappop(self._events)
            act()
            while (one := self.schedule.next(self.now)) is not None:
                self._start(one)
            wakes = self.schedule.wakes_at(self.now)
            assert wakes is None or wakes > self.now
            if wakes is not None:
                self.at(wakes, lambda: None)

    _then: dict[int, Callable[[], None]] = field(factory=dict)

    def _start(self, one: Ticket) -> None:
        self.waits[one.tenant].append(self.now - one.arrived)
        self.most_at_once = max(self.most_at_once, self.schedule.running)
        took_s = self.service_s(one)
        if self._held != one.model:
            self._held = one.model
            self.loads[one.model].append(self.now)
            took_s += self.load_s
        self.at(self.now + took_s, lambda: self._end(one))

    def _end(self, one: Ticket) -> None:
        self.ends.append((self.now, one))
        self.schedule.heard(one, self.now)
        self.schedule.finish(one, self.now, is_served=True)
        self._then.pop(id(one))()


def one_by_one(world: World, tenant: str, until: float, model: str = "m") -> None:
    """A caller that sends the next request once it has the answer to the last."""

    def send() -> None:
        if world.now < until:
            world.send(ticket(tenant, model), then=send)

    world.at(world.now, send)


def test_fifty_at_once_do_not_keep_one_waiting():
    """Two slots, two tenants: a share is a slot, in which a single sender would never wait.

    So its wait is at most one service time.
    """
    world = World(Schedule(2, TURN_S))
    for _ in range(50):
        world.at(0, lambda: world.send(ticket("many")))
    one_by_one(world, "single", until=30)

    world.run()

    assert max(world.waits["single"]) <= 1.0
    assert world.most_at_once == 2


@pytest.mark.parametrize("seed", range(5))
def test_service_times_of_all_lengths_change_nothing_of_that(seed: int):
    """The wait is at most as long as the longest request that runs."""
    random = Random(seed)
    world = World(Schedule(2, TURN_S), lambda _: random.uniform(0.2, 3.0))
    for _ in range(50):
        world.at(0, lambda: world.send(ticket("many")))
    one_by_one(world, "single", until=20)

    world.run()

    assert max(world.waits["single"]) <= 3.0


@pytest.mark.parametrize("seed", range(5))
def test_shares_cost_no_throughput(seed: int):
    """The last of all ends within 5 % of when it would, first come, first served: no slot is ever idle."""
    random = Random(seed)
    work = [(random.choice("abc"), random.uniform(0.5, 2.0)) for _ in range(200)]
    took_s: dict[int, float] = {}
    world = World(Schedule(4, TURN_S), lambda one: took_s[id(one)])
    tickets = [ticket(tenant) for tenant, _ in work]
    for one, (_, seconds) in zip(tickets, work, strict=True):
        took_s[id(one)] = seconds
        world.at(0, lambda one=one: world.send(one))  # type: ignore[misc]

    world.run()

    slots = [0.0] * 4
    for _, seconds in work:
        heapq.heapreplace(slots, slots[0] + seconds)
    assert len(world.ends) == len(work)
    assert world.ends[-1][0] <= max(slots) * 1.05


def test_interleaved_models_are_loaded_once_a_turn():
    """Two backlogs for two models on a backend that holds one: in turns, not by each request."""
    world = World(Schedule(1, TURN_S), load_s=2.0)
    for _ in range(60):
        world.at(0, lambda: world.send(ticket("a", "x")))
        world.at(0, lambda: world.send(ticket("b", "y")))

    world.run()

    assert len(world.ends) == 120
    for loads in world.loads.values():
        assert min(later - sooner for sooner, later in pairwise(loads)) >= TURN_S
    # By requests in turns it would have been 120.
    assert sum(map(len, world.loads.values())) <= 120 * 1.2 / TURN_S + 4


def test_two_callers_who_never_queue_up_do_not_make_it_load_in_turns_either():
    """Each sends its next request when it has an answer, so only the other one ever waits."""
    world = World(Schedule(1, TURN_S), load_s=2.0)
    one_by_one(world, "a", until=200, model="x")
    one_by_one(world, "b", until=200, model="y")

    world.run()

    for loads in world.loads.values():
        assert min(later - sooner for sooner, later in pairwise(loads)) >= TURN_S
    for waits in world.waits.values():
        assert max(waits) <= 2 * TURN_S + 3
        assert len(waits) > 20


@pytest.mark.parametrize("models", [2, 3, 5])
def test_the_turn_of_each_model_comes(models: int):
    """Nobody waits for longer than the turns of all others, and what runs when they end."""
    world = World(Schedule(2, TURN_S), load_s=1.0)
    for number in range(models):
        one_by_one(world, f"t{number}", until=500, model=f"m{number}")
        one_by_one(world, f"t{number}", until=500, model=f"m{number}")

    world.run()

    assert max(max(waits) for waits in world.waits.values()) <= models * (TURN_S + 3)
    for loads in world.loads.values():
        assert min(later - sooner for sooner, later in pairwise(loads)) >= TURN_S


@pytest.mark.parametrize("models", [3, 10])
def test_who_names_many_models_has_no_more_turns(models: int):
    """Turns go by tenants: who waits lets each of the others have one at most, however many it could fill."""
    world = World(Schedule(1, TURN_S), load_s=1.0)
    for number in range(models):
        for _ in range(3):
            one_by_one(world, "many", until=500, model=f"m{number}")
    for _ in range(3):
        one_by_one(world, "one", until=500, model="x")

    world.run()

    assert max(world.waits["one"]) <= 2 * (TURN_S + 3)
    assert max(world.waits["many"]) <= 2 * models * (TURN_S + 3)
    for loads in world.loads.values():
        assert min(later - sooner for sooner, later in pairwise(loads)) >= TURN_S


def test_two_that_want_the_same_models_do_not_keep_a_third_from_its_own():
    """Each has turns, whoever else is served in them. By deficit round robin c would wait to the end: which
    of the others is served last in a turn would decide each time that the next is not c's.
    """
    world = World(Schedule(2, TURN_S), lambda _: 2.0, load_s=1.0)
    for tenant, models in {"a": "xyz", "c": ["own"], "b": "xyz"}.items():
        for model in models:
            for _ in range(3):
                one_by_one(world, tenant, until=500, model=model)

    world.run(until=1000)

    assert max(world.waits["c"]) <= 3 * (TURN_S + 4)


def warm(slots: int, *models: str) -> Schedule:
    """Of a backend that holds these models."""
    schedule = Schedule(slots, TURN_S)
    schedule.turns.seen(models or ["x", "y"])
    return schedule


def sent(schedule: Schedule, model: str, now: float, *, is_whole: bool = False) -> Ticket:
    one = ticket("a", model)
    assert schedule.start_at_once(one, now)
    schedule.sent(one, now, is_whole=is_whole)
    return one


def lets_in(schedule: Schedule, model: str, now: float) -> bool:
    """Whether one for this model would be sent now."""
    return not schedule.would_wait(model, now)


def test_a_model_that_hangs_keeps_its_slots_from_itself_only():
    """Others wait for a turn at most, and then see nothing of it."""
    schedule = warm(2)
    for _ in range(2):
        sent(schedule, "x", 0.0)
    other, same = ticket("b", "y"), ticket("a", "x")
    assert not schedule.start_at_once(other, 1.0)
    schedule.enqueue(other)
    schedule.enqueue(same)

    assert schedule.next(1.0) is None
    assert schedule.wakes_at(1.0) == TURN_S
    assert schedule.next(TURN_S) is other
    assert schedule.next(TURN_S) is None, "its own model has no slot left"
    assert schedule.start_at_once(ticket("b", "y"), TURN_S)


def test_a_stream_that_goes_on_does_not_hang():
    """However long it takes; each piece is a sign."""
    schedule = warm(1)
    streams = sent(schedule, "x", 0.0)

    for now in range(0, 500, 9):
        schedule.heard(streams, now)

        assert not lets_in(schedule, "y", now + 8.9)


def test_a_stream_that_stops_in_the_middle_hangs():
    """Until it goes on: then it holds its slot against all."""
    schedule = warm(1)
    streams = sent(schedule, "x", 0.0)
    schedule.heard(streams, 3.0)

    assert not lets_in(schedule, "y", 3.0 + TURN_S - 0.1)
    assert lets_in(schedule, "y", 3.0 + TURN_S)
    assert not lets_in(schedule, "x", 3.0 + TURN_S)
    schedule.heard(streams, 20.0)
    assert not lets_in(schedule, "y", 20.0)


def test_how_long_an_answer_takes_is_learned():
    """What comes in one piece says nothing before it is complete, which may be usual after 40 s."""
    schedule, now = warm(1), 0.0
    for seconds in (40.0, 38.0, 43.0, 40.0, 39.0, 41.0) * 3:
        one = sent(schedule, "x", now, is_whole=True)
        now += seconds
        schedule.heard(one, now)
        schedule.finish(one, now, is_served=True)

    sent(schedule, "x", now, is_whole=True)

    assert not lets_in(schedule, "y", now + 44)
    assert lets_in(schedule, "y", now + 60), "and then it does hang"
    assert not lets_in(schedule, "x", now + 60)


def test_a_model_that_answers_others_does_not_hang():
    """One long answer among short ones: that these come shows that the model works."""
    schedule, now = warm(2), 0.0
    sent(schedule, "x", now, is_whole=True)
    while now < 300:
        short = sent(schedule, "x", now, is_whole=True)
        now += 2.0
        assert not lets_in(schedule, "y", now - 0.1)
        schedule.heard(short, now)
        schedule.finish(short, now, is_served=True)
    sent(schedule, "x", now, is_whole=True)

    assert not lets_in(schedule, "y", now + TURN_S - 0.1)
    assert lets_in(schedule, "y", now + 1000), "with nothing from either it does"


def test_a_load_may_take_its_time():
    """Also for those that were sent while it goes on; and how long it takes is learned."""
    schedule = Schedule(2, TURN_S)
    first, second = sent(schedule, "x", 0.0), sent(schedule, "x", 5.0)
    assert not lets_in(schedule, "y", 19.0)
    schedule.heard(first, 19.0)
    schedule.heard(second, 19.0)
    for one in (first, second):
        schedule.finish(one, 30.0, is_served=True)
    schedule.turns.seen([])

    for _ in range(2):
        sent(schedule, "x", 100.0)

    assert not lets_in(schedule, "y", 125.0)
    assert lets_in(schedule, "y", 190.0)


def test_a_model_that_was_given_up_is_taken_to_hang_until_it_answers():
    """Else those who wait for it would hold others up anew, for a turn each time that one ends."""
    schedule = warm(1)
    given_up = sent(schedule, "x", 0.0)
    schedule.finish(given_up, 300.0, is_served=False, is_given_up=True)

    again = sent(schedule, "x", 300.0)
    assert lets_in(schedule, "y", 300.0)
    assert not lets_in(schedule, "x", 300.0)

    schedule.heard(again, 301.0)
    assert not lets_in(schedule, "y", 301.0)


def test_who_waits_for_a_model_that_hangs_gives_way_first():
    """Else those would fill the queue, and keep other models' requests of the same key out of it."""
    schedule = warm(1)
    sent(schedule, "x", 0.0)
    waiting = [ticket("a", "x") for _ in range(3)]
    for one in waiting:
        schedule.enqueue(one)

    assert schedule.gives_way(ticket("a", "y"), TURN_S - 0.1) is None, "it may still answer"
    assert schedule.gives_way(ticket("a", "y"), TURN_S) is waiting[-1]
    assert schedule.gives_way(ticket("a", "x"), TURN_S) is None


def test_a_model_that_others_made_hang_costs_nobody_its_places():
    """Who has more waiting than who waits for it, for its share, would else have those places, too."""
    schedule = warm(1)
    sent(schedule, "x", 0.0)
    few, many = [ticket("b", "x") for _ in range(2)], [ticket("a", "y") for _ in range(5)]
    for one in (*few, *many):
        schedule.enqueue(one)

    assert schedule.gives_way(ticket("a", "y"), TURN_S) is None
    assert schedule.gives_way(ticket("c", "y"), TURN_S) is few[-1]


@pytest.mark.parametrize("after_s", [5.0, 2 * TURN_S])
def test_a_caller_who_leaves_says_nothing_of_its_model(after_s: float):
    """Else one that leaves while a long prompt is read would let others exceed the slots."""
    schedule = warm(1)
    schedule.finish(sent(schedule, "x", 0.0), after_s, is_served=False)

    sent(schedule, "x", 300.0)

    assert not lets_in(schedule, "y", 300.0 + TURN_S - 0.1)


def test_each_part_of_a_call_is_waited_for():
    """The first one's answer says nothing of a second that hangs."""
    schedule = warm(1)
    one = sent(schedule, "x", 0.0, is_whole=True)
    schedule.heard(one, 1.0)

    schedule.sent(one, 2.0, is_whole=True)

    assert not lets_in(schedule, "y", 11.0)
    assert lets_in(schedule, "y", 2.0 + 2 * TURN_S)


def test_what_ran_before_there_were_slots_has_one():
    schedule, ran = Schedule(1, TURN_S), ticket("a", at=3.0)

    schedule.adopt(ran, 10.0)

    assert not schedule.start_at_once(ticket("b"), 10.0)
    schedule.finish(ran, 13.0, is_served=True)
    assert schedule.service_s == 10.0


def test_who_comes_later_does_not_pass_who_waits_and_may_go():
    schedule = Schedule(1, TURN_S)
    first = ticket("a")
    schedule.start_at_once(first, 0.0)
    schedule.enqueue(ticket("b"))
    schedule.finish(first, 1.0, is_served=True)

    assert not schedule.start_at_once(ticket("c"), 1.0)


def test_what_is_to_be_expected_is_learned():
    """Nothing is said before anything was seen; then by the share of the slots."""
    schedule = Schedule(2, TURN_S)
    running = [ticket("a"), ticket("a")]
    for one in running:
        schedule.start_at_once(one, 0.0)
    assert schedule.expected_wait_s(ticket("b"), 1.0) == 0.0

    schedule.finish(running[0], 4.0, is_served=True)
    schedule.start_at_once(ticket("a"), 4.0)
    for _ in range(10):
        schedule.enqueue(ticket("a"))

    assert schedule.service_s == 4.0
    assert schedule.expected_wait_s(ticket("a"), 4.0) == 11 * 4.0 / 2
    assert schedule.expected_wait_s(ticket("b"), 4.0) == 2 * 4.0 / 2
    assert (schedule.next_position(ticket("a")), schedule.next_position(ticket("b"))) == (11, 2)


def test_what_was_broken_off_says_nothing_of_how_long_it_takes():
    schedule = Schedule(1, TURN_S)
    one = ticket()
    schedule.start_at_once(one, 0.0)

    schedule.finish(one, 0.1, is_served=False)

    assert schedule.service_s is None


def test_a_request_of_many_parts_is_measured_by_the_part():
    schedule = Schedule(1, TURN_S)
    one = ticket(cost=4)
    schedule.start_at_once(one, 0.0)

    schedule.finish(one, 8.0, is_served=True)

    assert schedule.service_s == 2.0


def test_a_model_whose_turn_is_to_come_is_expected_then():
    schedule = Schedule(1, TURN_S)
    running = ticket("a", "x")
    schedule.start_at_once(running, 0.0)
    schedule.enqueue(ticket("a", "x"))

    assert schedule.expected_wait_s(ticket("b", "y"), 4.0) == TURN_S - 4


def test_what_answers_is_there_whatever_the_backend_says():
    schedule = Schedule(2, TURN_S)
    streams = ticket("a", "x")
    schedule.start_at_once(streams, 0.0)
    schedule.heard(streams, 0.0)

    schedule.seen_loaded(frozenset())

    assert schedule.start_at_once(ticket("a", "x"), 1.0)


def test_who_leaves_makes_room():
    schedule = Schedule(1, TURN_S)
    running, gone, stays = ticket("a"), ticket("b"), ticket("c")
    schedule.start_at_once(running, 0.0)
    schedule.enqueue(gone)
    schedule.enqueue(stays)

    schedule.leave(gone)
    schedule.finish(running, 1.0, is_served=True)

    assert schedule.tickets() == (stays,)
    assert (schedule.next(1.0), schedule.next(1.0)) == (stays, None)
    assert (schedule.running, schedule.waiting) == (1, 0)
    assert schedule.wakes_at(1.0) is None
