"""gateway.formats.ollama.writing: events, as Ollama's clients want them."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ollama._types import ChatResponse, GenerateResponse

from gateway.errors import BackendFailed, InternalError
from gateway.formats.chat import (
    AnswerStamp,
    ChatCall,
    Delta,
    Event,
    Failure,
    Finish,
    GenerateCall,
    ToolCall,
    ToolCalls,
)
from gateway.formats.ollama import (
    ChatReader,
    ChatWriter,
    GenerateReader,
    GenerateWriter,
    read_chat_answer,
    read_generate_answer,
    write_chat_answer,
    write_generate_answer,
    write_load_answer,
)
from gateway.model import Timings, Usage

NOON = 1_795_435_200.0
CHAT = ChatCall("Tiny", (), stream=True, top_logprobs=1)
GENERATE = GenerateCall("Tiny", "Hi", stream=True, top_logprobs=1)
USAGE = Usage(prompt_tokens=21, completion_tokens=8)
TIMINGS = Timings(total_ns=40, load_ns=10, prompt_ns=20, generation_ns=5)
TIMES = {"total_duration": 40, "load_duration": 10, "prompt_eval_duration": 20, "eval_duration": 5}
COUNTS = {"prompt_eval_count": 21, "eval_count": 8}
LOGPROB = {"token": "ö", "logprob": -0.5, "bytes": [195, 182], "top_logprobs": []}


def stamped(*later_s: float) -> AnswerStamp:
    """A stamp whose clock shows noon, or noon and these seconds in turn."""
    times = iter(later_s or [0.0] * 10)
    return AnswerStamp("req-1", "Tiny", created=NOON, now=lambda: NOON + next(times))


def frames(data: bytes) -> list[dict[str, Any]]:
    lines = data.decode("ascii").splitlines()
    assert data == b"" or data.endswith(b"\n")
    return [json.loads(line) for line in lines]


def chat(message, **fields):
    said = {"role": "assistant", "content": "", **message}
    return {"model": "Tiny", "created_at": "2026-11-23T12:00:00.000000Z", "message": said, **fields}


def generated(response, **fields):
    return {"model": "Tiny", "created_at": "2026-11-23T12:00:00.000000Z", "response": response, **fields}


def test_text_becomes_frames():
    """One object per line, with the model as the caller wrote it."""
    data = ChatWriter(stamped(), CHAT).write([Delta("Hi \u2028\n"), Delta(thinking="Hm."), Delta("a", "b")])

    assert frames(data) == [
        chat({"content": "Hi \u2028\n"}, done=False),
        chat({"thinking": "Hm."}, done=False),
        chat({"content": "a", "thinking": "b"}, done=False),
    ]


def test_events_that_come_together_leave_together():
    """One write for all frames of one read; nothing for nothing."""
    writer = ChatWriter(stamped(), CHAT)

    assert writer.write([]) == b""
    assert len(frames(writer.write([Delta("a"), Delta("b")]))) == 2


def test_the_end_says_done_with_counts_and_times():
    """ollama-js waits for `done: true`; durations are whole nanoseconds."""
    data = ChatWriter(stamped(), CHAT).write([Finish("stop", USAGE, TIMINGS)])

    assert frames(data) == [chat({}, done=True, done_reason="stop", **TIMES, **COUNTS)]


def test_what_a_backend_does_not_time_is_measured():
    """To the first event: the prompt; from there: the answer. Loading is not told apart."""
    writer = ChatWriter(stamped(0.25, 1.0), CHAT)
    writer.write([Delta("Hi")])

    (frame,) = frames(writer.write([Finish("stop", USAGE)]))

    assert {name: frame[name] for name in TIMES} == {
        "total_duration": 1_000_000_000,
        "load_duration": 0,
        "prompt_eval_duration": 250_000_000,
        "eval_duration": 750_000_000,
    }


def test_a_clock_that_is_set_back_gives_no_negative_time():
    """It is a wall clock."""
    (frame,) = frames(ChatWriter(stamped(-5.0), CHAT).write([Finish("stop")]))

    assert {name: frame[name] for name in TIMES} == dict.fromkeys(TIMES, 0)


def test_unknown_counts_are_left_out():
    """As Ollama does; an invented 0 would be believed."""
    (frame,) = frames(ChatWriter(stamped(), CHAT).write([Finish("length", None, TIMINGS)]))

    assert frame == chat({}, done=True, done_reason="length", **TIMES)


def test_tool_calls_are_numbered_and_have_ids():
    """Numbers go through the whole answer; a missing id is derived from the request's."""
    writer = ChatWriter(stamped(), CHAT)
    given = ToolCalls((ToolCall("call_x", "one", {"a": "ü"}),))
    nameless = ToolCalls((ToolCall("", "two", {}), ToolCall("", "two", {})))

    first, second, end = frames(writer.write([given, nameless, Finish("tool_calls", USAGE, TIMINGS)]))

    assert first == chat(
        {"tool_calls": [{"id": "call_x", "function": {"index": 0, "name": "one", "arguments": {"a": "ü"}}}]},
        done=False,
    )
    assert [call["function"]["index"] for call in second["message"]["tool_calls"]] == [1, 2]
    ids = [call["id"] for call in second["message"]["tool_calls"]]
    assert ids == ["call_0e93b7c9", "call_df345b24"]
    assert end["done_reason"] == "stop"


def test_log_probabilities_are_written_where_they_were_asked_for():
    """Alternatives only where there are some."""
    asked = frames(ChatWriter(stamped(), CHAT).write([Delta("ö", logprobs=(LOGPROB,))]))
    not_asked = frames(
        ChatWriter(stamped(), ChatCall("Tiny", (), True)).write([Delta("ö", logprobs=(LOGPROB,))])
    )

    assert asked == [
        chat(
            {"content": "ö"},
            done=False,
            logprobs=[{"token": "ö", "logprob": -0.5, "bytes": [195, 182]}],
        )
    ]
    assert not_asked == [chat({"content": "ö"}, done=False)]


def test_a_stream_that_broke_ends_in_an_error():
    """A string, or ollama-python fails on it; and nothing says done."""
    writer = ChatWriter(stamped(), CHAT)

    assert writer.fail(BackendFailed("It broke at “x”.")) == b'{"error":"It broke at \\u201cx\\u201d."}\n'
    assert writer.write([Delta("H"), Failure(BackendFailed("It broke."))]).endswith(
        b'\n{"error":"It broke."}\n'
    )


def test_a_completion_has_its_text_in_response():
    """The same events, another frame; the context goes along."""
    writer = GenerateWriter(stamped(), GENERATE)

    data = writer.write([Delta("Hi", "Hm."), Finish("stop", USAGE, TIMINGS, context=(1, 2))])

    assert frames(data) == [
        generated("Hi", thinking="Hm.", done=False),
        generated("", done=True, done_reason="stop", context=[1, 2], **TIMES, **COUNTS),
    ]


EVENTS: list[Event] = [
    Delta("Hel", "Hm", (LOGPROB,)),
    ToolCalls((ToolCall("", "two", {"a": 1}),)),
    Delta("lo"),
    Finish("tool_calls", USAGE, TIMINGS),
]


def test_a_whole_chat_is_one_object():
    """Texts, thinking, calls and log probabilities joined."""
    call = {"id": "call_4893a171", "function": {"index": 0, "name": "two", "arguments": {"a": 1}}}
    message = {"content": "Hello", "thinking": "Hm", "tool_calls": [call]}

    data = write_chat_answer(EVENTS, stamped(), CHAT)

    logprobs = [{"token": "ö", "logprob": -0.5, "bytes": [195, 182]}]
    assert data.isascii()
    assert json.loads(data) == chat(
        message, done=True, done_reason="stop", logprobs=logprobs, **TIMES, **COUNTS
    )


def test_a_whole_completion_is_one_object():
    """As for a chat."""
    data = write_generate_answer(
        [Delta("Hel"), Delta("lo"), Finish("length", None, TIMINGS)], stamped(), GENERATE
    )

    assert json.loads(data) == generated("Hello", done=True, done_reason="length", **TIMES)


def test_a_whole_answer_that_failed_is_none():
    """Its error becomes the answer, with its status."""
    with pytest.raises(InternalError):
        write_chat_answer([Delta("Hel"), Failure(InternalError())], stamped(), CHAT)
    with pytest.raises(BackendFailed):
        write_chat_answer([Delta("Hel")], stamped(), CHAT)


@pytest.mark.parametrize(("keep_alive", "reason"), [(None, "load"), (300, "load"), (0, "unload")])
def test_a_command_to_load_is_answered(keep_alive, reason):
    """As Ollama answers a chat without messages and a completion without a prompt: one object."""
    call = ChatCall("Tiny", (), stream=True, keep_alive=keep_alive)

    assert json.loads(write_load_answer(stamped(), call)) == chat({}, done=True, done_reason=reason)
    assert json.loads(write_load_answer(stamped(), GENERATE)) == generated("", done=True, done_reason="load")


# ── round trips ──────────────────────────────────────────────────────────────────────────

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
counts = st.integers(0, 2**53)
logprobs = st.fixed_dictionaries(
    {
        "token": texts,
        "logprob": st.floats(-9, 0),
        "bytes": st.none() | st.lists(st.integers(0, 255), max_size=2),
    }
    | {"top_logprobs": st.just([]) | st.just([{"token": "a", "logprob": -1, "bytes": None}])}
)
deltas = st.builds(Delta, texts, texts, st.lists(logprobs, max_size=2).map(tuple)).filter(
    lambda delta: delta != Delta()
)
calls = st.builds(
    ToolCall, st.text("abc1", min_size=1), texts.filter(bool), st.dictionaries(texts, texts | counts)
)
finishes = st.builds(
    Finish,
    st.just("length"),
    st.none() | st.builds(Usage, counts, counts),
    st.builds(Timings, counts, counts, counts, counts),
    st.lists(counts, max_size=2).map(tuple),
)
events = st.lists(
    deltas | st.builds(ToolCalls, st.lists(calls, min_size=1, max_size=2).map(tuple)), max_size=4
)


def test_alternatives_that_nobody_asked_for_are_left_out():
    """llama.cpp has to be asked for one, or it gives no log probabilities at all."""
    item = LOGPROB | {"top_logprobs": [{"token": "a", "logprob": -1, "bytes": [97]}]}
    call = ChatCall("Tiny", (), stream=True, top_logprobs=0)
    events: list[Event] = [Delta("ö", logprobs=(item,)), Finish("stop", Usage(1, 1))]

    streamed = orjson.loads(ChatWriter(stamped(), call).write(events).splitlines()[0])
    whole = orjson.loads(write_chat_answer(events, stamped(), call))

    bare = {name: LOGPROB[name] for name in ("token", "logprob", "bytes")}
    assert streamed["logprobs"] == whole["logprobs"] == [bare]


@given(events, finishes)
def test_a_stream_comes_back_as_it_was(events, finish):
    """What one gateway writes another one reads, event by event."""
    said = [*events, finish]
    for writer, reader in [
        (ChatWriter(stamped(), CHAT), ChatReader()),
        (GenerateWriter(stamped(), GENERATE), GenerateReader()),
    ]:
        data = writer.write(said)

        assert data.count(b"\n") == len(data.decode("ascii").splitlines()) == len(said)
        assert _known(reader.feed(data) + reader.end()) == _known(said)


def _known(events):
    """Without counts: where text came uncounted, or nothing came, the reader has its own word on them."""
    return [
        Finish(event.reason, None, event.timings, event.context) if isinstance(event, Finish) else event
        for event in events
    ]


@given(st.lists(deltas, max_size=3), finishes)
def test_ollamas_own_types_take_what_is_written(deltas, finish):
    """The pydantic models of ollama-python validate every answer and every frame."""
    said = [*deltas, ToolCalls((ToolCall("", "f", {"a": 1}),)), finish]
    written: list[tuple[type[ChatResponse | GenerateResponse], bytes]] = [
        (ChatResponse, ChatWriter(stamped(), CHAT).write(said)),
        (ChatResponse, write_chat_answer(said, stamped(), CHAT)),
        (ChatResponse, write_load_answer(stamped(), CHAT)),
        (GenerateResponse, GenerateWriter(stamped(), GENERATE).write(said)),
        (GenerateResponse, write_generate_answer(said, stamped(), GENERATE)),
        (GenerateResponse, write_load_answer(stamped(), GENERATE)),
    ]

    for model, data in written:
        last = [model.model_validate(json.loads(line)) for line in data.splitlines()][-1]
        assert last.done is True


def test_whole_answers_come_back():
    """Joined, they are one delta."""
    said: list[Event] = [Delta("Hi", "Hm"), Finish("stop", USAGE, TIMINGS)]

    assert read_chat_answer(write_chat_answer(said, stamped(), CHAT)) == said
    assert read_generate_answer(write_generate_answer(said, stamped(), GENERATE)) == said
    assert orjson.loads(write_chat_answer(said, stamped(), CHAT))["done"] is True
