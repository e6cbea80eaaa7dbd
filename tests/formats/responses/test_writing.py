"""gateway.formats.responses.writing: answers as OpenAI's clients read them."""

from collections.abc import Sequence
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from gateway.errors import BackendFailed
from gateway.formats.chat import AnswerStamp, Delta, Event, Failure, Finish, ToolCall, ToolCalls
from gateway.formats.openai.reading import ChatReader
from gateway.formats.responses import ResponseWriter, read_response, write_response
from gateway.formats.responses.requests import ResponseCall
from gateway.model import Usage
from tests.formats.cuts import cut, places
from tests.formats.recordings import of_llama_cpp

STAMP = AnswerStamp("req_01J", 'my "llama"', 1_700_000_000.9, lambda: 1_700_000_001.0)
ADD, SUB = ToolCall("a", "add", {"x": 1}), ToolCall("", "sub", {})
EVENTS: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
ALL = (
    Delta(thinking="h"),
    Delta(thinking="m"),
    Delta(content="He"),
    Delta(content="llo"),
    ToolCalls((ADD, SUB)),
    Finish("stop", Usage(3, 4)),
)


def call_of(**fields: Any) -> ResponseCall:
    return read_response({"model": 'my "llama"', "input": "Hi", **fields})


def streamed(events: Sequence[Event], call: ResponseCall | None = None) -> list[dict[str, Any]]:
    """The events as a client's SSE reader finds them, each judged by the SDK's own types."""
    data = ResponseWriter(STAMP, call or call_of()).write(events)
    return parsed(data)


def parsed(data: bytes) -> list[dict[str, Any]]:
    found = []
    for frame in data.split(b"\n\n")[:-1]:
        name, payload = frame.split(b"\n")
        event = orjson.loads(payload.removeprefix(b"data: "))
        assert name == b"event: " + event["type"].encode()
        EVENTS.validate_python(event)
        found.append(event)
    return found


def whole(events: Sequence[Event], call: ResponseCall | None = None) -> dict[str, Any]:
    response = orjson.loads(write_response(events, STAMP, call or call_of()))
    Response.model_validate(response)
    return dict(response)


def names(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]


def test_the_full_sequence_of_events():
    events = streamed(ALL)

    call_events = [
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
    ]
    assert names(events) == [
        "created",
        "in_progress",
        "output_item.added",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        *call_events,
        *call_events,
        "completed",
    ]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))


def test_the_last_event_has_all_that_was_streamed():
    """And is what a caller gets who does not stream."""
    last = streamed(ALL)[-1]["response"]

    assert last == whole(ALL)
    assert [item["type"] for item in last["output"]] == [
        "reasoning",
        "message",
        "function_call",
        "function_call",
    ]
    assert last["output"][0]["summary"][0]["text"] == "hm"
    assert last["output"][1]["content"][0]["text"] == "Hello"
    assert last["output"][2]["arguments"] == '{"x":1}'
    assert last["output"][3]["call_id"].startswith("call_")
    assert (last["status"], last["store"], last["model"]) == ("completed", False, 'my "llama"')
    assert last["usage"]["total_tokens"] == 7


def test_places_and_ids_agree_within_an_item():
    events = streamed(ALL)
    by_index: dict[int, set[str]] = {}
    for event in events:
        if "output_index" in event:
            item_id = event.get("item_id") or event["item"]["id"]
            by_index.setdefault(event["output_index"], set()).add(item_id)

    assert [len(ids) for ids in by_index.values()] == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("reason", "status", "details"),
    [("stop", "completed", None), ("tool_calls", "completed", None),
     ("length", "incomplete", {"reason": "max_output_tokens"}),
     ("content_filter", "incomplete", {"reason": "content_filter"})],
)  # fmt: skip
def test_an_answer_that_was_cut_short_says_so(reason: str, status: str, details: Any):
    given = (Delta(content="He"), Finish(reason, Usage(1, 1)))
    last = streamed(given)[-1]

    assert last["type"] == f"response.{status}"
    assert last["response"]["incomplete_details"] == details
    assert last["response"] == whole(given)
    assert last["response"]["output"][0]["status"] == status


def test_an_empty_answer_is_a_response_all_the_same():
    events = streamed((Finish("stop"),))

    assert names(events) == ["created", "in_progress", "completed"]
    assert events[-1]["response"]["output"] == []
    assert events[-1]["response"]["usage"] is None


def test_a_stream_that_breaks_never_looks_complete():
    writer = ResponseWriter(STAMP, call_of())
    data = writer.write((Delta(content="He"),)) + writer.fail(BackendFailed("The server broke off."))
    events = parsed(data)

    assert events[-1]["type"] == "response.failed"
    assert events[-1]["response"]["status"] == "failed"
    assert events[-1]["response"]["error"] == {"code": "server_error", "message": "The server broke off."}
    assert "response.completed" not in {event["type"] for event in events}


def test_a_failure_before_the_first_word_is_a_whole_stream():
    assert names(streamed((Failure(BackendFailed("No.")),))) == ["created", "in_progress", "failed"]


def test_the_response_tells_again_what_was_asked():
    asked: dict[str, Any] = {
        "instructions": "Be brief.",
        "max_output_tokens": 9,
        "temperature": 0.5,
        "tools": [{"type": "function", "name": "add", "parameters": {}, "strict": True}],
        "tool_choice": "auto",
        "parallel_tool_calls": False,
        "text": {"format": {"type": "text"}, "verbosity": "low"},
        "reasoning": {"effort": "low", "summary": "auto"},
        "metadata": {"a": "b"},
        "truncation": "disabled",
        "top_logprobs": 0,
    }
    told = whole(ALL, call_of(**asked))

    assert {name: told[name] for name in asked} == asked
    assert len([item for item in told["output"] if item["type"] == "function_call"]) == 1


def test_thinking_goes_back_as_it_came_where_it_is_asked_for():
    call = call_of(include=["reasoning.encrypted_content"])
    item = whole(ALL, call)["output"][0]
    again = read_response({"model": "m", "input": [item, {"role": "assistant", "content": "x"}]})

    assert item["encrypted_content"] == "hm"
    assert again.messages[0].thinking == "hm"
    assert "encrypted_content" not in whole(ALL)["output"][0]


def test_logprobs_stand_where_they_were_asked_for():
    item = {"token": "H", "logprob": -0.5, "bytes": [72], "top_logprobs": []}
    events = (Delta(content="H", logprobs=(item,)), Finish("stop"))
    asked = streamed(events, call_of(top_logprobs=1))
    delta = next(event for event in asked if event["type"].endswith("text.delta"))

    assert delta["logprobs"] == [item]
    assert asked[-1]["response"]["output"][0]["content"][0]["logprobs"] == [item]
    assert whole(events)["output"][0]["content"][0]["logprobs"] == []


@given(places)
def test_any_cut_of_a_backend_s_stream_ends_in_the_same_response(cuts: list[int]):
    reader, writer = ChatReader(), ResponseWriter(STAMP, call_of())
    data = b"".join(
        writer.write(reader.feed(piece)) for piece in cut(of_llama_cpp("chat_stream_usage"), cuts)
    )
    last = parsed(data + writer.write(reader.end()))[-1]

    assert last["type"] == "response.completed"
    assert last["response"]["output"][0]["content"][0]["text"]


@given(st.text(), st.text())
def test_any_text_comes_through(thinking: str, content: str):
    given = (Delta(thinking=thinking, content=content), Finish("stop"))
    output = whole(given)["output"]

    assert output == streamed(given)[-1]["response"]["output"]
    assert [item["type"] for item in output] == ["reasoning"] * bool(thinking) + ["message"] * bool(content)
