"""gateway.formats.openai.messages: the turns of a conversation, read and written."""

from base64 import b64encode
from collections.abc import Sequence
from typing import Any

import pytest

from gateway.errors import GatewayError, InvalidRequest, UnsupportedField
from gateway.formats.chat import Image, Message, ToolCall
from gateway.formats.fields import Fields
from gateway.formats.images import read_images
from gateway.formats.openai.messages import MAX_MESSAGES, read_messages, write_messages
from tests.formats.samples import PNG

IMAGE = Image(PNG, "image/png")
URL = f"data:image/png;base64,{PNG}"
IMAGE_PART = {"type": "image_url", "image_url": {"url": URL}}
ADD = {"id": "a", "type": "function", "function": {"name": "add", "arguments": '{"x":1}'}}


def read(*messages: Any) -> Sequence[Message]:
    return read_messages(Fields({"messages": list(messages)}))


def text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


WAV, MP3 = b64encode(b"RIFF\x24\0\0\0WAVEfmt ").decode(), b64encode(b"ID3\x04").decode()


def sound_part(data: str, format: str) -> dict[str, Any]:
    return {"type": "input_audio", "input_audio": {"data": data, "format": format}}


@pytest.mark.parametrize(
    ("wire", "message"),
    [
        pytest.param({"role": "user", "content": "Hi"}, Message("user", "Hi"), id="user"),
        pytest.param({"role": "system", "content": ""}, Message("system", ""), id="empty text"),
        pytest.param(
            {"role": "developer", "content": "Be brief."}, Message("system", "Be brief."), id="developer"
        ),
        pytest.param(
            {"role": "user", "content": [text("a"), text("b")]},
            Message("user", "a\nb"),
            id="parts are joined",
        ),
        pytest.param(
            {
                "role": "user",
                "content": [text("a"), IMAGE_PART, text("b")],
            },
            Message("user", "a\nb", images=(IMAGE,)),
            id="images are collected",
        ),
        pytest.param(
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": URL, "detail": "low"}}]},
            Message("user", images=(IMAGE,)),
            id="detail is ignored",
        ),
        pytest.param(
            {"role": "user", "content": [{"type": "image_url", "image_url": URL}]},
            Message("user", images=(IMAGE,)),
            id="an image as a plain string",
        ),
        pytest.param(
            {"role": "user", "content": [text("a"), sound_part(WAV, "wav"), sound_part(MP3, "mp3")]},
            Message("user", "a", images=(Image(WAV, "audio/wav"), Image(MP3, "audio/mpeg"))),
            id="sounds",
        ),
        pytest.param(
            {"role": "user", "content": "Hi", "name": "bob"},
            Message("user", "Hi", name="bob"),
            id="a user's name",
        ),
        pytest.param(
            {"role": "assistant", "content": None}, Message("assistant"), id="assistant without content"
        ),
        pytest.param(
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
            Message("assistant", "No."),
            id="a refusal among the parts",
        ),
        pytest.param({"role": "assistant", "refusal": "No."}, Message("assistant", "No."), id="a refusal"),
        pytest.param(
            {"role": "assistant", "content": "4", "reasoning": "2+2"},
            Message("assistant", "4", thinking="2+2"),
            id="reasoning, as vLLM and Ollama call it",
        ),
        pytest.param(
            {"role": "assistant", "content": "4", "reasoning_content": "2+2"},
            Message("assistant", "4", thinking="2+2"),
            id="reasoning, as llama.cpp calls it",
        ),
        pytest.param(
            {"role": "assistant", "content": None, "tool_calls": [ADD]},
            Message("assistant", tool_calls=(ToolCall("a", "add", {"x": 1}),)),
            id="calls",
        ),
        pytest.param(
            {"role": "assistant", "function_call": {"name": "add", "arguments": ""}},
            Message("assistant", tool_calls=(ToolCall("", "add", {}),)),
            id="a call in the elder shape",
        ),
        pytest.param(
            {"role": "tool", "tool_call_id": "a", "content": "3"},
            Message("tool", "3", tool_call_id="a"),
            id="tool",
        ),
        pytest.param(
            {"role": "tool", "tool_call_id": "a", "name": "add", "content": [text("3"), text("4")]},
            Message("tool", "3\n4", tool_call_id="a", tool_name="add"),
            id="tool with parts and a name",
        ),
        pytest.param(
            {"role": "function", "name": "add", "content": "3"},
            Message("tool", "3", tool_name="add"),
            id="function",
        ),
        pytest.param(
            {"role": "user", "content": "Hi", "cache_control": {}}, Message("user", "Hi"), id="unknown field"
        ),
    ],
)
def test_a_message_is_read(wire: dict[str, Any], message: Message) -> None:
    """All that OpenAI's clients send, in the house's words."""
    assert read(wire) == (message,)


@pytest.mark.parametrize(
    ("wire", "error", "param"),
    [
        pytest.param("Hi", InvalidRequest, "messages[0]", id="no object"),
        pytest.param({"content": "Hi"}, InvalidRequest, "messages[0].role", id="no role"),
        pytest.param({"role": "god", "content": "Hi"}, InvalidRequest, "messages[0].role", id="unknown role"),
        pytest.param({"role": "user"}, InvalidRequest, "messages[0].content", id="no content"),
        pytest.param(
            {"role": "user", "content": 1}, InvalidRequest, "messages[0].content", id="content is a number"
        ),
        pytest.param(
            {"role": "user", "content": {}}, InvalidRequest, "messages[0].content", id="content is an object"
        ),
        pytest.param(
            {"role": "user", "content": [{"text": "Hi"}]},
            InvalidRequest,
            "messages[0].content[0].type",
            id="no type",
        ),
        pytest.param(
            {"role": "user", "content": [{"type": "text"}]},
            InvalidRequest,
            "messages[0].content[0].text",
            id="no text",
        ),
        pytest.param(
            {"role": "user", "content": [{"type": "image_url"}]},
            InvalidRequest,
            "messages[0].content[0].image_url",
            id="no image",
        ),
        pytest.param(
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://localhost"}}]},
            InvalidRequest,
            "messages[0].content[0].image_url.url",
            id="an image to fetch",
        ),
        pytest.param(
            {"role": "user", "content": [text("a"), {"type": "input_audio", "input_audio": {"data": WAV}}]},
            InvalidRequest,
            "messages[0].content[1].input_audio.format",
            id="a sound of no format",
        ),
        pytest.param(
            {"role": "user", "content": [sound_part("http://10.0.0.1/a.wav", "wav")]},
            InvalidRequest,
            "messages[0].content[0].input_audio.data",
            id="a sound to fetch",
        ),
        pytest.param(
            {"role": "user", "content": [{"type": "file", "file": {"file_id": "x"}}]},
            UnsupportedField,
            "messages[0].content[0].type",
            id="file",
        ),
        pytest.param(
            {"role": "assistant", "audio": {"id": "x"}},
            UnsupportedField,
            "messages[0].audio",
            id="former audio",
        ),
        pytest.param(
            {"role": "user", "content": "Hi", "Content": "Bye"},
            InvalidRequest,
            "messages[0].Content",
            id="look-alike",
        ),
        pytest.param(
            {"role": "assistant", "tool_calls": [{"type": "function"}]},
            InvalidRequest,
            "messages[0].tool_calls[0].function",
            id="a call of nothing",
        ),
    ],
)
def test_a_message_that_cannot_be_taken_is_refused(wire: Any, error: type[GatewayError], param: str) -> None:
    """The error names the field by its path."""
    with pytest.raises(error) as refused:
        read(wire)

    assert (type(refused.value), refused.value.param) == (error, param)


@pytest.mark.parametrize(
    "messages",
    [
        pytest.param([], id="none"),
        pytest.param([{"role": "user", "content": ""}] * (MAX_MESSAGES + 1), id="too many"),
        pytest.param([{"role": "user", "content": [text("")] * 3000}], id="too many parts"),
        pytest.param(
            [{"role": "user", "content": [{"type": "image_url", "image_url": URL}]}] * 65,
            id="too many images",
        ),
    ],
)
def test_the_number_of_messages_is_bounded(messages: list[Any]) -> None:
    """One body must not become unbounded work."""
    with pytest.raises(InvalidRequest):
        read(*messages)


def test_calls_and_answers_are_written_with_ids() -> None:
    """vLLM and llama.cpp demand ids that Ollama's clients do not send."""
    messages = (
        Message("assistant", tool_calls=(ToolCall("", "add", {"x": 1}),)),
        Message("tool", "3", tool_name="add"),
    )

    assert write_messages(messages) == [
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"id": "call00001", "type": "function", "function": {"name": "add", "arguments": '{"x":1}'}}
            ],
        },
        {"role": "tool", "content": "3", "tool_call_id": "call00001", "name": "add"},
    ]


def test_thinking_is_written_by_both_names() -> None:
    """vLLM's templates read `reasoning`, llama.cpp reads `reasoning_content`."""
    assert write_messages((Message("assistant", "4", thinking="2+2"),)) == [
        {"role": "assistant", "content": "4", "reasoning": "2+2", "reasoning_content": "2+2"}
    ]


@pytest.mark.parametrize(
    ("message", "content"),
    [
        pytest.param(Message("user", "Hi"), "Hi", id="text alone is a string"),
        pytest.param(
            Message("user", "What?", images=(IMAGE,)),
            [text("What?"), IMAGE_PART],
            id="text and image",
        ),
        pytest.param(
            Message("user", images=(IMAGE,)),
            [IMAGE_PART],
            id="image alone",
        ),
    ],
)
def test_images_are_written_as_data_urls(message: Message, content: Any) -> None:
    """The backend has nothing to fetch either."""
    assert write_messages((message,)) == [{"role": "user", "content": content}]


def test_sounds_are_written_as_sounds() -> None:
    """Ollama's clients send them among the images; a server would try to look at what is to be heard."""
    (sound,) = read_images([WAV], "images")

    assert write_messages((Message("user", "What?", images=(sound, IMAGE)),)) == [
        {"role": "user", "content": [text("What?"), sound_part(WAV, "wav"), IMAGE_PART]}
    ]


def test_a_sound_that_no_server_hears_is_refused() -> None:
    (sound,) = read_images([b64encode(b"OggS").decode()], "images")

    with pytest.raises(UnsupportedField, match="WAV or MP3"):
        write_messages((Message("user", images=(sound,)),))
