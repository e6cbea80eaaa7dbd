"""gateway.formats.anthropic.writing: answers as Anthropic's clients read them."""

from collections.abc import Sequence
from typing import Any

import orjson
import pytest
from anthropic.types import Message as AnthropicMessage
from anthropic.types import RawMessageStreamEvent
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from gateway.errors import BackendFailed
from gateway.formats.anthropic import PING, ChatWriter, read_chat, write_chat_answer
from gateway.formats.chat import (
    AnswerStamp,
    ChatCall,
    Delta,
    Event,
    Failure,
    Finish,
    Message,
    Sampling,
    ToolCall,
    ToolCalls,
)
from gateway.formats.openai.reading import ChatReader
from gateway.model import Usage
from tests.formats.cuts import cut, places
from tests.formats.recordings import of_llama_cpp

STAMP = AnswerStamp("req_01J", 'my "llama"', 1_700_000_000.9, lambda: 1_700_000_001.0)
# One message of twelve bytes: estimated as three tokens and five around them.
CALL = ChatCall(model="llama3", messages=(Message("user", "Hello there!"),), stream=True)
ADD, SUB = ToolCall("a", "add", {"x": 1}), ToolCall("", "sub", {})
SUB_ID = "toolu_a9cf315fb76a1c7e1959ccb4"
EVENTS: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)


def message(content: list[Any] | None = None, **more: Any) -> dict[str, Any]:
    return {
        "id": "msg_req_01J",
        "type": "message",
        "role": "assistant",
        "model": 'my "llama"',
        "content": content or [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 8, "output_tokens": 0},
        **more,
    }


START = {"type": "message_start", "message": message()}
STOP = {"type": "message_stop"}


def ending(reason: str, prompt: int = 0, completion: int = 0, stop_sequence: str | None = None) -> list[Any]:
    delta = {"stop_reason": reason, "stop_sequence": stop_sequence}
    usage = {"input_tokens": prompt, "output_tokens": completion}
    return [{"type": "message_delta", "delta": delta, "usage": usage}, STOP]


def block(index: int, begun: dict[str, Any], *deltas: dict[str, Any]) -> list[Any]:
    """The events of one block, from its beginning to its end."""
    return [
        {"type": "content_block_start", "index": index, "content_block": begun},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def text(index: int, *pieces: str) -> list[Any]:
    deltas = [{"type": "text_delta", "text": piece} for piece in pieces]
    return block(index, {"type": "text", "text": ""}, *deltas)


def thinking(index: int, *pieces: str) -> list[Any]:
    deltas = [{"type": "thinking_delta", "thinking": piece} for piece in pieces]
    signed = {"type": "signature_delta", "signature": "unsigned"}
    return block(index, {"type": "thinking", "thinking": "", "signature": ""}, *deltas, signed)


def tool_use(index: int, id: str, name: str, json: str) -> list[Any]:
    delta = {"type": "input_json_delta", "partial_json": json}
    return block(index, {"type": "tool_use", "id": id, "name": name, "input": {}}, delta)


def payloads_of(frames: bytes) -> list[Any]:
    """What a stream says; each event has its type for a name, and is what Anthropic's own models take."""
    payloads = []
    for frame in frames.removesuffix(b"\n\n").split(b"\n\n") if frames else []:
        name, data = frame.split(b"\n")
        payload = orjson.loads(data.removeprefix(b"data: "))
        assert name == b"event: " + payload["type"].encode()
        if payload["type"] not in ("ping", "error"):
            EVENTS.validate_python(payload)
        payloads.append(payload)
    return payloads


def stream(events: Sequence[Event], call: ChatCall = CALL) -> list[Any]:
    writer = ChatWriter(STAMP, call)
    return [payload for event in events for payload in payloads_of(writer.write([event]))]


# ── streams ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("events", "payloads"),
    [
        pytest.param(
            [Delta("Hel"), Delta("lo"), Finish("stop", Usage(9, 2))],
            [START, *text(0, "Hel", "lo"), *ending("end_turn", 9, 2)],
            id="text",
        ),
        pytest.param(
            [Delta("", "2+"), Delta("4", "2"), Finish("length")],
            [START, *thinking(0, "2+", "2"), *text(1, "4"), *ending("max_tokens")],
            id="thinking, before the text of the same event",
        ),
        pytest.param(
            [Delta("a"), Delta("", "hm"), Delta("b"), Finish("stop")],
            [START, *text(0, "a"), *thinking(1, "hm"), *text(2, "b"), *ending("end_turn")],
            id="thinking in between",
        ),
        pytest.param(
            [Delta("Well"), ToolCalls((ADD,)), ToolCalls((SUB,)), Finish("stop")],
            [
                START,
                *text(0, "Well"),
                *tool_use(1, "a", "add", '{"x":1}'),
                *tool_use(2, SUB_ID, "sub", "{}"),
                *ending("tool_use"),
            ],
            id="calls, each a block with an id",
        ),
        pytest.param([Finish("stop")], [START, *ending("end_turn")], id="an empty answer"),
        pytest.param(
            [Delta(), Delta("Hi"), Delta(), Finish("content_filter")],
            [START, *text(0, "Hi"), *ending("refusal")],
            id="an event that says nothing; a filter that cut",
        ),
    ],
)
def test_events_are_written_as_blocks(events: list[Event], payloads: list[Any]) -> None:
    """In the order in which Anthropic sends them, each block ended before the next begins."""
    assert stream(events) == payloads


@pytest.mark.parametrize(
    ("stop", "said", "reason"),
    [
        pytest.param(("\n", "END"), "END", ("stop_sequence", "END"), id="one of the caller's"),
        pytest.param(("END",), "</s>", ("end_turn", None), id="one of the model's own"),
        pytest.param(("END",), "", ("end_turn", None), id="a backend that does not say"),
    ],
)
def test_a_stop_sequence_is_told_where_it_is_known(stop, said: str, reason: tuple[str, str | None]) -> None:
    """vLLM says what it stopped at; Ollama and llama.cpp don't, and then nothing is made up."""
    call = evolve(CALL, sampling=Sampling(stop=stop))
    told, sequence = reason

    assert stream([Finish("stop", stop_sequence=said)], call) == [
        START,
        *ending(told, stop_sequence=sequence),
    ]


def test_thinking_that_the_caller_does_not_want_to_see_is_left_out() -> None:
    """`display: omitted`: the block is there and signed, but empty."""
    call = evolve(CALL, omit_thinking=True)
    events: list[Event] = [Delta("", "2+2"), Delta("4"), Finish("stop")]

    assert stream(events, call) == [START, *thinking(0), *text(1, "4"), *ending("end_turn")]
    assert orjson.loads(write_chat_answer(events, STAMP, call))["content"] == [
        {"type": "thinking", "thinking": "", "signature": "unsigned"},
        {"type": "text", "text": "4"},
    ]


def test_one_call_at_a_time_is_the_first_one() -> None:
    """`disable_parallel_tool_use`: no backend of ours can promise it, so what is more is not told."""
    call = evolve(CALL, parallel_tool_calls=False)
    events: list[Event] = [ToolCalls((ADD, SUB)), ToolCalls((ADD,)), Finish("tool_calls")]

    assert stream(events, call) == [START, *tool_use(0, "a", "add", '{"x":1}'), *ending("tool_use")]


@pytest.mark.parametrize("how", ["fail", "failure"])
def test_a_broken_stream_ends_with_an_error_and_nothing_else(how: str) -> None:
    """Anthropic's clients raise at it; message_stop would make the answer look complete."""
    writer = ChatWriter(STAMP, CALL)
    error = BackendFailed("The model's server broke off its answer.")
    writer.write([Delta("Hel")])
    last = writer.fail(error) if how == "fail" else writer.write([Failure(error)])

    assert payloads_of(last) == [
        {
            "type": "error",
            "error": {"type": "api_error", "message": "The model's server broke off its answer."},
            "request_id": "req_01J",
        }
    ]


def test_the_heartbeat_is_a_ping() -> None:
    assert payloads_of(PING) == [{"type": "ping"}]


def test_frames_of_one_write_are_joined() -> None:
    """One write of the socket for all events of one read."""
    events: list[Event] = [Delta("Hi", "hm"), ToolCalls((ADD,)), Finish("stop")]
    one_by_one, at_once = ChatWriter(STAMP, CALL), ChatWriter(STAMP, CALL)

    assert at_once.write(events) == b"".join(one_by_one.write([event]) for event in events)


@given(said=st.text(min_size=1))
def test_any_text_survives_the_frame(said: str) -> None:
    """Line ends, quotes and what JSON escapes."""
    assert stream([Delta(said, said), Finish("stop")])[1:-2] == [*thinking(0, said), *text(1, said)]


@given(places=places)
def test_a_recorded_answer_is_written_the_same_in_any_cut(places: list[int]) -> None:
    """llama.cpp's own bytes, through the whole translation."""
    reader, writer = ChatReader(), ChatWriter(STAMP, CALL)

    written = [writer.write(reader.feed(piece)) for piece in cut(of_llama_cpp("tool_call_stream"), places)]

    assert payloads_of(b"".join(written)) == [
        START,
        *tool_use(0, "eg0zFM6sNTNUDb3akTyNZ2Qx3u3WGSZ0", "get_weather", '{"city":"Paris"}'),
        *ending("tool_use", 163, 8),
    ]


@given(data=st.data())
def test_a_recorded_answer_that_is_cut_never_looks_complete(data: st.DataObject) -> None:
    """Up to the usage something is missing, and its end is not made up."""
    recorded = of_llama_cpp("chat_stream_usage")
    kept = data.draw(st.integers(0, recorded.index(b'"usage"')))

    written = ChatWriter(STAMP, CALL).write(ChatReader().feed(recorded[:kept]))

    assert all(payload["type"] not in ("message_delta", "message_stop") for payload in payloads_of(written))


# ── whole answers ────────────────────────────────────────────────────────────────────────


def answer(events: Sequence[Event], call: ChatCall = CALL) -> Any:
    """The whole message; it is what Anthropic's own model takes, strictly."""
    written = orjson.loads(write_chat_answer(events, STAMP, call))
    AnthropicMessage.model_validate(written, strict=True)
    return written


@pytest.mark.parametrize(
    ("events", "written"),
    [
        pytest.param(
            [Delta("Hel"), Delta("lo"), Finish("stop", Usage(9, 2))],
            message(
                [{"type": "text", "text": "Hello"}],
                stop_reason="end_turn",
                usage={"input_tokens": 9, "output_tokens": 2},
            ),
            id="text",
        ),
        pytest.param(
            [Finish("length", Usage(9, 0))],
            message(stop_reason="max_tokens", usage={"input_tokens": 9, "output_tokens": 0}),
            id="nothing",
        ),
        pytest.param(
            [Delta("Well", "2+2"), ToolCalls((ADD, SUB)), Finish("tool_calls", Usage(9, 2))],
            message(
                [
                    {"type": "thinking", "thinking": "2+2", "signature": "unsigned"},
                    {"type": "text", "text": "Well"},
                    {"type": "tool_use", "id": "a", "name": "add", "input": {"x": 1}},
                    {"type": "tool_use", "id": SUB_ID, "name": "sub", "input": {}},
                ],
                stop_reason="tool_use",
                usage={"input_tokens": 9, "output_tokens": 2},
            ),
            id="thinking, text and calls",
        ),
    ],
)
def test_a_whole_answer_is_written(events: list[Event], written: dict[str, Any]) -> None:
    """All keys that Anthropic's model requires are there, null or not."""
    assert answer(events) == written


def test_an_answer_that_failed_is_no_answer() -> None:
    """Before the first byte an error still has a status of its own."""
    with pytest.raises(BackendFailed, match="boom"):
        write_chat_answer([Delta("Hi"), Failure(BackendFailed("boom"))], STAMP, CALL)
    with pytest.raises(BackendFailed):
        write_chat_answer([Delta("Hi")], STAMP, CALL)


# ── streams and whole answers ────────────────────────────────────────────────────────────

words = st.text(min_size=1, max_size=9)
arguments = st.dictionaries(st.sampled_from("xyz"), st.integers(0, 9) | words, max_size=2)
calls = st.builds(ToolCall, st.uuids().map(str) | st.just(""), st.just("add"), arguments)
pieces = st.one_of(
    st.builds(Delta, words), st.builds(Delta, st.just(""), words), st.builds(Delta, words, words)
)


@given(
    said=st.lists(pieces, max_size=5),
    made=st.lists(calls, max_size=3).map(tuple),
    counted=st.builds(Usage, st.integers(0, 9), st.integers(0, 9)),
)
def test_what_was_answered_can_be_sent_back(
    said: list[Delta], made: tuple[ToolCall, ...], counted: Usage
) -> None:
    """Clients send an answer's content back as the assistant's turn: the model reads what it said."""
    events: list[Event] = [*said, *([ToolCalls(made)] if made else []), Finish("stop", counted)]
    content = answer(events)["content"]
    history = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": content}]

    call = read_chat({"model": "m", "max_tokens": 1, "messages": history})

    (turn,) = call.messages[1:]
    assert turn.content == "".join(piece.content for piece in said)
    assert turn.thinking == "".join(piece.thinking for piece in said)
    assert [(one.name, one.arguments) for one in turn.tool_calls] == [
        (one.name, one.arguments) for one in made
    ]
    assert all(one.id for one in turn.tool_calls)
