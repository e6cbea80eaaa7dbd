"""Transcripts: what was said on any surface, in one shape, bounded."""

from typing import Any

import pytest

from gateway.errors import BackendFailed
from gateway.formats.chat import (
    ChatCall,
    CompletionCall,
    Delta,
    EmbedCall,
    Failure,
    Finish,
    GenerateCall,
    Image,
    Message,
    Tool,
    ToolCall,
    ToolCalls,
)
from gateway.formats.transcripts import MAX_ANSWER_CHARACTERS, MAX_PROMPT_CHARACTERS, Transcript


def chat(*messages: Message, **fields) -> ChatCall:
    return ChatCall(model="llama3", messages=messages, stream=False, **fields)


def written(call, *events) -> dict[str, Any]:
    transcript = Transcript(call, "chat")
    transcript.hear(events)
    return transcript.written()


def test_a_chat_is_kept_with_its_answer():
    said = written(
        chat(Message("system", "Be kind"), Message("user", "Hi")),
        Delta("Hel", "hm"),
        Delta("lo"),
        Finish("stop"),
    )

    assert said == {
        "operation": "chat",
        "model": "llama3",
        "prompt": [{"role": "system", "content": "Be kind"}, {"role": "user", "content": "Hi"}],
        "turns_left_out": 0,
        "tools": [],
        "answers": [{"content": "Hello", "thinking": "hm", "finish": "stop"}],
        "cut": False,
    }


def test_tools_are_told_by_name_and_calls_with_their_arguments():
    call = ToolCall("c1", "weather", {"city": "Köln"})

    said = written(
        chat(
            Message("user", "?"),
            Message("assistant", tool_calls=(call,)),
            Message("tool", "rain", tool_name="weather"),
            tools=(Tool("weather", "a long description"),),
        ),
        ToolCalls((call,)),
        Finish("tool_calls"),
    )

    told = [{"name": "weather", "arguments": '{"city":"Köln"}'}]
    assert said["tools"] == ["weather"]
    assert said["prompt"][1:] == [
        {"role": "assistant", "content": "", "tool_calls": told},
        {"role": "tool", "name": "weather", "content": "rain"},
    ]
    assert said["answers"] == [{"content": "", "tool_calls": told, "finish": "tool_calls"}]


def test_of_an_image_only_type_and_size_are_kept():
    said = written(chat(Message("user", "What is it?", images=(Image("QUJDRA==" * 30, "image/png"),))))

    assert said["prompt"][0]["attachments"] == [{"media_type": "image/png", "bytes": 180}]
    assert "QUJD" not in str(said)


@pytest.mark.parametrize(
    ("call", "turns"),
    [
        pytest.param(
            GenerateCall("m", "Once", stream=False, system="Tell", suffix="end"),
            [("system", "Tell"), ("prompt", "Once"), ("suffix", "end")],
            id="generate",
        ),
        pytest.param(
            GenerateCall("m", "", stream=False, tokens=(1, 22)), [("prompt", "tokens 1 22")], id="tokens"
        ),
        pytest.param(
            CompletionCall("m", ("a", (3, 4)), stream=False, suffix="z"),
            [("prompt", "a"), ("prompt", "tokens 3 4"), ("suffix", "z")],
            id="completions",
        ),
        pytest.param(EmbedCall("m", ("one", "two")), [("input", "one"), ("input", "two")], id="embed"),
    ],
)
def test_every_kind_of_call_has_its_turns(call, turns):
    assert [(turn["role"], turn["content"]) for turn in written(call)["prompt"]] == turns


def test_several_answers_stay_apart():
    """Of `n` answers, or of several prompts, one follows the other."""
    said = written(chat(Message("user", "?")), Delta("a"), Finish("stop"), Delta("b"), Finish("length"))

    assert [(one["content"], one["finish"]) for one in said["answers"]] == [("a", "stop"), ("b", "length")]


@pytest.mark.parametrize(
    ("events", "finish"),
    [((Delta("ab"),), None), ((Delta("ab"), Failure(BackendFailed("x"))), "failed")],
    ids=["client left", "backend failed"],
)
def test_an_answer_that_was_cut_short_does_not_look_complete(events, finish):
    (answer,) = written(chat(Message("user", "?")), *events)["answers"]

    assert (answer["content"], answer["finish"]) == ("ab", finish)


def test_of_a_long_conversation_the_last_turns_are_kept():
    """What is cut says so, and by how much."""
    old = [Message("user", "x" * 1000) for _ in range(500)]

    said = written(chat(*old, Message("user", "the question")))

    assert said["cut"]
    assert said["prompt"][-1]["content"] == "the question"
    assert said["turns_left_out"] == 501 - len(said["prompt"])
    assert said["turns_left_out"] > 200
    assert "characters cut]" in said["prompt"][0]["content"]
    assert sum(len(turn["content"]) for turn in said["prompt"]) <= MAX_PROMPT_CHARACTERS + 100


def test_a_hundred_thousand_empty_turns_are_bounded_too():
    assert len(written(chat(*[Message("user", "")] * 100_000))["prompt"]) <= MAX_PROMPT_CHARACTERS // 64


def test_a_long_answer_is_cut_and_says_so():
    piece = "word " * 10

    said = written(chat(Message("user", "?")), *[Delta(piece)] * 5000, Finish("length"))

    (answer,) = said["answers"]
    assert said["cut"]
    assert answer["content"].startswith(piece)
    assert answer["content"].endswith(f"[… {5000 * 50 - MAX_ANSWER_CHARACTERS:,} characters cut]")
    assert len(answer["content"]) < MAX_ANSWER_CHARACTERS + 100
