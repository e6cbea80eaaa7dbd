"""How long a model may be silent, learned from how long it was."""

from gateway.rules.silences import Silence, Silences

TURN_S = 10.0


def learned(*silent_s: float, silence: Silence | None = None) -> float:
    """The longest silence that is still usual, after these."""
    silences, silence = Silences(TURN_S), silence or Silence("m")
    for seconds in silent_s:
        silences.learn(silence, seconds)
    return silences.most_s(silence)


def test_before_anything_was_seen_it_is_a_turn_or_two():
    """Two where it is known that silence is to be expected."""
    assert learned() == TURN_S
    assert learned(silence=Silence("m", is_whole=True)) == 2 * TURN_S
    assert learned(silence=Silence("m", is_load=True)) == 2 * TURN_S


def test_it_is_never_less_than_a_turn():
    assert learned(*[0.01] * 100) == TURN_S


def test_the_first_one_is_taken_for_the_mean_with_half_of_it_as_deviation():
    """RFC 6298, 2.2."""
    assert learned(20.0) == 20 + 4 * 10


def test_what_is_always_alike_is_soon_noticed_when_it_is_not():
    assert 30.0 <= learned(*[30.0] * 40) < 31.0


def test_what_differs_is_given_more_time():
    assert learned(*[20.0, 40.0] * 20) > 50


def test_each_model_and_kind_of_silence_is_learned_apart():
    silences = Silences(TURN_S)
    silences.learn(Silence("slow", is_whole=True), 300.0)

    assert silences.most_s(Silence("slow")) == TURN_S
    assert silences.most_s(Silence("other", is_whole=True)) == 2 * TURN_S
