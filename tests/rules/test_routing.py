"""Which of several backends is asked."""

import math
from typing import Any

import pytest
from attrs import evolve

from gateway.rules.routing import LOAD_S, Prospect, rank

IDLE = Prospect(
    is_draining=False,
    is_blocked=False,
    is_up=True,
    is_suspect=False,
    is_warm=True,
    wait_s=0,
    load_s=LOAD_S,
    busy=0,
)


def but(**changes: Any) -> Prospect:
    return evolve(IDLE, **changes)


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        pytest.param(but(), but(is_warm=False), id="warm before cold"),
        pytest.param(but(busy=9), but(is_warm=False), id="warm before cold, however busy"),
        pytest.param(but(), but(wait_s=1), id="a free slot before none"),
        pytest.param(but(is_warm=False), but(wait_s=LOAD_S + 1), id="a load is worth a longer wait"),
        pytest.param(but(wait_s=LOAD_S - 1), but(is_warm=False), id="and not a shorter one"),
        pytest.param(but(is_warm=False, load_s=2), but(wait_s=3), id="by how long it took last time"),
        pytest.param(but(busy=1), but(busy=1.5), id="the least busy for its weight"),
        pytest.param(but(is_warm=False, busy=1), but(is_warm=False, busy=2), id="also among cold ones"),
        pytest.param(but(is_warm=False, busy=9), but(is_up=False), id="one that answers"),
        pytest.param(but(is_warm=False), but(is_suspect=True), id="one that does not only err"),
        pytest.param(but(is_up=False), but(is_blocked=True), id="one that may be asked"),
        pytest.param(but(is_up=False), but(is_draining=True), id="one that stays"),
        pytest.param(but(is_warm=False), but(wait_s=math.inf), id="one that would not refuse"),
    ],
)
def test_the_better_one_is_asked(better: Prospect, worse: Prospect):
    assert min([worse, better], key=rank) is better


def test_of_equals_the_first_is_asked():
    """As the operator has listed them."""
    first, second = but(), but()

    assert min([first, second], key=rank) is first
