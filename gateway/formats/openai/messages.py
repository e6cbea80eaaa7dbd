"""Messages: OpenAI's shapes ↔ the house's words."""

from collections.abc import Sequence
from typing import Final

from gateway.errors import UnsupportedField
from gateway.formats.chat import Image, Message, with_tool_ids
from gateway.formats.fields import Fields
from gateway.formats.openai.images import data_url, image_of
from gateway.formats.openai.sounds import is_sound, sound_of, sound_part
from gateway.formats.openai.tools import read_tool_calls, write_call
from gateway.formats.plain_messages import Texts, messages_in
from gateway.model import JsonObject

# Twice what OpenAI takes.
MAX_MESSAGES: Final = 4096
MAX_PARTS: Final = 2048

_ROLES: Final = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
# Whose messages may be a text and no more: an answer names its call.
_PLAIN_ROLES: Final = {role: meant for role, meant in _ROLES.items() if meant != "tool"}
_FIELDS: Final = frozenset(
    {"role", "content", "name", "refusal", "audio", "reasoning", "reasoning_content"}
    | {"tool_calls", "function_call", "tool_call_id"}
)

# ── reading a request ────────────────────────────────────────────────────────────────────


def read_messages(body: Fields) -> Sequence[Message]:
    """`messages`, at least one. Text parts are joined by newlines, images and sounds collected.

    A refusal is taken as text. Unknown fields are left out.
    """
    messages = messages_in(body, MAX_MESSAGES, _PLAIN_ROLES, _read_message)
    if not messages:
        raise body.refuse("messages", "given: an array of at least one message")
    return messages


def _read_message(message: Fields) -> Message:
    message.refuse_look_alikes(_FIELDS)
    role = message.required_choice("role", *_ROLES)
    if role in ("tool", "function"):
        return _read_answer(message)
    if role == "assistant":
        return _read_assistant(message)
    if not message.has("content"):
        raise message.refuse("content", "given: a string or an array of parts")
    content, images = _read_content(message)
    return Message(role=_ROLES[role], content=content, images=images, name=message.text("name"))


def _read_answer(message: Fields) -> Message:
    content, images = _read_content(message)
    return Message(
        role="tool",
        content=content,
        images=images,
        tool_call_id=message.text("tool_call_id"),
        tool_name=message.text("name"),
    )


def _read_assistant(message: Fields) -> Message:
    if message.has("audio"):
        raise _unsupported(message.path("audio"))
    content, images = _read_content(message)
    return Message(
        role="assistant",
        content=content or message.text("refusal"),
        images=images,
        thinking=message.text("reasoning") or message.text("reasoning_content"),
        tool_calls=read_tool_calls(message),
        name=message.text("name"),
    )


def _read_content(message: Fields) -> tuple[str, tuple[Image, ...]]:
    content = message.raw("content")
    if content is None or isinstance(content, str):
        return content or "", ()
    if not isinstance(content, list):
        raise message.refuse("content", "a string or an array of parts")
    texts: list[str] = []
    images: list[Image] = []
    for part in message.objects("content", MAX_PARTS):
        read = _read_part(part)
        if isinstance(read, Image):
            images.append(read)
        else:
            texts.append(read)
    return "\n".join(texts), tuple(images)


def _read_part(part: Fields) -> str | Image:
    kind = part.required_string("type")
    if kind in ("text", "refusal"):
        text = part.string(kind)
        if text is None:
            raise part.refuse(kind, "given: a string")
        return text
    if kind == "image_url":
        return _read_image(part)
    if kind == "input_audio":
        return sound_of(part)
    raise _unsupported(part.path("type"), kind)


def _read_image(part: Fields) -> Image:
    if isinstance(part.raw("image_url"), str):
        return image_of(part.text("image_url"), part.path("image_url"))
    image_url = part.object("image_url")
    if image_url is None:
        raise part.refuse("image_url", "given: an object with a 'url'")
    return image_of(image_url.required_string("url"), image_url.path("url"))


def _unsupported(param: str, kind: str = "audio") -> UnsupportedField:
    taken = "text, image_url and input_audio"
    return UnsupportedField(
        f"'{param}': content of type '{kind[:40]}' is not taken here, only {taken}.", param=param
    )


# ── writing a request ────────────────────────────────────────────────────────────────────


def write_messages(messages: Sequence[Message]) -> list[JsonObject]:
    """Every call gets an id, and every answer the id of its call: vLLM and llama.cpp demand both.

    Thinking goes by the names of both, `reasoning` (vLLM) and `reasoning_content` (llama.cpp).
    """
    if type(messages) is Texts:
        return messages.written
    return [_write_message(message) for message in with_tool_ids(messages)]


def _write_message(message: Message) -> JsonObject:
    content = _write_parts(message) if message.images else message.content
    written: JsonObject = {"role": message.role, "content": content}
    if message.role == "tool":
        written["tool_call_id"] = message.tool_call_id
        if message.tool_name:
            written["name"] = message.tool_name
    elif message.name:
        written["name"] = message.name
    if message.thinking:
        written["reasoning"] = message.thinking
        written["reasoning_content"] = message.thinking
    if message.tool_calls:
        written["tool_calls"] = [write_call(call) for call in message.tool_calls]
    return written


def _write_parts(message: Message) -> list[JsonObject]:
    parts: list[JsonObject] = []
    if message.content:
        parts.append({"type": "text", "text": message.content})
    return parts + [_write_image(image) for image in message.images]


def _write_image(image: Image) -> JsonObject:
    if is_sound(image):
        return sound_part(image)
    return {"type": "image_url", "image_url": {"url": data_url(image)}}
