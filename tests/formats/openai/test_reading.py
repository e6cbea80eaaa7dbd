"""gateway.formats.openai.reading: what vLLM and llama.cpp answer, as events."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import BackendBusy, BackendFailed, ContextLengthExceeded, InvalidRequest
from gateway.formats.chat import AnswerReader, Delta, Event, Failure, Finish, ToolCall, ToolCalls
from gateway.formats.openai.reading import (
    ChatReader,
    CompletionReader,
)
from gateway.formats.sse import DONE, frame
from gateway.model import Timings, Usage
from tests.formats.cuts import cut, places
from tests.formats.recordings import of_llama_cpp

GREETING = (
    "Hello! I am the demo model built into this gateway: my tiny weights recite one friendly sentence, "
    "so you can see real tokens streaming before connecting your own."
)


def events_of(reader: AnswerReader, *pieces: bytes) -> list[Event]:
    """What a reader gives for these pieces, its end included."""
    return [event for piece in pieces for event in reader.feed(piece)] + reader.end()


def chunk(delta: dict[str, Any] | None = None, reason: str | None = None, **more: Any) -> bytes:
    """One chunk of a chat."""
    choice = {"index": 0, "delta": delta or {}, "finish_reason": reason} | more.pop("choice", {})
    return frame(orjson.dumps({"object": "chat.completion.chunk", "choices": [choice]} | more))


def usage(prompt: int, completion: int) -> bytes:
    counts = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return frame(orjson.dumps({"choices": [], "usage": counts}))


def piece(
    index: int | None = None, id: str | None = None, name: str | None = None, arguments: Any = None
) -> Any:
    """One piece of a tool call, with the keys that servers send."""
    function = {"name": name, "arguments": arguments}
    return {"function": {key: value for key, value in function.items() if value is not None}} | {
        key: value for key, value in {"index": index, "id": id}.items() if value is not None
    }


# ── recordings of llama.cpp ──────────────────────────────────────────────────────────────


def test_a_stream_of_llama_cpp() -> None:
    """The first chunk has a null content, the last one the usage; both are no text."""
    *deltas, finish = events_of(ChatReader(), of_llama_cpp("chat_stream_usage"))

    assert "".join(event.content for event in deltas if isinstance(event, Delta)) == GREETING
    assert len(deltas) == 28
    assert isinstance(finish, Finish)
    assert (finish.reason, finish.usage) == ("stop", Usage(20, 29))
    assert finish.timings.prompt_ns is not None
    assert finish.timings.generation_ns is not None


def test_a_stream_of_llama_cpp_that_reached_its_bound() -> None:
    """The timings come with the usage."""
    assert events_of(ChatReader(), of_llama_cpp("chat_stream_length")) == [
        Delta("Hello!"),
        Delta(" I"),
        Delta(" am"),
        Finish("length", Usage(20, 3), Timings(prompt_ns=253_000, generation_ns=447_000)),
    ]


def test_a_stream_of_llama_cpp_without_usage() -> None:
    """The finish waits for [DONE] at the latest."""
    finish = events_of(ChatReader(), of_llama_cpp("chat_stream"))[-1]

    assert finish == Finish("stop", None, Timings(prompt_ns=245_000, generation_ns=3_081_000))


def test_a_streamed_tool_call_of_llama_cpp() -> None:
    """Its arguments come in pieces, and are told when they are complete."""
    call = ToolCall("eg0zFM6sNTNUDb3akTyNZ2Qx3u3WGSZ0", "get_weather", {"city": "Paris"})

    assert events_of(ChatReader(), of_llama_cpp("tool_call_stream")) == [
        ToolCalls((call,)),
        Finish("tool_calls", Usage(163, 8), Timings(prompt_ns=486_000, generation_ns=1_286_000)),
    ]


def test_logprobs_of_llama_cpp() -> None:
    """Only the four keys of OpenAI's shape are kept."""
    (choice,) = orjson.loads(of_llama_cpp("chat_logprobs"))["choices"]
    said = chunk({"content": choice["message"]["content"]}, "stop", choice={"logprobs": choice["logprobs"]})

    delta, _ = events_of(ChatReader(), said + DONE)

    assert isinstance(delta, Delta)
    assert [item["token"] for item in delta.logprobs] == ["Hello!", " I"]
    assert delta.logprobs[1] == {
        "token": " I",
        "logprob": 0.0,
        "bytes": [32, 73],
        "top_logprobs": [
            {"token": " I", "logprob": 0.0, "bytes": [32, 73]},
            {"token": "", "logprob": -99.98309326171875, "bytes": []},
        ],
    }


def test_completions_of_llama_cpp() -> None:
    """The usage comes with the last text."""
    assert events_of(CompletionReader(), of_llama_cpp("completion_stream")) == [
        Delta("Hello!"),
        Delta(" I"),
        Delta(" am"),
        Delta(" the"),
        Delta(" demo"),
        Finish("length", Usage(7, 5), Timings(prompt_ns=261_000, generation_ns=462_000)),
    ]


@pytest.mark.parametrize(
    ("reader", "name"),
    [
        (ChatReader, "chat_stream"),
        (ChatReader, "chat_stream_usage"),
        (ChatReader, "tool_call_stream"),
        (CompletionReader, "completion_stream"),
    ],
)
@given(places=places)
def test_any_cut_gives_the_same_events(reader: type[AnswerReader], name: str, places: list[int]) -> None:
    """TCP cuts where it likes, also within a character."""
    data = of_llama_cpp(name)

    assert events_of(reader(), *cut(data, places)) == events_of(reader(), data)


@pytest.mark.parametrize("name", ["chat_stream", "chat_stream_usage", "tool_call_stream"])
@given(data=st.data())
def test_a_stream_that_is_cut_never_looks_complete(name: str, data: st.DataObject) -> None:
    """Up to the usage, or [DONE] where there is none, something is missing."""
    whole = of_llama_cpp(name)
    # Where the finish is told: the usage, if there is one, else the end mark.
    told = whole.index(b'"usage"') if b'"usage"' in whole else whole.index(b"[DONE]")
    end = data.draw(st.integers(0, told))

    with pytest.raises(BackendFailed):
        events_of(ChatReader(), whole[:end])


# ── chats ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        pytest.param(
            chunk({"role": "assistant", "content": ""}) + chunk({"content": "Hi"}) + chunk({}, "stop") + DONE,
            [Delta("Hi"), Finish("stop")],
            id="text",
        ),
        pytest.param(
            chunk({"content": "Hi"}) + chunk({}, "stop") + usage(3, 1) + DONE,
            [Delta("Hi"), Finish("stop", Usage(3, 1))],
            id="usage after the finish",
        ),
        pytest.param(
            chunk({"content": "Hi"}, "stop", usage={"prompt_tokens": 3, "completion_tokens": 1}) + DONE,
            [Delta("Hi"), Finish("stop", Usage(3, 1))],
            id="all in one chunk",
        ),
        pytest.param(
            chunk({"content": "Hi"}, usage={"prompt_tokens": 3, "completion_tokens": 1})
            + chunk({}, "stop")
            + usage(3, 2),
            [Delta("Hi"), Finish("stop", Usage(3, 2))],
            id="vLLM's continuous usage: the last counts",
        ),
        pytest.param(
            chunk({"reasoning": "2+2"}) + chunk({"content": "4"}) + chunk({}, "stop") + DONE,
            [Delta("", "2+2"), Delta("4"), Finish("stop")],
            id="reasoning of vLLM",
        ),
        pytest.param(
            chunk({"content": None, "reasoning_content": "2+2"}) + chunk({"content": "4"}, "stop") + DONE,
            [Delta("", "2+2"), Delta("4"), Finish("stop")],
            id="reasoning of llama.cpp",
        ),
        pytest.param(
            chunk({"reasoning": "2+2", "reasoning_content": "2+2"}) + chunk({}, "stop") + DONE,
            [Delta("", "2+2"), Finish("stop")],
            id="reasoning by both names is told once",
        ),
        pytest.param(chunk({"content": "Hi"}, "length") + DONE, [Delta("Hi"), Finish("length")], id="length"),
        pytest.param(
            chunk({"content": "Hi"}, "content_filter") + DONE,
            [Delta("Hi"), Finish("content_filter")],
            id="filter",
        ),
        pytest.param(
            chunk({"content": "Hi"}, "stop", choice={"stop_reason": "\n"}) + DONE,
            [Delta("Hi"), Finish("stop", stop_sequence="\n")],
            id="the text that vLLM stopped at",
        ),
        pytest.param(
            chunk({"content": "Hi"}, "stop", choice={"stop_reason": 128001}) + DONE,
            [Delta("Hi"), Finish("stop")],
            id="the token that vLLM stopped at is no text",
        ),
        pytest.param(chunk({}, "tool_calls") + DONE, [Finish("stop")], id="a reason of calls without any"),
        pytest.param(
            chunk({"content": "a"}) + chunk({"content": "b"}, choice={"index": 1}) + chunk({}, "stop") + DONE,
            [Delta("a"), Finish("stop")],
            id="other choices are left out",
        ),
        pytest.param(
            b": ping\r\n\r\n" + chunk({}, "stop").replace(b"\n", b"\r\n") + DONE, [Finish("stop")], id="CRLF"
        ),
        pytest.param(chunk({}, "stop") + b"data: [DONE]", [Finish("stop")], id="no line end at the end"),
        pytest.param(
            chunk({}, "stop") + DONE + b"data: nonsense\n\n", [Finish("stop")], id="what follows is unread"
        ),
    ],
)
def test_a_stream_is_read(stream: bytes, events: list[Event]) -> None:
    """Exactly one Finish, and it is last."""
    assert events_of(ChatReader(), stream) == events


ADD, SUB = ToolCall("a", "add", {"x": 1}), ToolCall("b", "sub", {})


@pytest.mark.parametrize(
    ("pieces", "calls"),
    [
        pytest.param([[piece(0, "a", "add", '{"x":1}')]], (ADD,), id="whole"),
        pytest.param(
            [[piece(0, "a", "add", "")], [piece(0, arguments='{"x"')], [piece(0, arguments=":1}")]],
            (ADD,),
            id="bits",
        ),
        pytest.param(
            [[piece(0, "a", "add")], [piece(1, "b", "sub")], [piece(0, arguments='{"x":1}')]],
            (ADD, SUB),
            id="interleaved",
        ),
        pytest.param(
            [[piece(0, "a", "add", '{"x":1}'), piece(1, "b", "sub", "{}")]], (ADD, SUB), id="two at once"
        ),
        pytest.param(
            [[piece(0, "a", "add", '{"x":1}')], [piece(0, "b", "sub")]], (ADD, SUB), id="one index for all"
        ),
        pytest.param(
            [[piece(0, "a", "add", '{"x"')], [piece(0, "a", "add", ":1}")]], (ADD,), id="id and name repeated"
        ),
        pytest.param(
            [[piece(None, "a", "add", '{"x"')], [piece(None, arguments=":1}")]], (ADD,), id="no index"
        ),
        pytest.param([[piece(0, "a", "add", {"x": 1})]], (ADD,), id="arguments as an object"),
        pytest.param([[piece(0, None, "add", '{"x":1}')]], (ToolCall("", "add", {"x": 1}),), id="no id"),
        pytest.param(
            [[piece(0, "a", "add", '{"x":')]],
            (ToolCall("a", "add", {"_unparsed": '{"x":'}),),
            id="broken arguments",
        ),
    ],
)
def test_tool_calls_are_put_together(pieces: list[list[Any]], calls: tuple[ToolCall, ...]) -> None:
    """Servers cut calls as they like; the house knows whole ones only."""
    stream = b"".join(chunk({"tool_calls": some}) for some in pieces)

    assert events_of(ChatReader(), stream + chunk({}, "stop") + DONE) == [
        ToolCalls(calls),
        Finish("tool_calls"),
    ]


def test_a_call_that_reached_the_bound_is_told_as_far_as_it_came() -> None:
    """`length` says why its arguments are broken."""
    stream = chunk({"tool_calls": [piece(0, "a", "add", '{"x":')]}) + chunk({}, "length") + DONE

    assert events_of(ChatReader(), stream) == [
        ToolCalls((ToolCall("a", "add", {"_unparsed": '{"x":'}),)),
        Finish("length"),
    ]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        pytest.param(
            {"error": {"message": "boom", "type": "server_error", "code": 500}}, BackendFailed, id="llama.cpp"
        ),
        pytest.param(
            {"error": {"message": "boom", "type": "BadRequestError", "code": 400}}, InvalidRequest, id="vLLM"
        ),
        pytest.param({"object": "error", "message": "boom", "code": 503}, BackendBusy, id="elder vLLM"),
        pytest.param({"error": "boom"}, BackendFailed, id="a string"),
        pytest.param(
            {"error": {"message": "This model's maximum context length is 10 tokens.", "code": 400}},
            ContextLengthExceeded,
            id="a prompt that is too long",
        ),
        pytest.param({"choices": [{"delta": {}, "finish_reason": "abort"}]}, BackendFailed, id="given up"),
    ],
)
def test_an_error_in_the_stream_is_its_end(error: dict[str, Any], kind: type[Exception]) -> None:
    """What follows, [DONE] included, makes nothing good."""
    *deltas, failure = events_of(ChatReader(), chunk({"content": "Hi"}) + frame(orjson.dumps(error)) + DONE)

    assert deltas == [Delta("Hi")]
    assert isinstance(failure, Failure)
    assert type(failure.error) is kind


@pytest.mark.parametrize(
    "stream",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(chunk({"content": "Hi"}), id="cut after text"),
        pytest.param(chunk({"content": "Hi"}, "stop"), id="cut before usage and [DONE]"),
        pytest.param(chunk({"content": "Hi"}) + DONE, id="[DONE] without a finish"),
        pytest.param(b'data: {"choices":\n\n', id="half a chunk"),
        pytest.param(b"data: []\n\n", id="no object"),
        pytest.param(b'data: {"choices":{}}\n\n', id="choices are no list"),
        pytest.param(b'data: {"choices":[1]}\n\n', id="a choice is no object"),
        pytest.param(b'data: {"choices":[{"delta":"Hi"}]}\n\n', id="a delta is no object"),
        pytest.param(b'data: {"choices":[],"usage":1}\n\n', id="usage is no object"),
        pytest.param(
            chunk({"tool_calls": [piece(0, "a")]}) + chunk({}, "stop") + DONE, id="a call without a name"
        ),
        pytest.param(
            chunk({"tool_calls": [piece(n, "a", "add") for n in range(129)]}), id="calls without end"
        ),
        pytest.param(b"<html>Bad gateway</html>", id="a proxy's page"),
    ],
)
def test_what_is_no_answer_is_a_failure(stream: bytes) -> None:
    """A backend that was cut, or is no such server, never looks like a short answer."""
    reader = ChatReader()

    (*_, last) = [*reader.feed(stream), *_end_of(reader)]

    assert isinstance(last, Failure)
    assert isinstance(last.error, BackendFailed)


def _end_of(reader: AnswerReader) -> list[Event]:
    try:
        return reader.end()
    except BackendFailed as error:
        return [Failure(error)]


# ── completions ──────────────────────────────────────────────────────────────────────────


def test_logprobs_of_completions_get_the_shape_of_chats() -> None:
    """vLLM keeps OpenAI's elder shape there: lists beside each other."""
    logprobs = {
        "tokens": ["é"],
        "token_logprobs": [-0.5],
        "top_logprobs": [{"é": -0.5, "e": -1}],
        "text_offset": [0],
    }
    body = orjson.dumps({"choices": [{"text": "é", "logprobs": logprobs, "finish_reason": "stop"}]})

    assert events_of(CompletionReader(), frame(body) + DONE) == [
        Delta(
            "é",
            logprobs=(
                {
                    "token": "é",
                    "logprob": -0.5,
                    "bytes": [195, 169],
                    "top_logprobs": [
                        {"token": "é", "logprob": -0.5, "bytes": [195, 169]},
                        {"token": "e", "logprob": -1, "bytes": [101]},
                    ],
                },
            ),
        ),
        Finish("stop"),
    ]


@pytest.mark.parametrize("count", [-1, 2**53 + 1, 2**64 - 1, 1.5, True, "7", None], ids=repr)
def test_a_count_that_cannot_be_one_is_none(count: Any) -> None:
    """The sum of two counts must still be a number that JSON's readers agree on."""
    said = chunk({"content": "x"}, "stop", usage={"prompt_tokens": 5, "completion_tokens": count})

    assert events_of(ChatReader(), said) == [Delta("x"), Finish("stop")]


@pytest.mark.parametrize("milliseconds", [-1, 1e30, 1e308, 2**64 - 1, "7", None], ids=repr)
def test_a_time_that_cannot_be_one_is_none(milliseconds: Any) -> None:
    """1e308 ms is infinite in ns, and 1e30 ms more than any reader takes."""
    usage = {"prompt_tokens": 1, "completion_tokens": 2}
    said = chunk({}, "stop", usage=usage, timings={"prompt_ms": milliseconds, "predicted_ms": 1})

    (finish,) = events_of(ChatReader(), said)

    assert finish == Finish("stop", Usage(1, 2), Timings(generation_ns=1_000_000))


def test_a_choice_of_null_says_nothing() -> None:
    said = frame(orjson.dumps({"choices": [None]}))

    assert events_of(ChatReader(), said, chunk({"content": "x"}, "stop"), DONE) == [
        Delta("x"),
        Finish("stop"),
    ]


def test_arguments_too_deep_to_be_written_are_a_failure() -> None:
    said = b'{"choices":[{"delta":{"tool_calls":[{"function":{"name":"f","arguments":%b}}]}}]}'
    # orjson reads a thousand levels and writes a quarter of them.
    deep = b'{"a":' * 300 + b"{}" + b"}" * 300

    (failure,) = ChatReader().feed(frame(said % deep))

    assert isinstance(failure, Failure)
    assert isinstance(failure.error, BackendFailed)
