"""`instructions` and `input`: the items of a conversation, in the house's words."""

from collections.abc import Iterator
from typing import Final

from attrs import define, field

from gateway.errors import InvalidRequest, UnsupportedField
from gateway.formats.chat import Image, Message, ToolCall
from gateway.formats.fields import Fields
from gateway.formats.images import MAX_IMAGES
from gateway.formats.openai.images import image_of
from gateway.formats.openai.messages import MAX_MESSAGES, MAX_PARTS
from gateway.formats.openai.tools import arguments_of

_ROLES: Final = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
# What may stand in an item of each type. Ids and states are the server's own, sent back.
_ITEMS: Final = {
    "message": frozenset({"type", "role", "content", "id", "status", "phase"}),
    "function_call": frozenset(
        {"type", "call_id", "name", "arguments", "id", "status", "caller", "namespace"}
    ),
    "function_call_output": frozenset({"type", "call_id", "output", "id", "status", "caller"}),
    "reasoning": frozenset({"type", "summary", "content", "encrypted_content", "id", "status"}),
}


def read_messages(body: Fields) -> tuple[Message, ...]:
    """`instructions`, if there are any, and `input`: a text, or items, at least one.

    Items of the assistant that follow each other are one turn: what it thought, said and called.
    """
    if isinstance(body.raw("input"), str):
        messages = [Message("user", body.required_string("input"))]
    else:
        messages = _read_items(body)
    if instructions := body.text("instructions"):
        messages.insert(0, Message("system", instructions))
    if sum(len(message.images) for message in messages) > MAX_IMAGES:
        raise InvalidRequest(f"'input' holds more than {MAX_IMAGES} images.", param="input")
    return tuple(messages)


def _read_items(body: Fields) -> list[Message]:
    messages: list[Message] = []
    turn = _Turn()
    for item in body.objects("input", MAX_MESSAGES):
        said = _read_item(item, turn)
        if said is not None:
            messages += (*turn.message(), said)
            turn = _Turn()
    messages += turn.message()
    if not messages:
        raise body.refuse("input", "given: a text, or an array of at least one item")
    return messages


@define
class _Turn:
    """What the assistant says before anybody else does."""

    texts: list[str] = field(factory=list)
    thoughts: list[str] = field(factory=list)
    calls: list[ToolCall] = field(factory=list)

    def message(self) -> Iterator[Message]:
        if self.texts or self.thoughts or self.calls:
            yield Message(
                "assistant",
                "\n".join(self.texts),
                thinking="\n".join(self.thoughts),
                tool_calls=tuple(self.calls),
            )


def _read_item(item: Fields, turn: _Turn) -> Message | None:
    """A message of somebody else; what is the assistant's goes into its turn."""
    # Without a type it is a message in short.
    kind = item.string("type") or "message"
    if kind not in _ITEMS:
        raise _unsupported(item, kind)
    item.refuse_look_alikes(_ITEMS[kind])
    match kind:
        case "function_call":
            turn.calls.append(_read_call(item))
        case "reasoning":
            turn.thoughts += _read_thoughts(item)
        case "function_call_output":
            content, images = _read_content(item, "output")
            return Message("tool", content, images, tool_call_id=item.required_string("call_id"))
        case _:
            return _read_message(item, turn)
    return None


def _read_message(item: Fields, turn: _Turn) -> Message | None:
    role = _ROLES[item.required_choice("role", *_ROLES)]
    content, images = _read_content(item, "content")
    if role == "assistant":
        turn.texts.append(content)
        return None
    return Message(role, content, images)


def _read_call(item: Fields) -> ToolCall:
    return ToolCall(
        id=item.required_string("call_id"),
        name=item.required_string("name"),
        arguments=arguments_of(item.text("arguments")),
    )


def _read_thoughts(item: Fields) -> list[str]:
    """The whole thinking where it was told, as in this gateway's `encrypted_content`; else its summary."""
    if encrypted := item.text("encrypted_content"):
        return [encrypted]
    parts = item.objects("content", MAX_PARTS) or item.objects("summary", MAX_PARTS)
    return [text for part in parts if (text := part.text("text"))]


# ── contents ─────────────────────────────────────────────────────────────────────────────

_TEXTS: Final = {"input_text": "text", "output_text": "text", "text": "text", "refusal": "refusal"}


def _read_content(item: Fields, name: str) -> tuple[str, tuple[Image, ...]]:
    """A text, or parts: texts are joined by newlines, images collected."""
    if isinstance(item.raw(name), str):
        return item.text(name), ()
    if not item.has(name):
        raise item.refuse(name, "given: a string or an array of parts")
    texts: list[str] = []
    images: list[Image] = []
    for part in item.objects(name, MAX_PARTS):
        kind = part.required_string("type")
        if kind in _TEXTS:
            texts.append(_text_of(part, _TEXTS[kind]))
        elif kind == "input_image" and not part.has("file_id"):
            images.append(image_of(part.required_string("image_url"), part.path("image_url")))
        else:
            raise _unsupported(part, kind)
    return "\n".join(texts), tuple(images)


def _text_of(part: Fields, name: str) -> str:
    text = part.string(name)
    if text is None:
        raise part.refuse(name, "given: a string")
    return text


def _unsupported(item: Fields, kind: str) -> UnsupportedField:
    param = item.path("type")
    if kind in ("item_reference", "input_file", "input_image"):
        why = "this gateway keeps no items and files: send the content itself"
    else:
        why = f"it is not taken here, only {', '.join(_ITEMS)}, and texts and images in them"
    return UnsupportedField(f"'{param}' is '{kind[:40]}', but {why}.", param=param)
