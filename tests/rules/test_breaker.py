"""The circuit breaker, by its clock."""

from gateway.rules.breaker import FAILURES, FIRST_REST_S, MAX_REST_S, Breaker, BreakerState


def passed(breaker: Breaker, now: float) -> int:
    given = breaker.try_pass(now)
    assert given is not None
    return given


def opened(now: float = 0.0) -> Breaker:
    breaker = Breaker()
    for _ in range(FAILURES):
        breaker.failed(passed(breaker, now), now)
    return breaker


def may_pass(breaker: Breaker, now: float, times: int = 1) -> list[bool]:
    return [breaker.try_pass(now) is not None for _ in range(times)]


def test_single_failures_open_nothing():
    """A success in between, and the count begins anew."""
    breaker = Breaker()
    for _ in range(10):
        for _ in range(FAILURES - 1):
            breaker.failed(passed(breaker, 0), 0)
        breaker.succeeded(passed(breaker, 0))

    assert breaker.state(0) is BreakerState.CLOSED


def test_failures_in_a_row_open_it_for_a_while():
    breaker = opened(now=100)

    assert breaker.try_pass(100) is None
    assert breaker.try_pass(100 + FIRST_REST_S - 0.1) is None
    assert breaker.retry_after_s(100) == FIRST_REST_S
    assert breaker.state(100) is BreakerState.OPEN


def test_one_request_is_the_probe():
    """The others are kept away until it is known what became of it."""
    breaker, later = opened(), FIRST_REST_S

    assert breaker.state(later) is BreakerState.HALF_OPEN
    probe = passed(breaker, later)
    assert may_pass(breaker, later, 2) == [False, False]

    breaker.succeeded(probe)

    assert breaker.state(later) is BreakerState.CLOSED
    assert may_pass(breaker, later, 3) == [True] * 3


def test_a_probe_of_which_nothing_is_heard_keeps_others_away_for_a_while_only():
    """A plain answer may take an hour: the next one that comes may be the probe, too, and decides then."""
    breaker, later = opened(), FIRST_REST_S
    older = passed(breaker, later)

    assert breaker.try_pass(later + MAX_REST_S - 0.1) is None
    newer = passed(breaker, later + MAX_REST_S)
    assert breaker.try_pass(later + MAX_REST_S) is None

    breaker.failed(newer, later + MAX_REST_S)
    breaker.failed(older, later + MAX_REST_S + 1)

    assert breaker.retry_after_s(later + MAX_REST_S) == 2 * FIRST_REST_S, "what the older one says is old"


def test_each_probe_that_fails_doubles_the_rest_up_to_a_bound():
    breaker, now, rests = opened(), 0.0, []
    for _ in range(8):
        now += breaker.retry_after_s(now)
        breaker.failed(passed(breaker, now), now)
        rests.append(breaker.retry_after_s(now))

    assert rests[:3] == [2 * FIRST_REST_S, 4 * FIRST_REST_S, 8 * FIRST_REST_S]
    assert rests[-1] == MAX_REST_S


def test_a_probe_whose_caller_left_tells_nothing():
    """The next one is the probe."""
    breaker = opened()

    breaker.abandoned(passed(breaker, FIRST_REST_S))

    assert breaker.state(FIRST_REST_S) is BreakerState.HALF_OPEN
    assert may_pass(breaker, FIRST_REST_S, 2) == [True, False]


def test_what_was_sent_before_it_opened_says_nothing_of_the_probe():
    """However it ends: it neither closes nor prolongs, nor lets a second one in beside the probe."""
    breaker = Breaker()
    early = passed(breaker, 0)
    for _ in range(FAILURES):
        breaker.failed(passed(breaker, 0), 0)

    breaker.failed(early, FIRST_REST_S / 2)
    breaker.succeeded(early)
    assert breaker.state(FIRST_REST_S / 2) is BreakerState.OPEN
    probe = passed(breaker, FIRST_REST_S)
    breaker.abandoned(early)
    breaker.failed(early, FIRST_REST_S)
    breaker.succeeded(early)

    assert breaker.state(FIRST_REST_S) is BreakerState.HALF_OPEN
    assert breaker.try_pass(FIRST_REST_S) is None, "the probe is still under way"
    breaker.succeeded(probe)
    assert breaker.state(FIRST_REST_S) is BreakerState.CLOSED
    breaker.failed(early, FIRST_REST_S)
    breaker.failed(probe, FIRST_REST_S)
    breaker.failed(probe, FIRST_REST_S)
    assert breaker.state(FIRST_REST_S) is BreakerState.CLOSED, "only two of those count that came since"


def test_what_is_known_from_elsewhere_closes_it():
    breaker = opened()

    breaker.close()

    assert may_pass(breaker, 0, 2) == [True, True]
