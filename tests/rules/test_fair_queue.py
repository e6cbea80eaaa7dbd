"""Shares: who is next, of those who wait."""

from collections import Counter
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.rules.fair_queue import FairQueue, Ticket
from tests.effort import times


def every(model: str) -> bool:
    return True


def ticket(tenant: str, key: str = "k", **more: Any) -> Ticket:
    return Ticket(tenant, key, more.pop("model", "m"), more.pop("arrived", 0.0), **more)


def queue_of(*tickets: Ticket) -> FairQueue:
    queue = FairQueue()
    for one in tickets:
        queue.add(one)
    return queue


def served(queue: FairQueue, count: int = 1000, may: Any = every) -> list[Ticket]:
    out: list[Ticket] = []
    while len(out) < count and (one := queue.pop(may)) is not None:
        out.append(one)
    return out


def names(tickets: list[Ticket]) -> str:
    return "".join(one.tenant for one in tickets)


def test_tenants_take_turns_however_many_each_sends():
    queue = queue_of(*(ticket("a") for _ in range(50)), *(ticket("b") for _ in range(3)))

    assert names(served(queue, 8)) == "abababaa"


def test_who_comes_late_is_next_and_not_behind_all_others():
    queue = queue_of(*(ticket("a") for _ in range(50)))
    served(queue, 10)
    queue.add(ticket("b"))

    assert "b" in names(served(queue, 2))


def test_a_tenant_with_more_weight_is_served_more():
    queue = queue_of(*(ticket("a", weight=3) for _ in range(40)), *(ticket("b") for _ in range(40)))

    assert Counter(names(served(queue, 40))) == {"a": 30, "b": 10}


def test_the_keys_of_a_tenant_share_what_it_gets():
    """A script under one key does not starve the team's other keys."""
    loud = [ticket("a", "loud") for _ in range(20)]
    quiet = [ticket("a", "quiet") for _ in range(3)]
    queue = queue_of(*loud, *quiet, *(ticket("b") for _ in range(20)))

    first = served(queue, 12)

    assert Counter(one.tenant for one in first) == {"a": 6, "b": 6}
    assert sum(one.key == "quiet" for one in first) == 3


def test_a_key_s_requests_stay_in_order():
    mine = [ticket("a") for _ in range(5)]

    assert served(queue_of(*mine, ticket("b"))) != mine
    assert [one for one in served(queue_of(*mine, ticket("b"))) if one.tenant == "a"] == mine


def test_a_request_of_many_parts_costs_as_many_turns():
    """`n: 4` is four requests to the backend: it counts as four of the other's."""
    queue = queue_of(*(ticket("a", cost=4) for _ in range(10)), *(ticket("b") for _ in range(40)))

    assert Counter(names(served(queue, 25))) == {"a": 5, "b": 20}


def test_what_may_not_go_keeps_its_place_and_lets_others_pass():
    first, second = ticket("a", model="cold"), ticket("a", model="warm")
    queue = queue_of(first, second, ticket("b", model="cold"))

    assert served(queue, may=lambda model: model == "warm") == [second]
    assert names(served(queue)) == "ba", "b's turn: a has just been served"


def test_who_may_not_go_saves_up_nothing():
    """Else it would have a run of turns later, at the cost of those who were served meanwhile."""
    waits = [ticket("a", model="cold") for _ in range(20)]
    queue = queue_of(*waits, *(ticket("b", model="warm") for _ in range(40)))

    served(queue, 20, may=lambda model: model == "warm")

    assert Counter(names(served(queue, 20))) == {"a": 10, "b": 10}


def test_who_leaves_is_not_served():
    gone, stays = ticket("a"), ticket("a")
    queue = queue_of(gone, stays)

    queue.drop(gone)

    assert (len(queue), list(queue)) == (1, [stays])
    assert served(queue) == [stays]
    assert len(queue) == 0


def test_positions_go_by_shares():
    """Behind fifty of another tenant, one's own first is second."""
    many = [ticket("a") for _ in range(50)]
    mine = [ticket("b") for _ in range(2)]
    queue = queue_of(*many, *mine)

    assert [queue.position(one) for one in mine] == [2, 4]
    assert queue.position(many[-1]) == 52
    assert queue.ahead_of("c", weight=1) == 2


def test_where_there_is_no_room_the_newest_of_who_has_most_gives_way():
    """By shares: who waits with most for its weight. Its oldest keep their places."""
    many = [ticket("a") for _ in range(4)]
    queue = queue_of(*many, *(ticket("b", weight=6) for _ in range(6)))

    assert queue.gives_way(ticket("c")) is many[-1]
    assert queue.gives_way(ticket("b", weight=6)) is many[-1]


@pytest.mark.parametrize(
    "comes",
    [
        pytest.param(ticket("a"), id="who has most itself"),
        pytest.param(ticket("b"), id="who would have as much"),
    ],
)
def test_nobody_gives_way_to_who_would_have_as_much(comes: Ticket):
    """Else they would push each other out by turns."""
    queue = queue_of(*(ticket("a") for _ in range(3)), *(ticket("b") for _ in range(2)))

    assert queue.gives_way(comes) is None
    assert queue_of().gives_way(comes) is None


def test_a_key_alone_does_not_make_way_for_itself():
    """Not even where its tenant has been given more weight since."""
    assert queue_of(*(ticket("a") for _ in range(3))).gives_way(ticket("a", weight=9)) is None


def test_the_keys_of_a_tenant_share_its_places():
    """One that fills the queue makes way for another, as long as it has more; and for those of others."""
    flood = [ticket("a", "flood") for _ in range(4)]
    other = ticket("a", "other")
    queue = queue_of(*flood, other)

    assert queue.gives_way(ticket("a", "third")) is flood[-1]
    assert queue.gives_way(ticket("a", "other")) is flood[-1]
    assert queue.gives_way(ticket("a", "flood")) is None
    assert queue.gives_way(ticket("b")) is flood[-1], "of the tenant with most, the key with most"
    for gone in flood[2:]:
        queue.drop(gone)
    assert queue.gives_way(ticket("a", "other")) is None, "it would then have as much"
    assert queue.gives_way(ticket("a", "third")) is flood[1]


# ── guests ───────────────────────────────────────────────────────────────────────────────


def test_a_guest_is_served_in_its_turn_and_takes_no_place():
    """Nobody waits here for longer by the numbers, nor is refused, for one that has its place elsewhere."""
    mine = [ticket("a") for _ in range(2)]
    guests = [ticket("b"), ticket("a")]
    queue = queue_of(*mine)
    for guest in guests:
        queue.add(guest, is_guest=True)

    assert (len(queue), queue.placed, queue.waiting("b")) == (4, 2, 0)
    assert queue.ahead_of("c", weight=1) == 1
    assert queue.position(mine[1]) == 2
    assert served(queue) == [mine[0], guests[0], mine[1], guests[1]]
    assert (len(queue), queue.placed) == (0, 0)


def test_a_guest_never_gives_way():
    """It would make no room."""
    mine = [ticket("a") for _ in range(3)]
    queue = queue_of(*mine)
    for guest in (ticket("a"), *(ticket("b") for _ in range(9))):
        queue.add(guest, is_guest=True)

    assert queue.gives_way(ticket("c")) is mine[-1]


def test_who_joins_a_line_later_stands_where_it_would_have():
    """By when it came to the gateway: as a guest, or when the backend where it stood was taken away."""
    early, late, last = (ticket("a", arrived=float(when)) for when in (1, 2, 3))
    queue = queue_of(early, last)

    queue.add(late)

    assert [queue.position(one) for one in (early, late, last)] == [1, 2, 3]
    assert served(queue) == [early, late, last]


TICKETS = st.lists(
    st.tuples(
        st.sampled_from("abcd"),
        st.sampled_from("xy"),
        st.sampled_from(["m", "n"]),
        st.integers(1, 5),
    ),
    max_size=40,
)
WEIGHTS = st.fixed_dictionaries({name: st.integers(1, 4) for name in "abcd"})


@settings(max_examples=times(200), deadline=None)
@given(TICKETS, WEIGHTS, st.lists(st.sampled_from(["all", "m", "n", "drop"]), max_size=60))
def test_each_ticket_is_served_once_or_dropped(tickets: Any, weights: dict[str, int], steps: list[str]):
    """Whatever may go when, and whoever leaves: none is lost, none comes twice, a key's own stay in order.

    Those of key y are guests.
    """
    waiting = [
        ticket(tenant, key, model=model, cost=cost, weight=weights[tenant])
        for tenant, key, model, cost in tickets
    ]
    queue, out = FairQueue(), []
    for one in waiting:
        queue.add(one, is_guest=one.key == "y")
    for step in steps:
        if step == "drop":
            if len(queue):
                gone = next(iter(queue))
                queue.drop(gone)
                waiting.remove(gone)
            continue
        allowed = {"m", "n"} if step == "all" else {step}
        found = queue.pop(allowed.__contains__)
        assert (found is None) == (not any(one.model in allowed for one in waiting))
        if found is not None:
            assert found == next(
                one
                for one in waiting
                if (one.tenant, one.key) == (found.tenant, found.key) and one.model in allowed
            )
            waiting.remove(found)
            out.append(found)
        assert len(queue) == len(waiting)
        assert queue.placed == sum(one.key != "y" for one in waiting)
    assert set(map(id, served(queue))) == set(map(id, waiting))
    assert len(queue) == 0


@settings(max_examples=times(100), deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 5), st.integers(1, 6)), min_size=2, max_size=5),
    st.integers(20, 120),
)
def test_nobody_who_waits_gets_less_than_its_share(tenants: list[tuple[int, int]], count: int):
    """Of what was served while all wait: at most a request and a turn behind what the weights say."""
    costs = {f"t{number}": cost for number, (_, cost) in enumerate(tenants)}
    weights = {f"t{number}": weight for number, (weight, _) in enumerate(tenants)}
    queue = queue_of(
        *(ticket(name, cost=costs[name], weight=weights[name]) for name in costs for _ in range(count))
    )

    work = Counter[str]()
    for one in served(queue, count):
        work[one.tenant] += one.cost

    rounds = {name: work[name] / weights[name] for name in costs}
    slack = {name: 1 + cost / weights[name] for name, cost in costs.items()}
    for name, other in combinations(costs, 2):
        assert abs(rounds[name] - rounds[other]) <= slack[name] + slack[other]


@pytest.mark.parametrize("weight", [1, 3])
def test_alone_a_tenant_has_everything(weight: int):
    mine = [ticket("a", weight=weight) for _ in range(10)]

    assert served(queue_of(*mine)) == mine
