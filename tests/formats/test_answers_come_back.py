"""Answers come back as they were given: from each kind of backend to each surface, in any cut.

Where a protocol is spoken on both sides, our own reader or writer plays the side that isn't ours.
"""

from collections.abc import Callable
from typing import Any

import orjson
import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from gateway.formats import anthropic, ollama, openai, responses
from gateway.formats.chat import (
    AnswerReader,
    AnswerStamp,
    AnswerWriter,
    ChatCall,
    CompletionCall,
    Delta,
    Event,
    Finish,
    GenerateCall,
    Message,
    ToolCall,
    ToolCalls,
)
from gateway.formats.joined import joined
from gateway.model import JsonObject, Usage
from tests.formats.cuts import cut, places

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
said = texts.filter(bool)
names = st.text("abc_", min_size=1, max_size=8)
objects = st.dictionaries(names, st.integers(-5, 5) | texts | st.lists(st.booleans(), max_size=2), max_size=3)

STAMP = AnswerStamp("req_01J", "m", 1_700_000_000.9, lambda: 1_700_000_001.0)
CHAT = ChatCall("m", (Message("user", "Hi"),), stream=True, include_usage=True)
RESPONSE = responses.read_response({"model": "m", "input": "Hi", "stream": True})

deltas = st.builds(Delta, texts, texts).filter(lambda delta: delta != Delta())
called = st.lists(st.builds(ToolCall, names, names, objects), max_size=2, unique_by=lambda call: call.id)
counts = st.integers(1, 2**40)
finishes = st.builds(Finish, st.sampled_from(["stop", "length"]), st.builds(Usage, counts, counts))


@st.composite
def answers(draw: st.DrawFn) -> list[Event]:
    """An answer as every protocol can tell it: texts and thoughts, then calls, then the end."""
    events: list[Event] = list(draw(st.lists(deltas, max_size=5)))
    if calls := draw(called):
        events.append(ToolCalls(tuple(calls)))
    return [*events, draw(finishes)]


@frozen
class Told:
    """What an answer says, whichever way it was told."""

    text: str
    thinking: str
    calls: tuple[ToolCall, ...]
    reason: str
    usage: Usage


def told(events: list[Event]) -> Told:
    answer = joined(events, CHAT)
    finish = answer.finish
    reason = "tool_calls" if answer.calls and finish.reason == "stop" else finish.reason
    assert finish.usage is not None
    return Told(answer.content, answer.thinking, answer.calls, reason, finish.usage)


def read_by(reader: AnswerReader, data: bytes, places: tuple[int, ...] | list[int] = ()) -> list[Event]:
    events = [event for piece in cut(data, list(places)) for event in reader.feed(piece)]
    return events + reader.end()


def payloads(data: bytes) -> list[JsonObject]:
    """The objects of a stream of named events, each of which says its name once more."""
    found = []
    for frame in data.decode().split("\n\n")[:-1]:
        name, payload = frame.split("\n")
        found.append(orjson.loads(payload.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


def of_anthropic(message: JsonObject) -> Told:
    by_type: dict[str, list[Any]] = {"text": [], "thinking": [], "tool_use": []}
    for block in message["content"]:
        by_type[block["type"]].append(block)
    reasons = {"end_turn": "stop", "max_tokens": "length", "tool_use": "tool_calls"}
    return Told(
        "".join(block["text"] for block in by_type["text"]),
        "".join(block["thinking"] for block in by_type["thinking"]),
        tuple(ToolCall(block["id"], block["name"], block["input"]) for block in by_type["tool_use"]),
        reasons[message["stop_reason"]],
        Usage(message["usage"]["input_tokens"], message["usage"]["output_tokens"]),
    )


def streamed_by_anthropic(data: bytes) -> Told:
    """As its clients do it: blocks are begun, filled and ended, and the last usage counts."""
    message: JsonObject = {}
    for event in payloads(data):
        match event:
            case {"type": "message_start", "message": started}:
                message = started
            case {"type": "content_block_start", "index": index, "content_block": block}:
                assert index == len(message["content"])
                message["content"].append(block | {"json": ""})
            case {"type": "content_block_delta", "index": index, "delta": delta}:
                block = message["content"][index]
                names = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "signature"}
                name = names.get(delta["type"], "json")
                block[name] += delta["partial_json" if name == "json" else name]
            case {"type": "message_delta", "delta": delta, "usage": usage}:
                message |= delta | {"usage": usage}
    for block in message["content"]:
        if block["type"] == "tool_use":
            block["input"] = orjson.loads(block["json"])
    return of_anthropic(message)


def of_response(response: JsonObject) -> Told:
    message = [item for item in response["output"] if item["type"] == "message"]
    thoughts = [item for item in response["output"] if item["type"] == "reasoning"]
    calls = tuple(
        ToolCall(item["call_id"], item["name"], orjson.loads(item["arguments"]))
        for item in response["output"]
        if item["type"] == "function_call"
    )
    reason = "length" if response["incomplete_details"] else ("tool_calls" if calls else "stop")
    return Told(
        "".join(part["text"] for item in message for part in item["content"]),
        "".join(part["text"] for item in thoughts for part in item["summary"]),
        calls,
        reason,
        Usage(response["usage"]["input_tokens"], response["usage"]["output_tokens"]),
    )


def whole_of_openai(data: bytes) -> Told:
    answer = orjson.loads(data)
    choice = answer["choices"][0]
    message = choice["message"]
    return Told(
        message["content"] or "",
        message.get("reasoning", ""),
        tuple(
            ToolCall(call["id"], call["function"]["name"], orjson.loads(call["function"]["arguments"]))
            for call in message.get("tool_calls", ())
        ),
        choice["finish_reason"],
        Usage(answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"]),
    )


# By surface: its writer, its whole answer, and how its clients read the two.
Heard = Callable[[bytes], Told]
SURFACES: dict[str, tuple[Callable[[], AnswerWriter], Callable[[list[Event]], bytes], Heard, Heard]] = {
    "ollama": (
        lambda: ollama.ChatWriter(STAMP, CHAT),
        lambda events: ollama.write_chat_answer(events, STAMP, CHAT),
        lambda data: told(read_by(ollama.ChatReader(), data)),
        lambda data: told(ollama.read_chat_answer(data)),
    ),
    "openai": (
        lambda: openai.ChatWriter(STAMP, CHAT),
        lambda events: openai.write_chat_answer(events, STAMP, CHAT),
        lambda data: told(read_by(openai.ChatReader(), data)),
        whole_of_openai,
    ),
    "anthropic": (
        lambda: anthropic.ChatWriter(STAMP, CHAT),
        lambda events: anthropic.write_chat_answer(events, STAMP, CHAT),
        streamed_by_anthropic,
        lambda data: of_anthropic(orjson.loads(data)),
    ),
    "responses": (
        lambda: responses.ResponseWriter(STAMP, RESPONSE),
        lambda events: responses.write_response(events, STAMP, RESPONSE),
        lambda data: of_response(payloads(data)[-1]["response"]),
        lambda data: of_response(orjson.loads(data)),
    ),
}
# By kind: a backend that writes, and the reader of what it writes.
KINDS: dict[str, tuple[Callable[[], AnswerWriter], Callable[[], AnswerReader]]] = {
    "ollama": (lambda: ollama.ChatWriter(STAMP, CHAT), ollama.ChatReader),
    "openai": (lambda: openai.ChatWriter(STAMP, CHAT), openai.ChatReader),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("surface", SURFACES)
@given(events=answers(), places=places)
def test_an_answer_comes_back_as_it_was_given(
    surface: str, kind: str, events: list[Event], places: list[int]
):
    """In any cut; streamed and whole say the same: text, thinking, calls with ids, reason and counts."""
    writes, reads = KINDS[kind]
    writer, whole, hear_stream, hear_whole = SURFACES[surface]

    received = read_by(reads(), writes().write(events), places)

    assert hear_stream(writer().write(received)) == told(events)
    assert hear_whole(whole(received)) == told(events)


COMPLETION = CompletionCall("m", ("Hi",), stream=True, include_usage=True)
GENERATE = GenerateCall("m", "Hi", stream=True)
TEXTS: dict[str, tuple[Callable[[], AnswerWriter], Callable[[], AnswerReader]]] = {
    "ollama": (lambda: ollama.GenerateWriter(STAMP, GENERATE), ollama.GenerateReader),
    "openai": (lambda: openai.CompletionWriter(STAMP, COMPLETION), openai.CompletionReader),
}


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("surface", TEXTS)
@given(pieces=st.lists(said, max_size=5), finish=finishes, places=places)
def test_a_completion_comes_back_as_it_was_given(
    surface: str, kind: str, pieces: list[str], finish: Finish, places: list[int]
):
    """The same for /api/generate and /v1/completions, which have no calls."""
    events: list[Event] = [*map(Delta, pieces), finish]
    (writes, reads), (writer, hears) = TEXTS[kind], TEXTS[surface]

    received = read_by(reads(), writes().write(events), places)
    heard = read_by(hears(), writer().write(received), places)

    assert told(received) == told(heard) == told(events)
