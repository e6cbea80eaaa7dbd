"""POST /api/chat and /api/generate, both ways: from Ollama's clients, and to Ollama.

Read by exact name; look-alikes are refused, since Ollama reads names without regard to case. What is
not read here (`_debug_render_only`, which shows the operator's system prompt, among others) goes nowhere.
"""

from collections.abc import Sequence
from typing import Any, Final

from gateway.errors import InvalidRequest, UnsupportedField
from gateway.formats.chat import (
    ChatCall,
    Format,
    GenerateCall,
    Message,
    Tool,
    ToolChoice,
    UpstreamRequest,
    with_tool_ids,
)
from gateway.formats.durations import read_keep_alive
from gateway.formats.fields import Fields
from gateway.formats.images import read_images
from gateway.formats.ollama.messages import read_messages, write_message
from gateway.formats.ollama.options import read_options, write_options
from gateway.formats.ollama.schemas import folded
from gateway.formats.plain_messages import Texts
from gateway.formats.thinking import read_think
from gateway.model import JsonObject

CHAT_PATH: Final = "/api/chat"
GENERATE_PATH: Final = "/api/generate"

MAX_TOOLS: Final = 512
# Ollama's own bound.
MAX_TOP_LOGPROBS: Final = 20

# Ollama leaves out the eldest messages, or cuts a prompt's middle, and says nothing: only when it was asked
# not to (from 0.12.4) does it say that a prompt is too long. So it is asked for that first, always.
CUT: Final[JsonObject] = {"truncate": True}

_COMMON: Final = frozenset(
    {"model", "stream", "format", "keep_alive", "options", "think", "truncate", "shift"}
    | {"logprobs", "top_logprobs", "_debug_render_only"}
)
_CHAT: Final = _COMMON | {"messages", "tools"}
# What most chats have, and no more.
_USUAL: Final = frozenset({"model", "messages", "stream", "options"})
_GENERATE: Final = _COMMON | {"prompt", "suffix", "system", "template", "context", "raw", "images"}
_TOOL: Final = frozenset({"type", "function"})
_FUNCTION: Final = frozenset({"name", "description", "parameters"})


# ── from Ollama's clients ────────────────────────────────────────────────────────────────


def read_chat(body: JsonObject) -> ChatCall:
    """Read the body of POST /api/chat. Raise InvalidRequest naming the field that is wrong.

    No messages is a command to load or unload the model: read like any other, answered elsewhere.
    """
    fields = Fields(body)
    has_others = fields.has_others(_USUAL)
    if has_others:
        fields.refuse_look_alikes(_CHAT)
    messages = read_messages(fields)
    if not has_others:
        return ChatCall(messages=messages, **_read_usual(fields))
    tools = tuple(_read_tool(tool) for tool in fields.objects("tools", MAX_TOOLS))
    return ChatCall(messages=messages, tools=tools, **_read_common(fields))


def read_generate(body: JsonObject) -> GenerateCall:
    """Read the body of POST /api/generate. Raise InvalidRequest naming the field that is wrong.

    An empty prompt is a command to load or unload the model: read like any other, answered elsewhere.
    Clients send "" for a system, template or suffix that they don't have. Raise UnsupportedField for a
    template: a few letters of Go's template language write gigabytes, in the memory of the model's server.
    """
    fields = Fields(body)
    fields.refuse_look_alikes(_GENERATE)
    if fields.text("template"):
        raise UnsupportedField(
            "'template' can't be honoured here: write the whole prompt yourself and send it with 'raw'.",
            param="template",
        )
    call = GenerateCall(
        prompt=fields.text("prompt"),
        system=fields.text("system") or None,
        raw=fields.boolean("raw") or False,
        suffix=fields.text("suffix"),
        images=read_images(fields.array("images"), fields.path("images")),
        context=_read_context(fields),
        **_read_common(fields),
    )
    if call.raw and (call.system or call.context):
        raise InvalidRequest("'raw' mode does not support system or context.", param="raw")
    return call


def _read_common(fields: Fields) -> dict[str, Any]:
    """What both calls have, by the names of their attributes."""
    usual = _read_usual(fields)
    # Another value than the last caller's makes Ollama reload the model: a load-time option in disguise.
    is_shifted = fields.boolean("shift") is not None
    return usual | {
        "format": _read_format(fields),
        "think": read_think(fields),
        "top_logprobs": _read_top_logprobs(fields),
        "keep_alive": read_keep_alive(fields),
        "truncate": fields.boolean("truncate") is not False,
        "dropped": (*usual["dropped"], "shift") if is_shifted else usual["dropped"],
    }


def _read_usual(fields: Fields) -> dict[str, Any]:
    """What nearly all calls have."""
    sampling, dropped = read_options(fields)
    stream = fields.boolean("stream")
    return {
        "model": fields.required_string("model"),
        "stream": True if stream is None else stream,
        "sampling": sampling,
        "truncate": True,
        "dropped": dropped,
    }


def _read_format(fields: Fields) -> Format | None:
    value = fields.raw("format")
    if value is None or value == "":
        return None
    if value == "json":
        return Format()
    if isinstance(value, dict):
        return Format(schema=value)
    raise fields.refuse("format", '"json" or a JSON Schema as an object')


def _read_top_logprobs(fields: Fields) -> int | None:
    """None unless `logprobs` asks for them: `top_logprobs` alone changes nothing."""
    count = fields.integer("top_logprobs", 0, MAX_TOP_LOGPROBS)
    return (count or 0) if fields.boolean("logprobs") else None


def _read_context(fields: Fields) -> tuple[int, ...]:
    values = fields.array("context")
    if not all(type(value) is int for value in values):
        raise fields.refuse("context", "an array of integers, as a former answer gave it")
    return tuple(values)


def _read_tool(fields: Fields) -> Tool:
    fields.refuse_look_alikes(_TOOL)
    fields.choice("type", "function")
    function = fields.object("function")
    if function is None:
        raise fields.refuse("function", "given: an object with a name")
    function.refuse_look_alikes(_FUNCTION)
    function.object("parameters")
    return Tool(
        name=function.required_string("name"),
        description=function.text("description"),
        parameters=function.raw("parameters") or {},
    )


# ── to Ollama ────────────────────────────────────────────────────────────────────────────


def write_chat(call: ChatCall, model: str) -> UpstreamRequest:
    """The chat for a backend that knows the model as `model`. Raise UnsupportedField for what it can't keep.

    No bound of the output is added where the caller gave none: that is the budget's business.
    """
    body = {"model": model, "messages": _write_messages(call.messages), **_write_common(call)}
    if tools := _chosen(call.tools, call.tool_choice):
        body["tools"] = [_write_tool(tool) for tool in tools]
    return UpstreamRequest(CHAT_PATH, body)


def _write_messages(messages: Sequence[Message]) -> list[JsonObject]:
    if type(messages) is Texts:
        return messages.written
    if any(message.role == "tool" and not message.tool_name for message in messages):
        # OpenAI's clients name the answered call only; Ollama's templates want the function's name.
        messages = with_tool_ids(messages)
    return [write_message(message) for message in messages]


def write_generate(call: GenerateCall, model: str) -> UpstreamRequest:
    """The completion for a backend that knows the model as `model`. Raise UnsupportedField likewise."""
    if call.tokens:
        raise UnsupportedField(
            "'prompt' must be text for this model: its server takes no tokens.", param="prompt"
        )
    body = {"model": model, "prompt": call.prompt, **_write_common(call)}
    optional = {
        "suffix": call.suffix,
        "system": call.system,
        "raw": call.raw,
        "images": [image.base64 for image in call.images],
        "context": list(call.context),
    }
    return UpstreamRequest(GENERATE_PATH, body | {name: value for name, value in optional.items() if value})


def _write_common(call: ChatCall | GenerateCall) -> JsonObject:
    if call.sampling.logit_bias:
        raise UnsupportedField(
            "'logit_bias' can't be honoured for this model; leave it out.", param="logit_bias"
        )
    # Always said: Ollama streams, and cuts what is too long, unless told otherwise.
    written: JsonObject = {"stream": call.stream, "truncate": False}
    if call.format is not None:
        written["format"] = _write_format(call.format)
    if options := write_options(call.sampling):
        written["options"] = options
    if call.think is not None:
        written["think"] = call.think
    if call.top_logprobs is not None:
        written["logprobs"] = True
    if call.top_logprobs:
        written["top_logprobs"] = call.top_logprobs
    if call.keep_alive is not None:
        written["keep_alive"] = call.keep_alive
    return written


def _write_format(format: Format) -> JsonObject | str:
    return "json" if format.schema is None else format.schema


def _write_tool(tool: Tool) -> JsonObject:
    function = {"name": tool.name, "description": tool.description, "parameters": folded(tool.parameters)}
    return {"type": "function", "function": function}


def _chosen(tools: tuple[Tool, ...], choice: ToolChoice | None) -> tuple[Tool, ...]:
    """The tools to offer. Ollama has no tool choice: what can't be said by offering fewer is refused."""
    if choice is None or choice.mode == "auto":
        return tools
    if choice.mode == "none":
        return ()
    wanted = tuple(tool for tool in tools if tool.name == choice.name) if choice.name else tools
    if not wanted:
        raise InvalidRequest("'tool_choice' names a function that is not in 'tools'.", param="tool_choice")
    if len(wanted) > 1:
        raise UnsupportedField(
            "'tool_choice' can't demand a call of any of several tools here: name the one to call.",
            param="tool_choice",
        )
    return wanted
