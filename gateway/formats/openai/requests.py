"""Requests: from callers of /v1/chat/completions, and to OpenAI-compatible backends (vLLM, llama.cpp).

Only named fields are read, and only known ones are written: these servers take many more from whoever
asks (`chat_template`, `lora`, `id_slot`, `kv_transfer_params`, …), and no tenant is to reach those.
"""

from typing import Any, Final

from gateway.errors import UnsupportedField
from gateway.formats.chat import ChatCall, GenerateCall, UpstreamRequest
from gateway.formats.durations import read_keep_alive
from gateway.formats.fields import Fields
from gateway.formats.openai.messages import read_messages, write_messages
from gateway.formats.openai.other_fields import HARMLESS, dropped, refuse_unsupported
from gateway.formats.openai.parameters import (
    SAMPLING_FIELDS,
    THINK_FIELDS,
    is_wish,
    read_format,
    read_sampling,
    read_thinking,
    read_top_logprobs,
    write_format,
    write_sampling,
    write_think,
)
from gateway.formats.openai.tools import read_tools, write_tools
from gateway.model import JsonObject

CHAT_PATH: Final = "/v1/chat/completions"
COMPLETION_PATH: Final = "/v1/completions"

# Usage is always asked for: it is what a request is charged by, whether or not the caller wants it.
STREAMED: Final[JsonObject] = {"stream": True, "stream_options": {"include_usage": True}}

# OpenAI's bound on `n`. Each answer is a request of its own to a backend.
MAX_ANSWERS: Final = 128

# ── the fields of /v1/chat/completions ───────────────────────────────────────────────────

READ: Final = (
    SAMPLING_FIELDS
    | THINK_FIELDS
    | frozenset({"model", "messages", "stream", "stream_options", "response_format", "n"})
    | frozenset({"tools", "tool_choice", "functions", "function_call", "parallel_tool_calls"})
    | frozenset({"logprobs", "top_logprobs", "keep_alive", "truncate"})
)

# They would change the answer, or promise what isn't kept. Beside each, the values that ask for nothing.
UNSUPPORTED: Final[dict[str, tuple[Any, ...]]] = {
    # OpenAI's
    "audio": (),
    "modalities": (["text"], []),
    "moderation": (),
    "store": (False,),
    "web_search_options": (),
    # vLLM's
    "add_generation_prompt": (True,),
    "allowed_token_ids": ([],),
    "bad_words": ([],),
    "best_of": (1,),
    "chat_template": (),
    "continue_final_message": (False,),
    "echo": (False,),
    "guided_choice": (),
    "guided_grammar": (),
    "guided_json": (),
    "guided_regex": (),
    "ignore_eos": (False,),
    "length_penalty": (1,),
    "min_tokens": (0,),
    "prompt_embeds": (),
    "stop_token_ids": ([],),
    "structured_outputs": (),
    "use_beam_search": (False,),
    # llama.cpp's
    "grammar": ("",),
    "json_schema": (),
    "lora": ([],),
    "mirostat": (0,),
    # Ollama's, which has another name or place here
    "format": ("",),
    "images": ([],),
    "num_predict": (),
    "options": ({},),
    "system": ("",),
    "template": ("",),
}
KNOWN: Final = READ | HARMLESS | frozenset(UNSUPPORTED)
# What most chats have, and no more.
_USUAL: Final = SAMPLING_FIELDS | frozenset({"model", "messages", "stream", "stream_options"})

# ── from callers ─────────────────────────────────────────────────────────────────────────


def read_chat(body: JsonObject) -> ChatCall:
    """A chat from the body of POST /v1/chat/completions.

    Raises InvalidRequest for what is malformed or out of range, UnsupportedField for what would
    change the answer and can't be honoured. Unknown fields are named in `dropped`. Beyond OpenAI's
    fields num_ctx, keep_alive, truncate, think and the sampling of local servers are read.
    """
    fields = Fields(body)
    has_others = fields.has_others(_USUAL)
    if has_others:
        fields.refuse_look_alikes(KNOWN)
        refuse_unsupported(fields, UNSUPPORTED)
    stream = fields.boolean("stream") or False
    return ChatCall(
        model=fields.required_string("model"),
        messages=read_messages(fields),
        stream=stream,
        sampling=read_sampling(fields),
        include_usage=fields.has("stream_options") and read_include_usage(fields, stream),
        **(_read_others(fields) if has_others else {}),
    )


def _read_others(fields: Fields) -> dict[str, Any]:
    """What few chats have, by the names of the call's attributes."""
    tools, tool_choice = read_tools(fields)
    return {
        "tools": tools,
        "tool_choice": tool_choice,
        # The elder shape of a call has room for one.
        "parallel_tool_calls": (False if fields.has("functions") else fields.boolean("parallel_tool_calls")),
        "as_functions": fields.has("functions"),
        "format": read_format(fields),
        "think": read_thinking(fields),
        "think_if_able": is_wish(fields),
        "top_logprobs": read_top_logprobs(fields),
        "keep_alive": read_keep_alive(fields),
        "truncate": fields.boolean("truncate") or False,
        "n": fields.integer("n", 1, MAX_ANSWERS) or 1,
        "dropped": dropped(fields, KNOWN),
    }


def read_include_usage(fields: Fields, stream: bool) -> bool:
    options = fields.object("stream_options")
    if options is None:
        return False
    if not stream:
        raise fields.refuse("stream_options", "left out unless 'stream' is true")
    return options.boolean("include_usage") or False


# ── to backends ──────────────────────────────────────────────────────────────────────────


def write_chat(call: ChatCall, model: str) -> UpstreamRequest:
    """The same chat for an OpenAI-compatible backend, which knows the model as `model`.

    Left out, for these servers have no such thing: keep_alive, num_ctx, and truncate: a prompt that does
    not fit is told, not cut.
    """
    body: JsonObject = {"model": model, "messages": write_messages(call.messages)}
    body |= _write_stream(call.stream)
    body |= write_sampling(call.sampling)
    body |= write_tools(call)
    body |= write_format(call.format)
    body |= write_think(call.think)
    if call.continues:
        # llama.cpp does so unasked, vLLM only when told.
        body |= {"add_generation_prompt": False, "continue_final_message": True}
    if call.top_logprobs is not None:
        body |= {"logprobs": True, "top_logprobs": _at_least_one(call.top_logprobs)}
    return UpstreamRequest(CHAT_PATH, body)


def is_completion(call: GenerateCall) -> bool:
    """True where a call needs `write_completion` and a `CompletionReader`; else it is `as_chat`."""
    return call.raw is not False


def write_completion(call: GenerateCall, model: str) -> UpstreamRequest:
    """A completion without the model's template, as these servers do it; all others are chats (`as_chat`).

    The format is sent by both names: vLLM reads `response_format` as in a chat, llama.cpp `json_schema`.
    """
    if call.images:
        raise UnsupportedField("'images' need the model's template: leave out 'raw'.", param="images")
    if call.suffix:
        # vLLM refuses it, and llama.cpp ignores it without a word.
        raise UnsupportedField("'suffix' can't be honoured for this model; leave it out.", param="suffix")
    body: JsonObject = {"model": model, "prompt": list(call.tokens) or call.prompt}
    body |= _write_stream(call.stream)
    body |= write_sampling(call.sampling)
    body |= write_format(call.format)
    if call.format is not None:
        body["json_schema"] = call.format.schema or {"type": "object"}
    if call.top_logprobs is not None:
        body["logprobs"] = _at_least_one(call.top_logprobs)
    return UpstreamRequest(COMPLETION_PATH, body)


def _at_least_one(top_logprobs: int) -> int:
    """llama.cpp gives no log probabilities at all where no alternatives are asked for."""
    return max(1, top_logprobs)


def _write_stream(stream: bool) -> JsonObject:
    return STREAMED if stream else {"stream": False}
