"""Which models may be asked when, so that none is loaded again and again."""

from gateway.rules.model_turns import ModelTurns

TURN_S = 10.0


def turns_with(*models: str, now: float = 0.0) -> ModelTurns:
    """Of a backend that holds these at the same time, and no more."""
    turns = ModelTurns(TURN_S)
    turns.seen(models)
    return turns


def test_what_is_there_may_always_be_asked():
    turns = turns_with("x")

    assert turns.is_warm("x")
    assert not turns.asked("x", now=0)


def test_another_one_waits_while_what_is_there_is_wanted():
    turns = turns_with("x")
    assert turns.asked("y", now=0), "nobody wants x, so it goes at once"

    assert not turns.is_warm("x")
    assert not turns.may_load("x", now=9, is_wanted=True)
    assert turns.may_load("x", now=10, is_wanted=True)


def test_no_model_is_loaded_twice_within_a_turn():
    """Also where nobody wants what is there: two callers by turns would have each request load."""
    turns = turns_with()
    assert turns.asked("x", now=0)
    assert turns.asked("y", now=1)

    assert not turns.may_load("x", now=2, is_wanted=False)
    assert turns.ready_at("x", now=2, is_wanted=False) == TURN_S
    assert turns.may_load("x", now=TURN_S, is_wanted=False)


def test_a_backend_that_holds_two_lets_neither_wait():
    turns = turns_with("x", "y")

    assert not turns.asked("x", 0)
    assert not turns.asked("y", 0)
    assert turns.asked("z", 0), "the one that was asked longest ago goes"
    assert [turns.is_warm(model) for model in "xyz"] == [False, True, True]


def test_how_many_it_holds_is_learned_by_looking():
    """Before, it is taken to hold one; the second load shows that the first has stayed."""
    turns = turns_with()
    turns.asked("x", now=0)
    turns.loaded("x")
    turns.seen(["x"])
    turns.asked("y", now=1)
    assert not turns.is_warm("x")

    assert turns.loaded("y")
    turns.seen(["x", "y"])

    assert turns.is_warm("x")
    assert turns.is_warm("y")


def test_a_load_that_drove_another_out_shows_that_there_is_no_more_room():
    turns = turns_with("x", "y")
    turns.asked("z", now=0)
    turns.loaded("z")

    turns.seen(["z"])

    assert turns.resident == ["z"]
    assert not turns.may_load("x", now=1, is_wanted=True)


def test_a_backend_that_keeps_nothing_is_asked_at_once():
    """Nothing has to go for it, so waiting would spare no load."""
    turns = turns_with()
    turns.asked("x", now=0)
    turns.loaded("x")

    turns.seen([])

    assert turns.may_load("x", now=1, is_wanted=False)
    assert turns.may_load("y", now=1, is_wanted=True)


def test_what_expired_by_itself_leaves_its_room():
    """Nothing was loaded, so nothing had to go for it."""
    turns = turns_with("x", "y")

    turns.seen(["x"])

    assert turns.may_load("y", now=1, is_wanted=True)


def test_while_a_model_loads_the_backend_s_word_is_about_before():
    turns = turns_with("x")
    turns.asked("y", now=0)

    turns.seen(["x"])
    assert turns.resident == ["y"]

    turns.loaded("y")
    turns.seen(["y"])
    assert turns.resident == ["y"]


def test_what_was_never_asked_for_is_no_load_that_ended():
    assert not turns_with("x").loaded("x")


def test_loads_of_long_ago_are_forgotten():
    turns = turns_with()
    for number in range(1000):
        turns.asked(f"m{number}", now=number * TURN_S)

    assert len(turns._loaded_at) == 1
