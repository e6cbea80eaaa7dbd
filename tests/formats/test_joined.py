"""gateway.formats.joined: the events of an answer as one value."""

import pytest

from gateway.errors import BackendBusy, BackendFailed
from gateway.formats.chat import ChatCall, Delta, Event, Failure, Finish, GenerateCall, ToolCall, ToolCalls
from gateway.formats.joined import Joined, joined, joined_answers

ASKED = ChatCall("tiny", (), stream=False, top_logprobs=0)
NOT_ASKED = GenerateCall("tiny", "Hi", stream=False)
ITEM = {"token": "Hel", "logprob": -0.5, "bytes": None, "top_logprobs": []}
ADD, SUB = ToolCall("a", "add", {"x": 1}), ToolCall("", "sub", {})
END = Finish("tool_calls")


def test_what_came_in_pieces_is_one():
    """Each in its own order; calls keep the ids that they have or lack."""
    events: list[Event] = [
        Delta("Hel", "H", (ITEM,)),
        ToolCalls((ADD,)),
        Delta("lo", "m"),
        ToolCalls((SUB,)),
        END,
    ]

    assert joined(events, ASKED) == Joined(END, "Hello", "Hm", (ADD, SUB), (ITEM,))


def test_log_probabilities_that_nobody_wants_are_left_out():
    """Some backends send them unasked."""
    assert joined([Delta("Hel", logprobs=(ITEM,)), END], NOT_ASKED) == Joined(END, "Hel")


def test_an_answer_that_failed_is_none():
    """The backend's own error, so that the answer has its status."""
    with pytest.raises(BackendBusy, match="Later"):
        joined([Delta("Hel"), Failure(BackendBusy("Later."))], ASKED)


def test_an_answer_without_an_end_is_none():
    """It never looks complete."""
    with pytest.raises(BackendFailed, match="broke off"):
        joined([Delta("Hel")], ASKED)


def test_several_answers_follow_each_other():
    events: list[Event] = [Delta("Hel"), Delta("lo"), END, Delta("Hi"), END, END]

    assert joined_answers(events, ASKED, 3) == [Joined(END, "Hello"), Joined(END, "Hi"), Joined(END)]


@pytest.mark.parametrize(
    "events", [[END], [END, Delta("Hi")], [END, END, END], []], ids=["one", "one and a bit", "three", "none"]
)
def test_answers_of_which_one_is_missing_are_none(events):
    with pytest.raises(BackendFailed, match="broke off"):
        joined_answers(events, ASKED, 2)


def test_a_failure_of_one_answer_is_the_failure_of_all():
    with pytest.raises(BackendBusy, match="Later"):
        joined_answers([END, Delta("Hel"), Failure(BackendBusy("Later."))], ASKED, 2)
