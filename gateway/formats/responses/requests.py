"""POST /v1/responses, from callers of OpenAI's Responses API.

What needs a conversation that the server keeps is refused by name: here each request brings all of it.
"""

from typing import Any, Final

from attrs import evolve, field, frozen

from gateway.errors import UnsupportedField
from gateway.formats.chat import ChatCall, Sampling, Tool, ToolChoice
from gateway.formats.durations import read_keep_alive
from gateway.formats.fields import Fields
from gateway.formats.openai.other_fields import HARMLESS, dropped, refuse_unsupported
from gateway.formats.openai.parameters import (
    MAX_TOP_LOGPROBS,
    SAMPLING_FIELDS,
    THINK_FIELDS,
    format_of,
    is_wish,
    read_sampling,
    read_thinking,
)
from gateway.formats.openai.tools import MAX_TOOLS, read_choice, read_function
from gateway.formats.responses.items import read_messages
from gateway.model import JsonObject

LOGPROBS: Final = "message.output_text.logprobs"
ENCRYPTED_REASONING: Final = "reasoning.encrypted_content"

# By their names in a chat; the limit has another one here.
_LIMITS: Final = frozenset({"max_tokens", "max_completion_tokens"})
READ: Final = (
    (SAMPLING_FIELDS - _LIMITS)
    | THINK_FIELDS
    | frozenset({"model", "input", "instructions", "max_output_tokens", "stream", "stream_options"})
    | frozenset({"text", "include", "top_logprobs", "truncation", "keep_alive"})
    | frozenset({"tools", "tool_choice", "parallel_tool_calls"})
)
# Only tools of OpenAI's own are counted by it.
IGNORED: Final = HARMLESS | {"max_tool_calls"}
# Each with the values that ask for nothing.
STATEFUL: Final[dict[str, tuple[Any, ...]]] = {
    "background": (False,),
    "background_options": ({},),
    "conversation": (),
    "previous_response_id": (),
    "prompt": (),
    "store": (False,),
}
UNSUPPORTED: Final[dict[str, tuple[Any, ...]]] = {
    "functions": ([],),
    "max_completion_tokens": (),
    "max_tokens": (),
    "messages": (),
    "moderation": (),
    "n": (1,),
    "response_format": (),
}
_INSTEAD: Final = {
    "functions": "use 'tools' instead",
    "max_completion_tokens": "use 'max_output_tokens' instead",
    "max_tokens": "use 'max_output_tokens' instead",
    "messages": "use 'input' instead",
    "response_format": "use 'text.format' instead",
}
KNOWN: Final = READ | IGNORED | STATEFUL.keys() | UNSUPPORTED.keys()

# What a response says of its request again. The others are told as they were understood.
_ECHOED: Final = (
    "instructions",
    "max_output_tokens",
    "max_tool_calls",
    "prompt_cache_key",
    "safety_identifier",
    "temperature",
    "top_p",
    "user",
)


@frozen(slots=False)
class ResponseCall(ChatCall):
    """A chat that is answered by a response. `echo` is what the response says of its request again."""

    echo: JsonObject = field(factory=dict)
    wants_encrypted_reasoning: bool = False


def read_response(body: JsonObject) -> ResponseCall:
    """A chat from the body of POST /v1/responses.

    Raises InvalidRequest for what is malformed or out of range, UnsupportedField for what would change the
    answer and can't be honoured. Unknown fields are named in `dropped`.
    """
    fields = Fields(body)
    fields.refuse_look_alikes(KNOWN)
    _refuse_state(fields)
    refuse_unsupported(fields, UNSUPPORTED, _INSTEAD)
    tools, tool_choice = _read_tools(fields)
    include = fields.strings("include")
    text = fields.object("text")
    _read_stream_options(fields)
    return ResponseCall(
        model=fields.required_string("model"),
        messages=read_messages(fields),
        stream=fields.boolean("stream") or False,
        sampling=_read_sampling(fields),
        tools=tools,
        tool_choice=tool_choice,
        parallel_tool_calls=fields.boolean("parallel_tool_calls"),
        format=format_of(text.object("format")) if text else None,
        # How reasoning is to be summed up changes nothing: all of it is told.
        think=read_thinking(fields),
        think_if_able=is_wish(fields),
        top_logprobs=_read_top_logprobs(fields, include),
        keep_alive=read_keep_alive(fields),
        truncate=_read_truncation(fields),
        dropped=dropped(fields, KNOWN),
        echo=_echo(fields),
        wants_encrypted_reasoning=ENCRYPTED_REASONING in include,
    )


def _refuse_state(fields: Fields) -> None:
    for name, harmless in STATEFUL.items():
        if fields.has(name) and fields.raw(name) not in harmless:
            raise UnsupportedField(
                f"'{name}' needs a conversation that is kept, and this gateway keeps none: leave it out, and "
                "send all of the conversation as 'input'.",
                param=name,
            )


def _read_sampling(fields: Fields) -> Sampling:
    return evolve(read_sampling(fields), max_tokens=fields.integer("max_output_tokens", lowest=1))


def _read_top_logprobs(fields: Fields, include: tuple[str, ...]) -> int | None:
    top_logprobs = fields.integer("top_logprobs", 0, MAX_TOP_LOGPROBS)
    return top_logprobs or 0 if top_logprobs or LOGPROBS in include else None


def _read_truncation(fields: Fields) -> bool:
    return fields.choice("truncation", "auto", "disabled") == "auto"


def _read_stream_options(fields: Fields) -> None:
    """Nothing in them changes an answer: obfuscation is padding."""
    if fields.object("stream_options") is not None and not fields.boolean("stream"):
        raise fields.refuse("stream_options", "left out unless 'stream' is true")


# ── tools ────────────────────────────────────────────────────────────────────────────────

_TOOL_FIELDS: Final = frozenset({"type", "name", "description", "parameters", "strict"})


def _read_tools(fields: Fields) -> tuple[tuple[Tool, ...], ToolChoice | None]:
    """Functions alone, which stand flat here."""
    tools = tuple(_read_tool(tool) for tool in fields.objects("tools", MAX_TOOLS))
    return read_choice(fields, "tool_choice", tools)


def _read_tool(tool: Fields) -> Tool:
    tool.refuse_look_alikes(_TOOL_FIELDS)
    kind = tool.required_string("type")
    if kind != "function":
        param = tool.path("type")
        raise UnsupportedField(
            f"'{param}': '{kind[:40]}' is a tool of OpenAI's own, and this gateway runs none; "
            "describe yours as functions.",
            param=param,
        )
    return read_function(tool)


# ── what is told again ───────────────────────────────────────────────────────────────────


def _echo(fields: Fields) -> JsonObject:
    echo: JsonObject = {name: fields.raw(name) for name in _ECHOED}
    text, reasoning = fields.object("text"), fields.object("reasoning")
    told_text: JsonObject = {"format": {"type": "text"}}
    if text is not None:
        told_text |= {name: text.raw(name) for name in ("format", "verbosity") if text.has(name)}
    return echo | {
        "metadata": fields.raw("metadata") or {},
        "parallel_tool_calls": fields.boolean("parallel_tool_calls") is not False,
        "reasoning": {name: reasoning.raw(name) if reasoning else None for name in ("effort", "summary")},
        "text": told_text,
        "tool_choice": fields.raw("tool_choice") or "auto",
        "tools": fields.array("tools"),
        "top_logprobs": fields.raw("top_logprobs") or 0,
        "truncation": fields.raw("truncation") or "disabled",
    }
