"""POST /v1/messages and /v1/messages/count_tokens, from callers of Anthropic's Messages API.

Every field is read, ignored as harmless, or refused by name, as Anthropic refuses what it does not know: in
the body, in a message, in a block and in a tool.
"""

from typing import Final

from attrs import evolve

from gateway.formats.anthropic.messages import MESSAGE_FIELDS, read_messages
from gateway.formats.anthropic.parameters import (
    OUTPUT_FIELDS,
    SAMPLING_FIELDS,
    THINK_FIELDS,
    read_format,
    read_sampling,
    read_thinking,
)
from gateway.formats.anthropic.tools import TOOL_FIELDS, read_tools
from gateway.formats.chat import ChatCall
from gateway.formats.durations import read_keep_alive
from gateway.formats.fields import Fields
from gateway.model import JsonObject

READ: Final = (
    MESSAGE_FIELDS
    | SAMPLING_FIELDS
    | OUTPUT_FIELDS
    | THINK_FIELDS
    | TOOL_FIELDS
    # The last two are beyond Anthropic, as on /v1/chat/completions.
    | frozenset({"model", "stream", "keep_alive", "truncate"})
)

# Accepted and ignored: who asks and how fast, and caches, which change no answer.
HARMLESS: Final = frozenset({"cache_control", "diagnostics", "metadata", "service_tier", "speed"})

# Accepted, not done, and named as dropped: what a server may forget of a long conversation. Here one that
# has become too long is told.
NOT_DONE: Final = frozenset({"context_management"})

KNOWN: Final = READ | HARMLESS | NOT_DONE


def read_chat(body: JsonObject) -> ChatCall:
    """A chat from the body of POST /v1/messages.

    Raises InvalidRequest for what is malformed or out of range, UnsupportedField for what is not known or
    can't be honoured.
    """
    fields = Fields(body)
    if not fields.has("max_tokens"):
        raise fields.refuse("max_tokens", "given: an integer of at least 1")
    return _read(fields)


def read_counted(body: JsonObject) -> ChatCall:
    """A chat to be counted, from the body of POST /v1/messages/count_tokens: the same, without max_tokens."""
    return evolve(_read(Fields(body)), stream=False)


def _read(fields: Fields) -> ChatCall:
    fields.refuse_unknown(KNOWN)
    tools, tool_choice, parallel = read_tools(fields)
    thinking = read_thinking(fields)
    messages = read_messages(fields)
    last = messages[-1]
    return ChatCall(
        model=fields.required_string("model"),
        messages=messages,
        stream=fields.boolean("stream") or False,
        sampling=read_sampling(fields),
        tools=tools,
        tool_choice=tool_choice,
        parallel_tool_calls=parallel,
        format=read_format(fields),
        think=thinking.think,
        think_if_able=thinking.think_if_able,
        omit_thinking=thinking.omit_thinking,
        continues=last.role == "assistant" and last.content != "" and not last.tool_calls,
        keep_alive=read_keep_alive(fields),
        truncate=fields.boolean("truncate") or False,
        dropped=(*thinking.dropped, *(name for name in sorted(NOT_DONE) if fields.has(name))),
    )
