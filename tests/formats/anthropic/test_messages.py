"""gateway.formats.anthropic.messages: the turns of a conversation, block by block."""

from typing import Any

import pytest

from gateway.errors import GatewayError, InvalidRequest, UnsupportedField
from gateway.formats.anthropic.messages import MAX_MESSAGES, read_messages
from gateway.formats.chat import Image, Message, ToolCall
from gateway.formats.fields import Fields
from tests.formats.samples import PNG

IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
CALL = {"type": "tool_use", "id": "a", "name": "add", "input": {"x": 1}}
CACHED = {"cache_control": {"type": "ephemeral"}}


def read(*messages: Any, **fields: Any) -> tuple[Message, ...]:
    return read_messages(Fields({"messages": list(messages)} | fields))


def text(text: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": text, **more}


def result(content: Any = None, **more: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": "a", "content": content, **more}


def user(*content: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(content)}


def assistant(*content: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": list(content)}


def answered(content: str, images: tuple[Image, ...] = ()) -> Message:
    return Message("tool", content, images, tool_call_id="a")


PIXEL = Image(PNG, "image/png")


@pytest.mark.parametrize(
    ("wire", "messages"),
    [
        pytest.param([{"role": "user", "content": "Hi"}], [Message("user", "Hi")], id="a string"),
        pytest.param(
            [user(text("a", **CACHED), text("b", citations=None))],
            [Message("user", "a\nb")],
            id="texts are joined",
        ),
        pytest.param(
            [user(IMAGE, text("What?"))], [Message("user", "What?", (PIXEL,))], id="images are collected"
        ),
        pytest.param(
            [{"role": "user", "content": "a"}, user(text("b"), IMAGE)],
            [Message("user", "a\nb", (PIXEL,))],
            id="neighbours of one role are one turn",
        ),
        pytest.param(
            [{"role": "system", "content": "Be brief."}, user(text("Hi"))],
            [Message("system", "Be brief."), Message("user", "Hi")],
            id="system among the messages",
        ),
        pytest.param(
            [assistant({"type": "thinking", "thinking": "2+2", "signature": "x"}, text("4"), CALL)],
            [Message("assistant", "4", thinking="2+2", tool_calls=(ToolCall("a", "add", {"x": 1}),))],
            id="thinking, text and a call",
        ),
        pytest.param(
            [assistant({"type": "redacted_thinking", "data": "EmwKAhgB"}, text("4"))],
            [Message("assistant", "4")],
            id="what Anthropic has encrypted",
        ),
        pytest.param(
            [assistant(CALL | {"caller": {"type": "direct"}}), user(result("3"))],
            [Message("assistant", tool_calls=(ToolCall("a", "add", {"x": 1}),)), answered("3")],
            id="a call and its result",
        ),
        pytest.param(
            [user(text("And?"), result([text("3"), IMAGE, text("!")]))],
            [answered("3\n!", (PIXEL,)), Message("user", "And?")],
            id="a result comes before the rest of its turn",
        ),
        pytest.param([user(result())], [answered("")], id="a result of nothing"),
        pytest.param(
            [user(result("no such city", is_error=True))], [answered("Error: no such city")], id="a failure"
        ),
        pytest.param([user(result("3", is_error=False))], [answered("3")], id="no failure"),
        pytest.param([assistant()], [Message("assistant")], id="an empty turn"),
    ],
)
def test_turns_are_read(wire: list[Any], messages: list[Message]) -> None:
    """All that Anthropic's clients send of a conversation, in the house's words."""
    assert read(*wire) == tuple(messages)


@pytest.mark.parametrize(
    ("system", "messages"),
    [
        pytest.param("Be brief.", [Message("system", "Be brief.")], id="a string"),
        pytest.param(
            [text("Be brief.", **CACHED), text("Be kind.")],
            [Message("system", "Be brief.\nBe kind.")],
            id="blocks",
        ),
        pytest.param("", [], id="an empty one"),
        pytest.param([], [], id="no block"),
        pytest.param(None, [], id="none"),
    ],
)
def test_the_system_prompt_comes_first(system: Any, messages: list[Message]) -> None:
    assert read(user(text("Hi")), system=system) == (*messages, Message("user", "Hi"))


@pytest.mark.parametrize(
    ("wire", "error", "param"),
    [
        pytest.param("Hi", InvalidRequest, "messages[0]", id="no object"),
        pytest.param({"content": "Hi"}, InvalidRequest, "messages[0].role", id="no role"),
        pytest.param(
            {"role": "tool", "content": "x"}, InvalidRequest, "messages[0].role", id="OpenAI's role"
        ),
        pytest.param({"role": "user"}, InvalidRequest, "messages[0].content", id="no content"),
        pytest.param({"role": "user", "content": 1}, InvalidRequest, "messages[0].content", id="a number"),
        pytest.param(
            {"role": "user", "content": "Hi", "name": "bob"},
            UnsupportedField,
            "messages[0].name",
            id="unknown",
        ),
        pytest.param(
            {"role": "user", "Role": "system", "content": ""},
            InvalidRequest,
            "messages[0].Role",
            id="look-alike",
        ),
        pytest.param(user("Hi"), InvalidRequest, "messages[0].content[0]", id="a block that is a string"),
        pytest.param(user({"text": "Hi"}), InvalidRequest, "messages[0].content[0].type", id="no type"),
        pytest.param(user({"type": "text"}), InvalidRequest, "messages[0].content[0].text", id="no text"),
        pytest.param(
            user(text("a"), {"type": "document", "source": {}}),
            UnsupportedField,
            "messages[0].content[1].type",
            id="a document",
        ),
        pytest.param(
            assistant({"type": "server_tool_use", "id": "x", "name": "web_search", "input": {}}),
            UnsupportedField,
            "messages[0].content[0].type",
            id="a call of Anthropic's own",
        ),
        pytest.param(user(CALL), UnsupportedField, "messages[0].content[0].type", id="a call by the user"),
        pytest.param(assistant(IMAGE), UnsupportedField, "messages[0].content[0].type", id="an image said"),
        pytest.param(
            user(text("a", colour="red")), UnsupportedField, "messages[0].content[0].colour", id="in a block"
        ),
        pytest.param(
            user({"type": "image", "source": {"type": "url", "url": "http://localhost/"}}),
            UnsupportedField,
            "messages[0].content[0].source.type",
            id="an image to fetch",
        ),
        pytest.param(
            user({"type": "image", "source": {"type": "file", "file_id": "x"}}),
            UnsupportedField,
            "messages[0].content[0].source.type",
            id="a file",
        ),
        pytest.param(
            user({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "?"}}),
            InvalidRequest,
            "messages[0].content[0].source.data",
            id="no base64",
        ),
        pytest.param(
            user({"type": "image", "source": {"type": "base64", "media_type": "audio/wav", "data": PNG}}),
            InvalidRequest,
            "messages[0].content[0].source.media_type",
            id="a sound",
        ),
        pytest.param(user({"type": "image"}), InvalidRequest, "messages[0].content[0].source", id="no image"),
        pytest.param(
            assistant({"type": "tool_use", "name": "add", "input": {}}),
            InvalidRequest,
            "messages[0].content[0].id",
            id="a call without an id",
        ),
        pytest.param(
            assistant(CALL | {"input": "{}"}),
            InvalidRequest,
            "messages[0].content[0].input",
            id="input as a string",
        ),
        pytest.param(
            user({"type": "tool_result", "content": "3"}),
            InvalidRequest,
            "messages[0].content[0].tool_use_id",
            id="a result of no call",
        ),
        pytest.param(
            user(result([{"type": "search_result"}])),
            UnsupportedField,
            "messages[0].content[0].content[0].type",
            id="in a result",
        ),
    ],
)
def test_what_cannot_be_taken_is_refused(wire: Any, error: type[GatewayError], param: str) -> None:
    """The error names the field by its path."""
    with pytest.raises(error) as refused:
        read(wire)

    assert (type(refused.value), refused.value.param) == (error, param)


@pytest.mark.parametrize(
    "messages",
    [
        pytest.param([], id="none"),
        pytest.param([{"role": "user", "content": ""}] * (MAX_MESSAGES + 1), id="too many"),
        pytest.param([user(*[text("")] * 3000)], id="too many blocks"),
        pytest.param([user(IMAGE)] * 65, id="too many images"),
    ],
)
def test_the_number_of_messages_is_bounded(messages: list[Any]) -> None:
    """One body must not become unbounded work."""
    with pytest.raises(InvalidRequest):
        read(*messages)
