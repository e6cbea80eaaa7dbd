"""gateway.formats.ollama.reading: Ollama's answers, as events."""

from contextlib import suppress

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import BackendFailed, ContextLengthExceeded
from gateway.formats.chat import Delta, Failure, Finish, ToolCall, ToolCalls
from gateway.formats.ollama import ChatReader, GenerateReader, read_chat_answer, read_generate_answer
from gateway.model import Timings, Usage
from tests.formats.cuts import cut, places
from tests.formats.recordings import of_ollama

USAGE = Usage(prompt_tokens=21, completion_tokens=8)
TIMINGS = Timings(total_ns=289487024, load_ns=262845975, prompt_ns=18988000, generation_ns=3117000)


def described(event):
    """An event as a plain value: two failures are equal when they say the same."""
    return (type(event.error), event.error.sentence) if isinstance(event, Failure) else event


def read(reader, pieces):
    events = [event for piece in pieces for event in reader.feed(piece)] + reader.end()
    return [described(event) for event in events]


def test_a_streamed_chat_is_read():
    """Text by text, then the end with counts and times."""
    assert read(ChatReader(), [of_ollama("chat.ndjson")]) == [
        Delta("Hello"),
        Delta(
            " wörld\u2028",
            logprobs=({"token": " wörld", "logprob": -0.25, "bytes": [32], "top_logprobs": []},),
        ),
        Finish("stop", USAGE, TIMINGS),
    ]


def test_thinking_and_tool_calls_are_read():
    """Calls may come in the final frame; `stop` then means tool_calls."""
    assert read(ChatReader(), [of_ollama("chat_tools.ndjson")]) == [
        Delta(thinking="Two cities."),
        ToolCalls(
            (
                ToolCall("call_a1b2c3d4", "weather", {"city": "Bern"}),
                ToolCall("call_e5f6g7h8", "weather", {"city": "Wien"}),
            )
        ),
        Finish("tool_calls", USAGE, TIMINGS),
    ]


def test_a_streamed_completion_is_read():
    """The text is in `response`, and the end has the context."""
    assert read(GenerateReader(), [of_ollama("generate.ndjson")]) == [
        Delta("Hello"),
        Finish("length", USAGE, TIMINGS, context=(1, 2, 3)),
    ]


def test_an_error_in_mid_stream_is_the_end():
    """Its words are unwrapped, and without addresses; no Finish follows."""
    assert read(ChatReader(), [of_ollama("chat_broken.ndjson")]) == [
        Delta("Hel"),
        (
            BackendFailed,
            "The model's server broke off its answer: "
            "an error was encountered while running the model: read tcp …: EOF",
        ),
    ]


def test_a_prompt_that_does_not_fit_is_told_in_mid_stream_too():
    """It is the caller's to mend, not a failure."""
    assert read(ChatReader(), [of_ollama("context_exceeded.json")]) == [
        (
            ContextLengthExceeded,
            "The prompt is longer than the model's context "
            "(919 tokens, and the context has 256); shorten it.",
        )
    ]


def test_whole_answers_are_read():
    """One object: the final frame with everything in it."""
    final = orjson.loads(of_ollama("chat_final.json"))
    said = {"role": "assistant", "content": "Hi", "thinking": "Hm."}

    assert read_chat_answer(of_ollama("chat_final.json")) == [Finish("stop", USAGE, TIMINGS)]
    assert read_chat_answer(orjson.dumps(final | {"message": said}, option=orjson.OPT_INDENT_2)) == [
        Delta("Hi", "Hm."),
        Finish("stop", USAGE, TIMINGS),
    ]
    assert read_generate_answer(b'{"response":"Hi","done":true}') == [Delta("Hi"), Finish("stop")]


@pytest.mark.parametrize("name", ["chat.ndjson", "chat_tools.ndjson", "chat_broken.ndjson"])
@given(places=places)
def test_any_cut_gives_the_same_events(name, places):
    """A network cuts anywhere."""
    data = of_ollama(name)

    assert read(ChatReader(), cut(data, places)) == read(ChatReader(), [data])


def final(**fields):
    return orjson.dumps({"message": {"role": "assistant", "content": ""}, "done": True, **fields})


ENDS = [
    pytest.param(final(), Finish("stop"), id="nothing but done"),
    pytest.param(final(done_reason="stop"), Finish("stop"), id="stop"),
    pytest.param(final(done_reason="length"), Finish("length"), id="length"),
    pytest.param(final(done_reason="other"), Finish("stop"), id="an unknown reason"),
    pytest.param(final(done_reason="load"), Finish("stop", Usage(0, 0)), id="load"),
    pytest.param(final(done_reason="unload"), Finish("stop", Usage(0, 0)), id="unload"),
    pytest.param(final(prompt_eval_count=5), Finish("stop", Usage(5, 0)), id="nothing said, nothing counted"),
    pytest.param(final(eval_count=5), Finish("stop"), id="no count of the prompt"),
    pytest.param(final(prompt_eval_count=-5, eval_count=True), Finish("stop"), id="counts that are none"),
    pytest.param(final(total_duration="1s", context=["a"]), Finish("stop"), id="fields of wrong types"),
    pytest.param(b'{"message":null,"done":true}', Finish("stop"), id="no message"),
    pytest.param(b'{"done":true}\r\n\r\n', Finish("stop"), id="CRLF and a blank line"),
    pytest.param(b'{"error":"","done":true}', Finish("stop"), id="an empty error"),
]


@pytest.mark.parametrize(("data", "expected"), ENDS)
def test_every_field_but_done_may_be_missing(data, expected):
    """Versions differ; what is unknown stays unknown."""
    assert read(ChatReader(), [data]) == [expected]


def test_text_without_its_count_is_not_counted_as_none():
    """Then the gateway counts itself: 0 would be a gift."""
    data = b'{"message":{"content":"Hi"},"done":false}\n' + final(prompt_eval_count=5)

    assert read(ChatReader(), [data]) == [Delta("Hi"), Finish("stop", None)]


def test_a_call_cut_by_the_token_limit_ends_by_length():
    """`length` says more than that there were calls."""
    data = b'{"message":{"tool_calls":[{"function":{"name":"f"}}]}}\n' + final(done_reason="length")

    assert read(ChatReader(), [data]) == [ToolCalls((ToolCall("", "f", {}),)), Finish("length")]


def test_what_follows_the_end_is_left_unread():
    """Finish comes once and last."""
    assert read(ChatReader(), [final(), b"\n", final(), b"\ngarbage\n"]) == [Finish("stop")]


CUT = [
    pytest.param(b"", id="nothing"),
    pytest.param(b'{"message":{"content":"Hi"},"done":false}\n', id="no done"),
    pytest.param(b'{"message":{"content":"Hi"},"done":"true"}\n', id="done as a string"),
]


@pytest.mark.parametrize("data", CUT)
def test_an_answer_that_is_not_done_never_looks_complete(data):
    """Ollama ends a repetition that way, and a crash looks the same."""
    reader = ChatReader()
    reader.feed(data)

    with pytest.raises(BackendFailed):
        reader.end()


GARBAGE = [
    pytest.param(b"<html>", id="HTML"),
    pytest.param(b"[]", id="an array"),
    pytest.param(b'"done"', id="a string"),
    pytest.param(b'{"done":true', id="a cut object"),
    pytest.param(b'{"a":"\xff"}', id="no UTF-8"),
    pytest.param(b"data: {}", id="an event"),
    pytest.param(b'{"message":{"tool_calls":{"a":1}}}', id="calls that are no list"),
    pytest.param(b'{"message":{"tool_calls":[1]}}', id="a call that is no object"),
    pytest.param(b'{"message":{"tool_calls":[{"function":{}}]}}', id="a call without a name"),
    pytest.param(
        b'{"message":{"tool_calls":[{"function":{"name":"f","arguments":"{}"}}]}}', id="arguments as text"
    ),
    pytest.param(b'{"message":{"tool_calls":[{"function":null}]}}', id="a call of null"),
]


@pytest.mark.parametrize("data", GARBAGE)
def test_garbage_is_a_failure_of_the_backend(data):
    """In a stream, behind what was read before, and in a whole answer."""
    *before, last = ChatReader().feed(b'{"message":{"content":"Hi"}}\n' + data + b"\n")

    assert before == [Delta("Hi")]
    assert isinstance(last, Failure)
    with pytest.raises(BackendFailed):
        read_chat_answer(data)


frames = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 9) | st.text("ab", max_size=2),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(
                [
                    "message",
                    "content",
                    "tool_calls",
                    "function",
                    "name",
                    "error",
                    "done",
                    "logprobs",
                    "context",
                ]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


@given(st.lists(frames | st.just({"done": True}), max_size=3))
def test_any_frames_are_read_or_are_a_failure(values):
    """A mad backend costs its caller a 502, never us a 500."""
    with suppress(BackendFailed):
        read(ChatReader(), [orjson.dumps(value) + b"\n" for value in values])


UNUSABLE_COUNTS = [-1, 2**53 + 1, 2**64 - 1, 1.5, True, "7", None]


@pytest.mark.parametrize("count", UNUSABLE_COUNTS, ids=repr)
def test_a_count_that_cannot_be_one_is_none(count):
    """The sum of two counts must still be a number that JSON's readers agree on."""
    frame = {"message": {"content": "x"}, "done": True, "prompt_eval_count": 5, "eval_count": count}

    *_, finish = ChatReader().feed(orjson.dumps(frame) + b"\n")

    assert finish == Finish("stop")


@pytest.mark.parametrize("reason", [[], {}, ["load"], 5, None], ids=repr)
def test_a_done_reason_that_is_no_word_means_stop(reason):
    frame = {"message": {"content": "x"}, "done": True, "done_reason": reason}

    *_, finish = ChatReader().feed(orjson.dumps(frame) + b"\n")

    assert finish == Finish("stop")


def calling(arguments, count=1):
    called = [{"function": {"name": "f", "arguments": arguments}}] * count
    return orjson.dumps({"message": {"tool_calls": called}, "done": True}) + b"\n"


def nested(depth):
    value: dict[str, object] = {}
    for _ in range(depth - 1):
        value = {"a": value}
    return value


@pytest.mark.parametrize("line", [calling(nested(65)), calling({}, 257)], ids=["too deep", "too many"])
def test_tool_calls_beyond_all_bounds_are_a_failure(line):
    """Arguments of any depth could be read and not written; a million calls would stop everybody else."""
    (failure,) = ChatReader().feed(line)

    assert isinstance(failure, Failure)
    assert isinstance(failure.error, BackendFailed)


def test_arguments_as_deep_as_requests_may_be_are_read():
    (calls, _) = ChatReader().feed(calling(nested(64)))

    assert calls == ToolCalls((ToolCall("", "f", nested(64)),))


def test_of_a_log_probability_only_its_four_fields_are_kept():
    """What a backend adds goes nowhere: it could be nested without end, or speak of its insides."""
    item = {"token": "x", "logprob": -1, "bytes": [nested(9)], "id": 5, "path": "/models/x.gguf"}
    frame = {"message": {"content": "x"}, "logprobs": [item, 5]}

    (delta,) = ChatReader().feed(orjson.dumps(frame) + b"\n")

    kept = {"token": "x", "logprob": -1, "bytes": [120], "top_logprobs": []}
    assert delta == Delta("x", logprobs=(kept,))


def test_log_probabilities_without_end_are_a_failure():
    """Ten million empty ones stopped all other callers for a minute."""
    frame = {"message": {"content": "x"}, "logprobs": [{}] * 100_001}

    (failure,) = ChatReader().feed(orjson.dumps(frame) + b"\n")

    assert isinstance(failure, Failure)
