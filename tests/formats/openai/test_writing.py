"""gateway.formats.openai.writing: answers as OpenAI's clients read them."""

from collections.abc import Sequence
from typing import Any

import orjson
import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from gateway.errors import BackendFailed
from gateway.formats import sse
from gateway.formats.chat import (
    AnswerStamp,
    ChatCall,
    Delta,
    Event,
    Failure,
    Finish,
    ToolCall,
    ToolCalls,
)
from gateway.formats.openai.reading import ChatReader
from gateway.formats.openai.writing import ChatWriter, write_chat_answer
from gateway.formats.sse import EventSplitter
from gateway.model import Usage

STAMP = AnswerStamp("01J", 'my "llama"', 1_700_000_000.9, lambda: 1_700_000_001.0)
CALL = ChatCall(model="llama3", messages=(), stream=True)
HEAD = {
    "id": "chatcmpl-01J",
    "object": "chat.completion.chunk",
    "created": 1_700_000_000,
    "model": 'my "llama"',
    "system_fingerprint": "fp_neuronetz",
}
ADD, SUB = ToolCall("a", "add", {"x": 1}), ToolCall("", "sub", {})
ADD_WIRE = {"id": "a", "type": "function", "function": {"name": "add", "arguments": '{"x":1}'}}
SUB_ID = "call_76945a06aeeb80da4561fae0"
ITEM = {"token": "Hi", "logprob": -0.5, "bytes": [72, 105], "top_logprobs": []}
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def stream(events: Sequence[Event], call: ChatCall = CALL) -> list[Any]:
    """The payloads of a whole stream; each chunk is what OpenAI's own models take, strictly."""
    writer = ChatWriter(STAMP, call)
    splitter = EventSplitter()
    payloads = [payload for event in events for payload in splitter.feed(writer.write([event]))]
    assert splitter.end() == []
    read = [payload.decode() if payload == b"[DONE]" else orjson.loads(payload) for payload in payloads]
    for payload in read:
        if payload != "[DONE]" and "error" not in payload:
            ChatCompletionChunk.model_validate(payload, strict=True)
    return read


def chunk(
    delta: dict[str, Any], reason: str | None = None, logprobs: Any = None, **more: Any
) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
    return {**HEAD, "choices": [choice], **more}


# ── streams ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("events", "payloads"),
    [
        pytest.param(
            [Delta("Hel"), Delta("lo"), Finish("stop", Usage(3, 2))],
            [
                chunk({"role": "assistant", "content": "Hel"}),
                chunk({"content": "lo"}),
                chunk({}, "stop"),
                "[DONE]",
            ],
            id="text: the role comes with the first",
        ),
        pytest.param(
            [Delta("", "2+2"), Delta("4", "!"), Finish("length")],
            [
                chunk({"role": "assistant", "content": "", "reasoning": "2+2", "reasoning_content": "2+2"}),
                chunk({"content": "", "reasoning": "!", "reasoning_content": "!"}),
                chunk({"content": "4"}),
                chunk({}, "length"),
                "[DONE]",
            ],
            id="thinking by both names, before the text of the same event",
        ),
        pytest.param(
            [ToolCalls((ADD,)), ToolCalls((SUB,)), Finish("stop")],
            [
                chunk({"role": "assistant", "content": "", "tool_calls": [{"index": 0, **ADD_WIRE}]}),
                chunk(
                    {
                        "content": "",
                        "tool_calls": [
                            {
                                "index": 1,
                                "id": SUB_ID,
                                "type": "function",
                                "function": {"name": "sub", "arguments": "{}"},
                            }
                        ],
                    }
                ),
                chunk({}, "tool_calls"),
                "[DONE]",
            ],
            id="calls are numbered through the answer",
        ),
        pytest.param(
            [Finish("stop")],
            [chunk({"role": "assistant", "content": ""}), chunk({}, "stop"), "[DONE]"],
            id="an empty answer has a role too",
        ),
        pytest.param(
            [Delta(), Delta("Hi"), Delta(), Finish("stop")],
            [chunk({"role": "assistant", "content": "Hi"}), chunk({}, "stop"), "[DONE]"],
            id="an event that says nothing is no chunk",
        ),
        pytest.param(
            [Delta("Hi", logprobs=(ITEM,)), Finish("stop")],
            [chunk({"role": "assistant", "content": "Hi"}), chunk({}, "stop"), "[DONE]"],
            id="logprobs that were not asked for are left out",
        ),
    ],
)
def test_events_are_written_as_chunks(events: list[Event], payloads: list[Any]) -> None:
    """In the order in which OpenAI sends them."""
    assert stream(events) == payloads


def test_usage_comes_last_where_it_was_asked_for() -> None:
    """Every other chunk has the key with null, as OpenAI has it."""
    call = evolve(CALL, include_usage=True)

    assert stream([Delta("Hi"), Finish("stop", Usage(3, 2))], call) == [
        chunk({"role": "assistant", "content": "Hi"}, usage=None),
        chunk({}, "stop", usage=None),
        {**HEAD, "choices": [], "usage": USAGE},
        "[DONE]",
    ]


def test_a_usage_that_nobody_knows_is_left_out() -> None:
    """Better none than zeros; the relay puts an estimate there."""
    call = evolve(CALL, include_usage=True)

    assert stream([Delta("Hi"), Finish("stop")], call)[1:] == [chunk({}, "stop", usage=None), "[DONE]"]


def test_logprobs_have_all_keys_and_no_more_alternatives_than_asked_for() -> None:
    """The strict models of OpenAI's client demand top_logprobs and bytes."""
    call = evolve(CALL, top_logprobs=1)
    bare = {
        "token": "é",
        "logprob": -1,
        "top_logprobs": [{"token": "é", "logprob": -1}, {"token": "e", "logprob": -2}],
    }

    assert stream([Delta("é", logprobs=(bare, ITEM)), Delta("", logprobs=(ITEM,)), Finish("stop")], call)[
        :2
    ] == [
        chunk(
            {"role": "assistant", "content": "é"},
            logprobs={
                "content": [
                    {
                        "token": "é",
                        "logprob": -1,
                        "bytes": [195, 169],
                        "top_logprobs": [{"token": "é", "logprob": -1, "bytes": [195, 169]}],
                    },
                    ITEM,
                ],
                "refusal": None,
            },
        ),
        chunk({"content": ""}, logprobs={"content": [ITEM], "refusal": None}),
    ]


def test_one_call_at_a_time_is_the_first_one() -> None:
    """No backend of ours can promise it, so what is more is not told."""
    call = evolve(CALL, parallel_tool_calls=False)

    assert stream([ToolCalls((ADD, SUB)), ToolCalls((ADD,)), Finish("tool_calls")], call) == [
        chunk({"role": "assistant", "content": "", "tool_calls": [{"index": 0, **ADD_WIRE}]}),
        chunk({}, "tool_calls"),
        "[DONE]",
    ]


def test_several_answers_follow_each_other() -> None:
    """Each begins with its role and has calls with ids of its own; usage is told once, of all."""
    call = evolve(CALL, n=2, include_usage=True)
    answered: list[Event] = [Delta("Hi"), ToolCalls((SUB,)), Finish("tool_calls", Usage(3, 2))]

    *chunks, last, done = stream([*answered, *answered], call)

    choices = [one["choices"][0] for one in chunks]
    assert [choice["index"] for choice in choices] == [0, 0, 0, 1, 1, 1]
    assert [choice["delta"].get("role") for choice in choices] == ["assistant", None, None] * 2
    assert [choice["finish_reason"] for choice in choices] == [None, None, "tool_calls"] * 2
    calls = [call for choice in choices for call in choice["delta"].get("tool_calls", ())]
    assert [call["index"] for call in calls] == [0, 0]
    assert len({call["id"] for call in calls}) == 2
    assert last["usage"] == {"prompt_tokens": 6, "completion_tokens": 4, "total_tokens": 10}
    assert done == "[DONE]"


def test_whoever_offered_functions_gets_a_function_call() -> None:
    """The elder shape has no id and room for one."""
    call = evolve(CALL, as_functions=True, parallel_tool_calls=False)

    assert stream([ToolCalls((ADD, SUB)), Finish("tool_calls")], call) == [
        chunk({"role": "assistant", "content": None, "function_call": ADD_WIRE["function"]}),
        chunk({}, "function_call"),
        "[DONE]",
    ]


@pytest.mark.parametrize("how", ["fail", "failure"])
def test_a_broken_stream_ends_with_an_error_and_nothing_else(how: str) -> None:
    """openai-python and openai-node raise at a frame with `error`; [DONE] would make it look complete."""
    writer = ChatWriter(STAMP, CALL)
    error = BackendFailed("The model's server broke off its answer.")
    last = writer.fail(error) if how == "fail" else writer.write([Failure(error)])

    assert last.startswith(b"data: ")
    assert last.endswith(b"\n\n")
    assert orjson.loads(last[6:]) == {
        "error": {
            "message": "The model's server broke off its answer.",
            "type": "server_error",
            "param": None,
            "code": "backend_failed",
        }
    }


def test_frames_of_one_write_are_joined() -> None:
    """One write of the socket for all events of one read."""
    events: list[Event] = [Delta("Hi"), ToolCalls((ADD,)), Finish("stop")]
    one_by_one, at_once = ChatWriter(STAMP, CALL), ChatWriter(STAMP, CALL)

    assert at_once.write(events) == b"".join(one_by_one.write([event]) for event in events)


@given(text=st.text())
def test_any_text_survives_the_frame(text: str) -> None:
    """Line ends, quotes and what JSON escapes."""
    payloads = stream([Delta(text), Finish("stop")])

    assert payloads[0]["choices"][0]["delta"] == {"role": "assistant", "content": text}


deltas = st.builds(Delta, st.text(min_size=1, max_size=9), st.just("")) | st.builds(
    Delta, st.just(""), st.text(min_size=1, max_size=9)
)
arguments = st.dictionaries(st.sampled_from("xyz"), st.integers(0, 9), max_size=2)
calls = st.lists(st.builds(ToolCall, st.uuids().map(str), st.just("add"), arguments), max_size=3).map(tuple)


@given(
    text=st.lists(deltas, max_size=5),
    calls=calls,
    counted=st.builds(Usage, st.integers(0, 9), st.integers(0, 9)),
)
def test_what_is_written_is_read_back(text: list[Delta], calls: tuple[ToolCall, ...], counted: Usage) -> None:
    """A gateway behind a gateway: our surface is a backend of the kind openai."""
    call = evolve(CALL, include_usage=True)
    finish = Finish("tool_calls" if calls else "stop", counted)
    events: list[Event] = [*text, *([ToolCalls(calls)] if calls else []), finish]
    reader = ChatReader()

    assert reader.feed(ChatWriter(STAMP, call).write(events)) + reader.end() == events


# ── whole answers ────────────────────────────────────────────────────────────────────────


def answer(events: Sequence[Event], call: ChatCall = CALL) -> Any:
    """The whole answer; it is what OpenAI's own model takes, strictly."""
    written = orjson.loads(write_chat_answer(events, STAMP, call))
    ChatCompletion.model_validate(written, strict=True)
    return written


def completion(message: dict[str, Any], reason: str, logprobs: Any = None, **more: Any) -> dict[str, Any]:
    choice = {
        "index": 0,
        "message": {"role": "assistant", "refusal": None, **message},
        "logprobs": logprobs,
        "finish_reason": reason,
    }
    return {**HEAD, "object": "chat.completion", "choices": [choice], **more}


@pytest.mark.parametrize(
    ("events", "call", "written"),
    [
        pytest.param(
            [Delta("Hel"), Delta("lo"), Finish("stop", Usage(3, 2))],
            CALL,
            completion({"content": "Hello"}, "stop", usage=USAGE),
            id="text",
        ),
        pytest.param([Finish("length")], CALL, completion({"content": ""}, "length"), id="nothing"),
        pytest.param(
            [Delta("4", "2+2"), Finish("stop")],
            CALL,
            completion({"content": "4", "reasoning": "2+2", "reasoning_content": "2+2"}, "stop"),
            id="thinking by both names",
        ),
        pytest.param(
            [ToolCalls((ADD,)), Finish("stop")],
            CALL,
            completion({"content": None, "tool_calls": [ADD_WIRE]}, "tool_calls"),
            id="calls: content is null, and they have no index",
        ),
        pytest.param(
            [Delta("Well"), ToolCalls((ADD, SUB)), Finish("tool_calls")],
            evolve(CALL, parallel_tool_calls=False),
            completion({"content": "Well", "tool_calls": [ADD_WIRE]}, "tool_calls"),
            id="one call at a time",
        ),
        pytest.param(
            [ToolCalls((ADD, SUB)), Finish("stop")],
            evolve(CALL, as_functions=True, parallel_tool_calls=False),
            completion({"content": None, "function_call": ADD_WIRE["function"]}, "function_call"),
            id="a call of whoever offered functions",
        ),
        pytest.param(
            [Delta("Hi", logprobs=(ITEM,)), Finish("stop")],
            evolve(CALL, top_logprobs=0),
            completion({"content": "Hi"}, "stop", {"content": [ITEM], "refusal": None}),
            id="logprobs",
        ),
    ],
)
def test_a_whole_answer_is_written(events: list[Event], call: ChatCall, written: dict[str, Any]) -> None:
    """All keys that OpenAI's schema requires are there, null or not."""
    assert answer(events, call) == written


def test_several_whole_answers_are_numbered() -> None:
    """In one list, with the usage of all."""
    call = evolve(CALL, n=2)
    events: list[Event] = [
        Delta("Hi"),
        Finish("stop", Usage(3, 2)),
        Delta("Ho"),
        Finish("length", Usage(3, 1)),
    ]

    written = answer(events, call)

    told = [(one["index"], one["message"]["content"], one["finish_reason"]) for one in written["choices"]]
    assert told == [(0, "Hi", "stop"), (1, "Ho", "length")]
    assert written["usage"] == {"prompt_tokens": 6, "completion_tokens": 3, "total_tokens": 9}
    with pytest.raises(BackendFailed):
        write_chat_answer(events[:2], STAMP, call)


def test_an_id_is_not_prefixed_twice() -> None:
    """Clients and logs know an answer by it."""
    stamp = evolve(STAMP, id="chatcmpl-x")

    assert orjson.loads(write_chat_answer([Finish("stop")], stamp, CALL))["id"] == "chatcmpl-x"


def test_an_answer_that_failed_is_no_answer() -> None:
    """Before the first byte an error still has a status of its own."""
    error = BackendFailed("boom")

    with pytest.raises(BackendFailed, match="boom"):
        write_chat_answer([Delta("Hi"), Failure(error)], STAMP, CALL)
    with pytest.raises(BackendFailed):
        write_chat_answer([Delta("Hi")], STAMP, CALL)


def test_tokens_of_thinking_are_told_where_they_are_known() -> None:
    """From the backend's usage to the caller's; of several answers they are added up."""
    chunk = {"choices": [{"index": 0, "delta": {"content": "4"}, "finish_reason": "stop"}]}
    counts = {"prompt_tokens": 3, "completion_tokens": 5}
    details = {
        "completion_tokens_details": {"reasoning_tokens": 4},
        "prompt_tokens_details": {"cached_tokens": 2},
    }
    usage = {"choices": [], "usage": counts | details}
    events = ChatReader().feed(b"".join(sse.frame(orjson.dumps(one)) for one in (chunk, usage)))

    one = answer(events, CALL)["usage"]
    two = answer([*events, *events], evolve(CALL, n=2))["usage"]

    assert one["completion_tokens_details"] == {"reasoning_tokens": 4}
    assert two["completion_tokens_details"] == {"reasoning_tokens": 8}
    assert "prompt_tokens_details" not in one, "what others have asked is nobody's to know"
