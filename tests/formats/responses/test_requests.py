"""gateway.formats.responses.requests: what callers of /v1/responses ask for, in the house's words."""

import base64
from typing import Any

import pytest

from gateway.errors import InvalidRequest, UnsupportedField
from gateway.formats.chat import Format, Image, Message, Sampling, Tool, ToolCall, ToolChoice
from gateway.formats.responses import read_response
from gateway.formats.responses.requests import ResponseCall

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(16)).decode()


def read(input: Any = "Hi", **fields: Any) -> ResponseCall:
    return read_response({"model": "m", "input": input, **fields})


def messages(*items: Any, **fields: Any) -> list[Message]:
    return list(read(list(items), **fields).messages)


def refusal(input: Any = "Hi", **fields: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        read(input, **fields)
    return caught.value


# ── input ────────────────────────────────────────────────────────────────────────────────


def test_a_text_is_a_user_s_message_behind_the_instructions():
    call = read("Hi", instructions="Be brief.")

    assert call.messages == (Message("system", "Be brief."), Message("user", "Hi"))
    assert not call.stream


def test_messages_in_short_and_in_full():
    assert messages(
        {"role": "developer", "content": "Be brief."},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a"}]},
        {
            "type": "message",
            "id": "msg_1",
            "status": "completed",
            "role": "assistant",
            "content": [
                {"type": "output_text", "text": "b", "annotations": []},
                {"type": "refusal", "refusal": "c"},
            ],
        },
        {"role": "user", "content": "d"},
    ) == [
        Message("system", "Be brief."),
        Message("user", "a"),
        Message("assistant", "b\nc"),
        Message("user", "d"),
    ]


def test_what_the_assistant_thought_said_and_called_is_one_turn():
    """As the items of a response come back, with the results of its calls behind them."""
    assert messages(
        {"role": "user", "content": "What is 1+1, and 2+2?"},
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Wait."}]},
        {"type": "function_call", "call_id": "c1", "name": "add", "arguments": '{"a":1,"b":1}'},
        {"type": "function_call", "call_id": "c2", "name": "add", "arguments": '{"a":2,"b":2}'},
        {"type": "function_call_output", "call_id": "c1", "output": "2"},
        {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "4"}]},
    ) == [
        Message("user", "What is 1+1, and 2+2?"),
        Message(
            "assistant",
            "Wait.",
            thinking="hm",
            tool_calls=(ToolCall("c1", "add", {"a": 1, "b": 1}), ToolCall("c2", "add", {"a": 2, "b": 2})),
        ),
        Message("tool", "2", tool_call_id="c1"),
        Message("tool", "4", tool_call_id="c2"),
    ]


@pytest.mark.parametrize(
    ("reasoning", "thinking"),
    [
        ({"summary": [], "encrypted_content": "all of it"}, "all of it"),
        ({"summary": [{"text": "short"}], "content": [{"text": "long"}]}, "long"),
        ({"summary": [{"text": "short"}, {"text": "er"}]}, "short\ner"),
    ],
    ids=["sent-back", "content", "summary"],
)
def test_reasoning_is_thinking_as_whole_as_it_was_told(reasoning: dict[str, Any], thinking: str):
    items = {"type": "reasoning", "id": "rs"} | reasoning, {"role": "assistant", "content": "x"}

    assert messages(*items) == [Message("assistant", "x", thinking=thinking)]


def test_an_image_is_sent_by_value():
    image = {"type": "input_image", "detail": "auto", "image_url": f"data:image/png;base64,{PNG}"}

    assert messages({"role": "user", "content": [image]}) == [
        Message("user", images=(Image(PNG, "image/png"),))
    ]


@pytest.mark.parametrize(
    ("item", "param", "word"),
    [
        ({"type": "item_reference", "id": "msg_1"}, "input[0].type", "keeps no items"),
        ({"type": "web_search_call"}, "input[0].type", "not taken here"),
        ({"role": "user", "content": [{"type": "input_file"}]}, "input[0].content[0].type", "keeps no"),
        (
            {"role": "user", "content": [{"type": "input_image", "file_id": "f"}]},
            "input[0].content[0].type",
            "keeps no",
        ),
        (
            {"role": "user", "content": [{"type": "input_image", "image_url": "https://a/b.png"}]},
            "input[0].content[0].image_url",
            "fetches no images",
        ),
        ({"role": "user"}, "input[0].content", "given"),
        ({"role": "robot", "content": "x"}, "input[0].role", "one of"),
        ({"type": "function_call", "name": "f", "arguments": "{}"}, "input[0].call_id", "given"),
        ({"ROLE": "user", "content": "x"}, "input[0].ROLE", "too close"),
    ],
    ids=["reference", "foreign", "file", "image-file", "image-url", "empty", "role", "no-id", "look-alike"],
)
def test_an_item_that_can_not_be_meant_is_refused_by_its_place(item: dict[str, Any], param: str, word: str):
    refused = refusal([item])

    assert refused.param == param
    assert word in refused.sentence


@pytest.mark.parametrize("nothing", [[], "", None], ids=["no-items", "no-text", "null"])
def test_an_empty_input_is_refused(nothing: Any):
    assert refusal(nothing).param == "input"


# ── what is kept nowhere ─────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "asked",
    [{"previous_response_id": "resp_1"}, {"conversation": "conv_1"}, {"store": True},
     {"background": True}, {"prompt": {"id": "p"}}],
    ids=lambda asked: next(iter(asked)),
)  # fmt: skip
def test_what_needs_a_kept_conversation_is_refused_and_says_so(asked: dict[str, Any]):
    refused = refusal(**asked)

    assert isinstance(refused, UnsupportedField)
    assert refused.param in asked
    assert "keeps none" in refused.sentence


def test_what_asks_for_nothing_is_no_request():
    call = read(store=False, background=False, previous_response_id=None, metadata={"a": "b"}, user="u")

    assert call.dropped == ()
    assert call.echo["metadata"] == {"a": "b"}


@pytest.mark.parametrize("name", ["max_tokens", "messages", "response_format"])
def test_a_chat_s_field_is_refused_with_its_name_here(name: str):
    assert "instead" in refusal(**{name: 1}).sentence


def test_unknown_fields_are_named():
    assert read(access_programs={}, lora=1).dropped == ("access_programs", "lora")


# ── parameters ───────────────────────────────────────────────────────────────────────────


def test_sampling_and_extra_fields():
    call = read(
        max_output_tokens=9,
        temperature=0.5,
        top_p=0.9,
        num_ctx=4096,
        keep_alive="5m",
        truncation="disabled",
        stream=True,
        stream_options={"include_obfuscation": False},
    )

    assert call.sampling == Sampling(max_tokens=9, temperature=0.5, top_p=0.9, num_ctx=4096)
    assert (call.keep_alive, call.truncate, call.stream) == (300.0, False, True)


@pytest.mark.parametrize(
    ("text", "format"),
    [
        ({"format": {"type": "text"}, "verbosity": "low"}, None),
        ({"format": {"type": "json_object"}}, Format()),
        (
            {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}},
            Format({"type": "object"}, "n", strict=True),
        ),
    ],
    ids=["text", "object", "schema"],
)
def test_structured_output(text: dict[str, Any], format: Format | None):
    assert read(text=text).format == format


@pytest.mark.parametrize(
    ("fields", "think"),
    [({}, None), ({"reasoning": {"effort": "high", "summary": "auto"}}, "high"),
     ({"reasoning": {"effort": "none"}}, False), ({"think": True}, True)],
    ids=["absent", "high", "none", "native"],
)  # fmt: skip
def test_thinking(fields: dict[str, Any], think: bool | str | None):
    assert read(**fields).think == think


@pytest.mark.parametrize(
    ("fields", "top"),
    [({}, None), ({"include": ["message.output_text.logprobs"]}, 0), ({"top_logprobs": 3}, 3)],
    ids=["absent", "included", "some"],
)
def test_logprobs(fields: dict[str, Any], top: int | None):
    assert read(**fields).top_logprobs == top


ADD = {"type": "function", "name": "add", "description": "adds", "parameters": {}, "strict": True}


def test_functions_stand_flat():
    call = read(tools=[ADD], tool_choice={"type": "function", "name": "add"}, parallel_tool_calls=False)

    assert call.tools == (Tool("add", "adds", {}, strict=True),)
    assert call.tool_choice == ToolChoice("required", "add")
    assert call.parallel_tool_calls is False


def test_allowed_tools_are_the_ones_that_are_left():
    choice = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "add"}]}
    call = read(tools=[ADD, {"type": "function", "name": "sub"}], tool_choice=choice)

    assert [tool.name for tool in call.tools] == ["add"]
    assert call.tool_choice == ToolChoice("required")


def test_a_tool_of_openai_s_own_is_refused():
    refused = refusal(tools=[{"type": "web_search"}])

    assert refused.param == "tools[0].type"
    assert "runs none" in refused.sentence
