"""Transcripts: what was said on any surface, in one shape, bounded."""

import gc
import tracemalloc
from collections.abc import Callable
from typing import Any

import orjson
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


def of_json(turns: int, text: str, **fields: Any) -> Callable[[], ChatCall]:
    """Makes the same chat each time anew, as it is read from a body."""
    body = orjson.dumps([{"role": "user", "content": f"{number} {text}"} for number in range(turns)])

    def made() -> ChatCall:
        return chat(*(Message(**turn) for turn in orjson.loads(body)), **fields)

    return made


def with_arguments(text: str) -> Callable[[], ChatCall]:
    return lambda: chat(Message("assistant", tool_calls=(ToolCall("c1", "f", orjson.loads(text)),)))


def many_tools() -> ChatCall:
    """Their schemas are not kept, nor held."""
    schema = orjson.dumps({f"field{number}": {"type": "string"} for number in range(200)})
    return chat(Message("user", "?"), tools=(Tool("f", "", orjson.loads(schema)),))


HELD = {
    "a question": of_json(1, "Why is the sky blue?"),
    "small turns": of_json(1000, "ok"),
    "more turns than are kept": of_json(10_000, ""),
    "a long text": of_json(1, "word " * 50_000),
    "a long text with one wide character": of_json(1, "word " * 50_000 + "\U0001f600"),
    "tokens": lambda: CompletionCall("llama3", (tuple(orjson.loads(str([*range(300, 20_300)]))),), False),
    "inputs": lambda: EmbedCall("llama3", tuple(orjson.loads(orjson.dumps(["some text"] * 1000)))),
    "arguments": with_arguments('{"a":[' + ",".join(['{"b":"some","c":1.5}'] * 1000) + "]}"),
    "tools": many_tools,
}


def measured(heard: Callable[[], Transcript]) -> tuple[Transcript, float]:
    """One, and how many bytes it takes."""
    heard()
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        held = [heard() for _ in range(8)]
        gc.collect()
        return held[0], (tracemalloc.get_traced_memory()[0] - before) / len(held)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("made", HELD.values(), ids=HELD)
def test_what_it_takes_in_memory_is_counted(made: Callable[[], Any]):
    """Not what came over the wire: of that small turns take four times as much, tokens seven times."""

    def heard() -> Transcript:
        transcript = Transcript(made(), "chat")
        transcript.hear([Delta("".join(["token", str(number)])) for number in range(500)])
        return transcript

    # Whatever else this process has at work can only add to what is found.
    held, taken = min((measured(heard) for _ in range(3)), key=lambda found: found[1])

    assert 0.9 <= held.held_bytes(0) / taken <= 1.5


def test_of_arguments_with_too_many_parts_the_most_is_counted_that_they_can_take():
    """So that looking does not hold the event loop up."""
    text = "[" + ",".join(["{}"] * 100_000) + "]"
    many = with_arguments(f'{{"a":{text}}}')()

    assert Transcript(many, "chat").held_bytes(len(text)) > 72 * 100_000


def test_turns_that_have_no_room_are_told_though_they_are_not_held():
    said = written(chat(*[Message("user", "x")] * 5_000))

    assert len(said["prompt"]) + said["turns_left_out"] == 5_000
    assert said["cut"]
