"""gateway.formats.chat: completions become chats; calls of tools and their answers find each other."""

import pytest
from attrs import evolve

from gateway.errors import UnsupportedField
from gateway.formats.chat import (
    Call,
    ChatCall,
    CompletionCall,
    EmbedCall,
    Format,
    GenerateCall,
    Image,
    Message,
    Sampling,
    ToolCall,
    as_chat,
    bounded,
    with_tool_ids,
)
from gateway.formats.responses.requests import ResponseCall

PNG = Image("iVBORw0KGgo=", "image/png")
GENERATE = GenerateCall(model="m", prompt="Once", stream=True)


@pytest.mark.parametrize(
    "call",
    [
        ChatCall("m", (Message("user", "Hi"),), stream=True, sampling=Sampling(seed=7, stop=("x",)), n=2),
        GENERATE,
        CompletionCall("m", ("Once", (1, 2)), stream=False, echo=True, dropped=("x",)),
        EmbedCall("m", ("Once",), dimensions=3, keep_alive=300),
        ResponseCall("m", (Message("user", "Hi"),), stream=True, echo={"user": "u"}),
    ],
    ids=lambda call: type(call).__name__,
)
@pytest.mark.parametrize("max_tokens", [5, None])
def test_a_call_is_bounded_and_nothing_else_of_it_changes(call: Call, max_tokens: int | None) -> None:
    asked = evolve(call, sampling=evolve(call.sampling, max_tokens=9))

    assert bounded(asked, max_tokens) == evolve(call, sampling=evolve(call.sampling, max_tokens=max_tokens))
    assert bounded(asked, 9) is asked


def test_a_completion_is_a_chat_of_one_turn() -> None:
    """Nothing is lost but the context, which only the server that gave it can read."""
    call = evolve(
        GENERATE,
        system="Be brief.",
        images=(PNG,),
        context=(1, 2),
        sampling=Sampling(seed=7),
        format=Format(),
        think=True,
        top_logprobs=2,
        keep_alive=300,
        truncate=True,
        dropped=("x",),
    )

    assert as_chat(call) == ChatCall(
        model="m",
        messages=(Message("system", "Be brief."), Message("user", "Once", images=(PNG,))),
        stream=True,
        sampling=Sampling(seed=7),
        format=Format(),
        think=True,
        top_logprobs=2,
        keep_alive=300,
        truncate=True,
        dropped=("x",),
    )


def test_what_no_chat_can_say_is_refused() -> None:
    """It would change the answer."""
    with pytest.raises(UnsupportedField) as suffix:
        as_chat(evolve(GENERATE, suffix="end."))
    with pytest.raises(UnsupportedField) as tokens:
        as_chat(evolve(GENERATE, prompt="", tokens=(1, 2)))

    assert (suffix.value.param, tokens.value.param) == ("suffix", "prompt")


def asks(*calls: tuple[str, str]) -> Message:
    """An assistant's message with calls, each as (id, name)."""
    return Message("assistant", tool_calls=tuple(ToolCall(id, name, {}) for id, name in calls))


def answers(id: str, name: str) -> Message:
    return Message("tool", content="42", tool_call_id=id, tool_name=name)


def test_given_ids_stay_and_bring_the_name() -> None:
    """OpenAI's clients name the answered call by its id, and Ollama's templates want the function's name."""
    messages = (asks(("a", "add"), ("b", "sub")), answers("b", ""), answers("a", ""))

    assert with_tool_ids(messages) == (messages[0], answers("b", "sub"), answers("a", "add"))


def test_missing_ids_are_made_up_and_matched_by_name() -> None:
    """ollama-python strips ids: the oldest unanswered call of that name is meant."""
    messages = (
        asks(("", "add"), ("", "sub"), ("", "add")),
        answers("", "sub"),
        answers("", "add"),
        answers("", "add"),
    )

    assert with_tool_ids(messages) == (
        asks(("call00001", "add"), ("call00002", "sub"), ("call00003", "add")),
        answers("call00002", "sub"),
        answers("call00001", "add"),
        answers("call00003", "add"),
    )


def test_without_id_and_name_the_oldest_unanswered_call_is_meant() -> None:
    """Answers come in the order of the calls."""
    messages = (asks(("", "add"), ("b", "sub")), answers("", ""), answers("", "unknown"))

    assert with_tool_ids(messages)[1:] == (answers("call00001", "add"), answers("b", "unknown"))


def test_calls_in_several_messages_are_answered_in_order() -> None:
    """Who streams with Ollama's client often keeps every chunk as a message of its own."""
    messages = (asks(("", "add")), asks(("", "sub")), answers("", ""), answers("", ""))

    assert with_tool_ids(messages)[2:] == (answers("call00001", "add"), answers("call00002", "sub"))


def test_a_lost_answer_does_not_shift_later_ones() -> None:
    """A call is answered in its turn, or never."""
    messages = (asks(("", "add")), Message("user", "go on"), asks(("", "sub")), answers("", ""))

    assert with_tool_ids(messages)[3] == answers("call00002", "sub")


def test_an_answer_to_nothing_gets_an_id_too() -> None:
    """A history may be cut anywhere, and backends refuse tool messages without an id."""
    assert with_tool_ids([answers("", "add"), answers("x", "")]) == (
        answers("call00001", "add"),
        answers("x", ""),
    )


def test_ids_that_were_given_are_not_made_up_again() -> None:
    """Two calls of one id could not be told apart."""
    messages = (asks(("", "add")), answers("call00001", ""), asks(("call00002", "sub")))

    assert with_tool_ids(messages)[0] == asks(("call00003", "add"))


def test_ids_are_the_same_each_time() -> None:
    """The history of the next turn begins with this one: prompt caches live on it."""
    messages = (asks(("", "add")), answers("", ""))
    longer = (*messages, Message("user", "and now?"), asks(("", "sub")))

    assert with_tool_ids(longer)[:2] == with_tool_ids(messages)


def test_other_messages_are_left_alone() -> None:
    """Only calls and their answers have ids."""
    messages = (Message("system", "Be brief."), Message("user", "Hi"), Message("assistant", "Hello"))

    assert with_tool_ids(messages) == messages


def test_ids_are_nine_letters_and_digits() -> None:
    """The templates of Mistral's models raise at any other id."""
    (message,) = with_tool_ids([asks(("", "add"))])

    assert message == evolve(message, tool_calls=(ToolCall("call00001", "add", {}),))
    assert len("call00001") == 9


def test_a_flood_of_calls_is_matched_in_bounded_time() -> None:
    """Calls that nobody answers are forgotten, oldest first; a given id stays in any case."""
    messages = [
        asks(*((f"id{number}", "add") for number in range(5_000))),
        answers("id0", ""),
        answers("", ""),
    ]

    assert with_tool_ids(messages)[1:] == (answers("id0", "add"), answers("id4744", "add"))
