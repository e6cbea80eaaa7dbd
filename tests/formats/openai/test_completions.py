"""gateway.formats.openai.completions: /v1/completions as OpenAI's clients speak it."""

from collections.abc import Sequence
from typing import Any

import orjson
import pytest
from attrs import evolve
from openai.types import Completion

from gateway.errors import BackendFailed, GatewayError, InvalidRequest, UnsupportedField
from gateway.formats.chat import (
    AnswerStamp,
    CompletionCall,
    Delta,
    Event,
    Failure,
    Finish,
    Format,
    Sampling,
    ToolCall,
    ToolCalls,
)
from gateway.formats.openai.completions import (
    KNOWN,
    READ,
    UNSUPPORTED,
    CompletionWriter,
    read_completion,
    write_completion_answer,
)
from gateway.formats.openai.other_fields import HARMLESS
from gateway.formats.sse import EventSplitter
from gateway.model import JsonObject, Usage

ONCE: JsonObject = {"model": "tiny", "prompt": "Once"}
CALL = CompletionCall("tiny", ("Once",), stream=False)
STAMP = AnswerStamp("01J", 'my "tiny"', 1_700_000_000.9, lambda: 1_700_000_001.0)
HEAD = {
    "id": "cmpl-01J",
    "object": "text_completion",
    "created": 1_700_000_000,
    "model": 'my "tiny"',
    "system_fingerprint": "fp_neuronetz",
}

# ── from callers ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("fields", "call"),
    [
        pytest.param({}, CALL, id="the least"),
        pytest.param({"prompt": ["Once", "Twice"]}, evolve(CALL, prompts=("Once", "Twice")), id="texts"),
        pytest.param({"prompt": [1, 2]}, evolve(CALL, prompts=((1, 2),)), id="tokens"),
        pytest.param({"prompt": [[1], [2]]}, evolve(CALL, prompts=((1,), (2,))), id="tokens of two"),
        pytest.param({"n": 2, "best_of": 2}, evolve(CALL, n=2), id="answers, none of them picked"),
        pytest.param({"suffix": "end.", "echo": True}, evolve(CALL, suffix="end.", echo=True), id="a frame"),
        pytest.param({"echo": False, "logprobs": 0}, evolve(CALL, top_logprobs=0), id="logprobs"),
        pytest.param({"raw": True, "think": False}, evolve(CALL, raw=True, think=False), id="Ollama's"),
        pytest.param(
            {"stream": True, "stream_options": {"include_usage": True}},
            evolve(CALL, stream=True, include_usage=True),
            id="a stream with usage",
        ),
        pytest.param(
            {"max_tokens": 5, "temperature": 0, "stop": "\n", "seed": 7, "num_ctx": 512},
            evolve(CALL, sampling=Sampling(max_tokens=5, temperature=0, stop=("\n",), seed=7, num_ctx=512)),
            id="sampling",
        ),
        pytest.param(
            {"response_format": {"type": "json_object"}}, evolve(CALL, format=Format()), id="a format"
        ),
        pytest.param(
            {"user": "u", "logit_bias": {}, "x": 1}, evolve(CALL, dropped=("x",)), id="what is not read"
        ),
    ],
)
def test_a_completion_is_read(fields: JsonObject, call: CompletionCall):
    assert read_completion(ONCE | fields) == call


@pytest.mark.parametrize(
    ("fields", "error", "param"),
    [
        pytest.param({"model": ""}, InvalidRequest, "model", id="no model"),
        pytest.param({"prompt": None}, InvalidRequest, "prompt", id="no prompt"),
        pytest.param({"prompt": ""}, InvalidRequest, "prompt", id="an empty prompt"),
        pytest.param({"prompt": []}, InvalidRequest, "prompt", id="no prompts"),
        pytest.param({"prompt": ["Once", ""]}, InvalidRequest, "prompt", id="an empty one among others"),
        pytest.param({"prompt": ["Once", 1]}, InvalidRequest, "prompt", id="a token among texts"),
        pytest.param({"prompt": 5}, InvalidRequest, "prompt", id="a number"),
        pytest.param({"prompt": ["x"] * 129}, InvalidRequest, "prompt", id="too many prompts"),
        pytest.param({"prompt": ["x"] * 65, "n": 2}, InvalidRequest, "prompt", id="too many answers"),
        pytest.param({"n": 129}, InvalidRequest, "n", id="too many answers to one"),
        pytest.param({"best_of": 2}, UnsupportedField, "best_of", id="the best of two"),
        pytest.param({"n": 2, "best_of": 1}, UnsupportedField, "best_of", id="two of one"),
        pytest.param({"echo": True, "logprobs": 1}, UnsupportedField, "echo", id="logprobs of the prompt"),
        pytest.param({"echo": True, "prompt": [1]}, UnsupportedField, "echo", id="the text of tokens"),
        pytest.param({"logprobs": True}, InvalidRequest, "logprobs", id="logprobs as in a chat"),
        pytest.param({"max_tokens": 0}, InvalidRequest, "max_tokens", id="nothing"),
        pytest.param({"stream_options": {}}, InvalidRequest, "stream_options", id="options without a stream"),
        pytest.param({"Prompt": "Twice"}, InvalidRequest, "Prompt", id="a look-alike"),
        pytest.param({"messages": []}, UnsupportedField, "messages", id="a chat"),
        pytest.param({"moderation": {"model": "x"}}, UnsupportedField, "moderation", id="what a chat can't"),
    ],
)
def test_a_completion_that_cannot_be_is_refused(fields: JsonObject, error: type[GatewayError], param: str):
    with pytest.raises(error) as refused:
        read_completion(ONCE | fields)

    assert (type(refused.value), refused.value.param) == (error, param)


def test_no_field_is_both_read_and_refused():
    """Three tables, one fate for each field."""
    assert len(KNOWN) == len(READ) + len(HARMLESS) + len(UNSUPPORTED)


# ── to callers ───────────────────────────────────────────────────────────────────────────

TOKEN = {"token": "Hi", "logprob": -0.5, "top_logprobs": [{"token": "Ho", "logprob": -1.5}]}
LAST = {"token": "!", "logprob": -0.25, "top_logprobs": []}


def stream(events: Sequence[Event], call: CompletionCall) -> list[Any]:
    """The payloads of a whole stream; each chunk is what OpenAI's own model takes."""
    splitter = EventSplitter()
    payloads = splitter.feed(CompletionWriter(STAMP, call).write(events))
    assert splitter.end() == []
    read: list[Any] = [
        payload.decode() if payload == b"[DONE]" else orjson.loads(payload) for payload in payloads
    ]
    for payload in read:
        if payload != "[DONE]":
            # The finish reason is not nullable in the library's type, though it is in its streams.
            reasoned = [{**choice, "finish_reason": "stop"} for choice in payload["choices"]]
            Completion.model_validate({**payload, "choices": reasoned}, strict=True)
    return read


def choice(text: str, index: int = 0, reason: str | None = None, logprobs: Any = None) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}


def chunk(*args: Any, **more: Any) -> dict[str, Any]:
    return {**HEAD, "choices": [choice(*args, **more)]}


def usage(prompt: int, completion: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def test_a_stream_is_written():
    events: list[Event] = [Delta("Hel"), Delta("", "Hm."), Delta("lo"), Finish("length", Usage(3, 2))]

    assert stream(events, CALL) == [chunk("Hel"), chunk("lo"), chunk("", 0, "length"), "[DONE]"]


def test_several_answers_follow_each_other_in_a_stream():
    """Two prompts, two answers to each; usage is told once, at the end, of all."""
    call = evolve(CALL, prompts=("Once", "Twice"), n=2, include_usage=True)
    events = [event for number in range(4) for event in (Delta(f"{number}"), Finish("stop", Usage(3, 1)))]

    *chunks, last, done = stream(events, call)

    assert [(one["choices"][0]["index"], one["choices"][0]["text"]) for one in chunks] == [
        (0, "0"), (0, ""), (1, "1"), (1, ""), (2, "2"), (2, ""), (3, "3"), (3, ""),
    ]  # fmt: skip
    assert all(one["usage"] is None for one in chunks)
    assert last == {**HEAD, "choices": [], "usage": usage(12, 4)}
    assert done == "[DONE]"


def test_the_prompt_is_echoed_before_each_answer():
    call = evolve(CALL, prompts=("Once", "Twice"), echo=True)
    events: list[Event] = [Delta(" more"), Finish("stop", Usage(3, 1)), Finish("stop", Usage(3, 0))]

    streamed = stream(events, call)
    whole = orjson.loads(write_completion_answer(events, STAMP, call))

    texts = [one["choices"][0]["text"] for one in streamed[:-1]]
    assert texts == ["Once", " more", "", "Twice", ""]
    assert [one["text"] for one in whole["choices"]] == ["Once more", "Twice"]


def test_log_probabilities_have_the_elder_shape():
    """Lists beside each other; offsets count through the whole answer, and anew in the next."""
    call = evolve(CALL, n=2, top_logprobs=1)
    events: list[Event] = [
        Delta("Hi", logprobs=(TOKEN,)),
        Delta("!", logprobs=(LAST,)),
        Finish("stop", Usage(3, 2)),
        Delta("Hi", logprobs=(TOKEN,)),
        Finish("stop", Usage(3, 1)),
    ]
    first: dict[str, Any] = {
        "tokens": ["Hi"],
        "token_logprobs": [-0.5],
        "top_logprobs": [{"Ho": -1.5}],
        "text_offset": [0],
    }
    second: dict[str, Any] = {
        "tokens": ["!"],
        "token_logprobs": [-0.25],
        "top_logprobs": [{}],
        "text_offset": [2],
    }

    streamed = stream(events, call)
    whole = orjson.loads(write_completion_answer(events, STAMP, call))
    Completion.model_validate(whole, strict=True)

    assert [one["choices"][0]["logprobs"] for one in streamed[:-1]] == [first, second, None, first, None]
    assert whole["choices"][0]["logprobs"] == {name: first[name] + second[name] for name in first}
    assert whole["choices"][1]["logprobs"] == first


def test_log_probabilities_without_alternatives():
    call = evolve(CALL, top_logprobs=0)

    (written,) = orjson.loads(
        write_completion_answer([Delta("Hi", logprobs=(TOKEN,)), Finish("stop", Usage(3, 1))], STAMP, call)
    )["choices"]

    assert written["logprobs"] == {
        "tokens": ["Hi"],
        "token_logprobs": [-0.5],
        "top_logprobs": None,
        "text_offset": [0],
    }


def test_a_whole_answer_is_written():
    """All keys that OpenAI's schema requires are there; thinking has no place."""
    events: list[Event] = [Delta("Hel", "Hm."), Delta("lo"), Finish("stop", Usage(3, 2))]

    written = orjson.loads(write_completion_answer(events, STAMP, CALL))

    assert written == {**HEAD, "choices": [choice("Hello", 0, "stop")], "usage": usage(3, 2)}
    Completion.model_validate(written, strict=True)


def test_what_calls_tools_has_just_stopped():
    """No server should; the reason is none that a completion has."""
    events: list[Event] = [ToolCalls((ToolCall("a", "add", {}),)), Finish("tool_calls", Usage(3, 2))]

    assert stream(events, CALL) == [chunk("", 0, "stop"), "[DONE]"]


@pytest.mark.parametrize("how", ["fail", "failure"])
def test_a_broken_stream_ends_with_an_error_and_nothing_else(how: str):
    writer = CompletionWriter(STAMP, CALL)
    error = BackendFailed("The model's server broke off its answer.")
    last = writer.fail(error) if how == "fail" else writer.write([Failure(error)])

    assert orjson.loads(last.removeprefix(b"data: "))["error"]["code"] == "backend_failed"


def test_an_answer_of_which_one_is_missing_is_none():
    with pytest.raises(BackendFailed):
        write_completion_answer([Finish("stop", Usage(3, 2))], STAMP, evolve(CALL, n=2))
