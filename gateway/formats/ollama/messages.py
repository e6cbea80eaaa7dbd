"""Messages and tool calls on Ollama's wire, both ways."""

from collections.abc import Sequence
from typing import Any, Final

from gateway.errors import BackendFailed
from gateway.formats.chat import Message, ToolCall
from gateway.formats.fields import Fields
from gateway.formats.images import read_images
from gateway.formats.plain_messages import messages_in
from gateway.formats.strict_json import is_too_deep
from gateway.model import JsonObject

MAX_MESSAGES: Final = 10_000
MAX_TOOL_CALLS: Final = 256
ROLES: Final = ("system", "user", "assistant", "tool")
_ROLES: Final = {role: role for role in ROLES}

_MESSAGE: Final = frozenset(
    {"role", "content", "thinking", "images", "tool_calls", "tool_name", "tool_call_id"}
)
_CALL: Final = frozenset({"id", "type", "function"})
_FUNCTION: Final = frozenset({"index", "name", "arguments"})


# ── from Ollama's clients ────────────────────────────────────────────────────────────────


def read_messages(body: Fields) -> Sequence[Message]:
    """The field `messages`. Raise InvalidRequest naming the field that is wrong."""
    return messages_in(body, MAX_MESSAGES, _ROLES, _read_message)


def _read_message(fields: Fields) -> Message:
    fields.refuse_look_alikes(_MESSAGE)
    role = fields.required_string("role").lower()
    if role not in ROLES:
        raise fields.refuse("role", "one of " + ", ".join(ROLES))
    return Message(
        role=role,
        content=fields.text("content"),
        images=read_images(fields.array("images"), fields.path("images")),
        thinking=fields.text("thinking"),
        tool_calls=tuple(_read_call(call) for call in fields.objects("tool_calls", MAX_TOOL_CALLS)),
        tool_call_id=fields.text("tool_call_id"),
        tool_name=fields.text("tool_name"),
    )


def _read_call(fields: Fields) -> ToolCall:
    fields.refuse_look_alikes(_CALL)
    function = fields.object("function")
    if function is None:
        raise fields.refuse("function", "given: an object with a name and arguments")
    function.refuse_look_alikes(_FUNCTION)
    # An object, not its text: Ollama takes no strings here, and OpenAI nothing else.
    function.object("arguments")
    return ToolCall(
        id=fields.text("id"),
        name=function.required_string("name"),
        arguments=function.raw("arguments") or {},
    )


# ── to Ollama, and to its clients ────────────────────────────────────────────────────────


def write_message(message: Message) -> JsonObject:
    written: JsonObject = {"role": message.role, "content": message.content}
    if message.thinking:
        written["thinking"] = message.thinking
    if message.images:
        written["images"] = [image.base64 for image in message.images]
    if message.tool_calls:
        written["tool_calls"] = write_calls(message.tool_calls)
    if message.tool_name:
        written["tool_name"] = message.tool_name
    if message.tool_call_id:
        written["tool_call_id"] = message.tool_call_id
    return written


def write_calls(calls: tuple[ToolCall, ...], first_index: int = 0) -> list[JsonObject]:
    """Calls as Ollama writes them: numbered through the whole answer, without an id where there is none."""
    return [
        ({"id": call.id} if call.id else {})
        | {"function": {"index": index, "name": call.name, "arguments": call.arguments}}
        for index, call in enumerate(calls, first_index)
    ]


# ── from Ollama ──────────────────────────────────────────────────────────────────────────


def received_calls(value: Any) -> tuple[ToolCall, ...]:
    """The tool calls of an answer; older servers send no ids. Raise BackendFailed for what is no call."""
    if not value:
        return ()
    if isinstance(value, list) and len(value) > MAX_TOOL_CALLS:
        raise BackendFailed("The model's server sent tool calls without end.")
    try:
        return tuple(_received_call(call) for call in value)
    except (TypeError, KeyError):
        raise BackendFailed("The model's server sent a tool call that can't be read.") from None


def _received_call(call: Any) -> ToolCall:
    function = call["function"]
    name, arguments, call_id = function["name"], function.get("arguments") or {}, call.get("id") or ""
    if not (isinstance(name, str) and isinstance(arguments, dict) and isinstance(call_id, str)):
        raise TypeError
    if is_too_deep(arguments):
        raise TypeError
    return ToolCall(call_id, name, arguments)
