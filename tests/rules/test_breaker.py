"""The circuit breaker, by its clock."""

from gateway.rules.breaker import FAILURES, FIRST_REST_S, MAX_REST_S, Breaker, BreakerState


def opened(now: float = 0.0) -> Breaker:
    breaker = Breaker()
    for _ in range(FAILURES):
        assert breaker.try_pass(now)
        breaker.failed(now)
    return breaker


def test_single_failures_open_nothing():
    """A success in between, and the count begins anew."""
    breaker = Breaker()
    for _ in range(10):
        for _ in range(FAILURES - 1):
            breaker.failed(0)
        breaker.succeeded()

    assert breaker.state(0) is BreakerState.CLOSED


def test_failures_in_a_row_open_it_for_a_while():
    breaker = opened(now=100)

    assert not breaker.try_pass(100)
    assert not breaker.try_pass(100 + FIRST_REST_S - 0.1)
    assert breaker.retry_after_s(100) == FIRST_REST_S
    assert breaker.state(100) is BreakerState.OPEN


def test_one_request_is_the_probe():
    """The others are kept away until it is known what became of it."""
    breaker, later = opened(), FIRST_REST_S

    assert breaker.state(later) is BreakerState.HALF_OPEN
    assert [breaker.try_pass(later) for _ in range(3)] == [True, False, False]

    breaker.succeeded()

    assert breaker.state(later) is BreakerState.CLOSED
    assert [breaker.try_pass(later) for _ in range(3)] == [True] * 3


def test_a_probe_of_which_nothing_is_heard_keeps_others_away_for_a_while_only():
    """A plain answer may take an hour: the next one that comes may be the probe, too."""
    breaker, later = opened(), FIRST_REST_S
    assert breaker.try_pass(later)

    assert not breaker.try_pass(later + MAX_REST_S - 0.1)
    assert [breaker.try_pass(later + MAX_REST_S) for _ in range(2)] == [True, False]

    breaker.failed(later + MAX_REST_S)
    breaker.failed(later + MAX_REST_S + 1)

    assert breaker.retry_after_s(later + MAX_REST_S) == 2 * FIRST_REST_S, "what the older one says is old"


def test_each_probe_that_fails_doubles_the_rest_up_to_a_bound():
    breaker, now, rests = opened(), 0.0, []
    for _ in range(8):
        now += breaker.retry_after_s(now)
        assert breaker.try_pass(now)
        breaker.failed(now)
        rests.append(breaker.retry_after_s(now))

    assert rests[:3] == [2 * FIRST_REST_S, 4 * FIRST_REST_S, 8 * FIRST_REST_S]
    assert rests[-1] == MAX_REST_S


def test_a_probe_whose_caller_left_tells_nothing():
    """The next one is the probe."""
    breaker = opened()
    assert breaker.try_pass(FIRST_REST_S)

    breaker.abandoned()

    assert breaker.state(FIRST_REST_S) is BreakerState.HALF_OPEN
    assert breaker.try_pass(FIRST_REST_S)


def test_what_was_sent_before_it_opened_does_not_prolong_it():
    breaker = opened()

    breaker.failed(FIRST_REST_S / 2)

    assert breaker.try_pass(FIRST_REST_S)
