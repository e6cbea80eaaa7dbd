"""System prompt and messages: Anthropic's blocks, in the house's words."""

from collections.abc import Iterator
from typing import Any, Final

from attrs import define, evolve, field

from gateway.errors import InvalidRequest, UnsupportedField
from gateway.formats.chat import Image, Message, ToolCall
from gateway.formats.fields import Fields
from gateway.formats.images import MAX_IMAGES, read_image

MAX_MESSAGES: Final = 10_000
MAX_BLOCKS: Final = 2048

MESSAGE_FIELDS: Final = frozenset({"system", "messages"})
_FIELDS: Final = frozenset({"role", "content"})
# What may stand in a block of each type. Caches, citations and who called what are read by nobody here.
_BLOCKS: Final = {
    "text": frozenset({"type", "text", "cache_control", "citations"}),
    "image": frozenset({"type", "source", "cache_control", "transformations"}),
    "thinking": frozenset({"type", "thinking", "signature"}),
    "redacted_thinking": frozenset({"type", "data"}),
    "tool_use": frozenset({"type", "id", "name", "input", "cache_control", "caller", "toolset_name"}),
    "tool_result": frozenset({"type", "tool_use_id", "content", "is_error", "cache_control", "toolset_name"}),
}
_SOURCE_FIELDS: Final = frozenset({"type", "media_type", "data"})
_MEDIA_TYPES: Final = ("image/jpeg", "image/png", "image/gif", "image/webp")
# Which blocks each role may send.
_OF_ROLE: Final = {
    "user": ("text", "image", "tool_result"),
    "assistant": ("text", "thinking", "redacted_thinking", "tool_use"),
    "system": ("text",),
}
_OF_RESULT: Final = ("text", "image")

# Neither kind of backend has a field for it, so the model is told in words.
_FAILED: Final = "Error: "


def read_messages(body: Fields) -> tuple[Message, ...]:
    """`system`, if there is one, and `messages`, at least one. Text blocks are joined by newlines.

    As with Anthropic, neighbours of one role are one turn. Results of tools become messages of their own, in
    front of what else their turn says. Signatures are not checked, and thinking that Anthropic has encrypted
    is left out: nobody here can read it.
    """
    turns: list[_Turn] = []
    for message in body.objects("messages", MAX_MESSAGES):
        message.refuse_unknown(_FIELDS)
        role = message.required_choice("role", *_OF_ROLE)
        if not turns or turns[-1].role != role:
            turns.append(_Turn(role))
        turns[-1].read(message)
    if not turns:
        raise body.refuse("messages", "given: an array of at least one message")
    messages = (*_read_system(body), *(message for turn in turns for message in turn.messages()))
    if sum(len(message.images) for message in messages) > MAX_IMAGES:
        raise InvalidRequest(f"'messages' holds more than {MAX_IMAGES} images.", param="messages")
    return messages


def _read_system(body: Fields) -> tuple[Message, ...]:
    text = "\n".join(_text_of(block) for block in _blocks(body, "system", _OF_ROLE["system"]))
    return (Message("system", text),) if text else ()


# ── turns ────────────────────────────────────────────────────────────────────────────────


@define
class _Turn:
    """What one side says before the other does, collected block by block."""

    role: str
    texts: list[str] = field(factory=list)
    images: list[Image] = field(factory=list)
    thoughts: list[str] = field(factory=list)
    calls: list[ToolCall] = field(factory=list)
    results: list[Message] = field(factory=list)

    def read(self, message: Fields) -> None:
        if not message.has("content"):
            raise message.refuse("content", "given: a string or an array of blocks")
        for block in _blocks(message, "content", _OF_ROLE[self.role]):
            self._read_block(block)

    def _read_block(self, block: Fields) -> None:
        match block.raw("type"):
            case "text":
                self.texts.append(_text_of(block))
            case "image":
                self.images.append(_read_image(block))
            case "thinking":
                self.thoughts.append(block.text("thinking"))
            case "tool_use":
                self.calls.append(_read_call(block))
            case "tool_result":
                self.results.append(_read_result(block))

    def messages(self) -> Iterator[Message]:
        yield from self.results
        if self.texts or self.images or not self.results:
            yield Message(
                role=self.role,
                content="\n".join(self.texts),
                images=tuple(self.images),
                thinking="\n".join(self.thoughts),
                tool_calls=tuple(self.calls),
            )


# ── blocks ───────────────────────────────────────────────────────────────────────────────


def _blocks(parent: Fields, name: str, allowed: tuple[str, ...]) -> list[Fields]:
    """The blocks of a field that may be a string as well: then it is one block of text."""
    value: Any = parent.raw(name)
    if isinstance(value, str):
        return [Fields({"type": "text", "text": value}, parent.path(name))]
    if value is not None and not isinstance(value, list):
        raise parent.refuse(name, "a string or an array of blocks")
    blocks = parent.objects(name, MAX_BLOCKS)
    for block in blocks:
        kind = block.required_string("type")
        if kind not in allowed:
            param = block.path("type")
            raise UnsupportedField(
                f"'{param}': a block of type '{kind[:40]}' is not taken here, only {', '.join(allowed)}.",
                param=param,
            )
        block.refuse_unknown(_BLOCKS[kind])
    return blocks


def _text_of(block: Fields) -> str:
    text = block.string("text")
    if text is None:
        raise block.refuse("text", "given: a string")
    return text


def _read_image(block: Fields) -> Image:
    """By value alone: nothing is ever fetched for a caller, and no files are kept."""
    source = block.required_object("source")
    kind = source.required_string("type")
    if kind != "base64":
        param = source.path("type")
        raise UnsupportedField(
            f"'{param}' must be base64, with the image itself in 'data': this gateway fetches no images.",
            param=param,
        )
    source.refuse_unknown(_SOURCE_FIELDS)
    media_type = source.required_choice("media_type", *_MEDIA_TYPES)
    return evolve(read_image(source.raw("data"), source.path("data")), media_type=media_type)


def _read_call(block: Fields) -> ToolCall:
    block.required_object("input")
    return ToolCall(
        id=block.required_string("id"), name=block.required_string("name"), arguments=block.raw("input")
    )


def _read_result(block: Fields) -> Message:
    blocks = _blocks(block, "content", _OF_RESULT)
    text = "\n".join(_text_of(one) for one in blocks if one.raw("type") == "text")
    images = tuple(_read_image(one) for one in blocks if one.raw("type") == "image")
    if block.boolean("is_error"):
        text = _FAILED + text
    return Message("tool", text, images, tool_call_id=block.required_string("tool_use_id"))
