"""A value of each field of each route that asks for something: what `api_fields` tries out.

Beside a value, what it needs to make sense, as `Sample(value, beside={…})`.
"""

from typing import Any, Final

from attrs import field, frozen

from gateway.model import Operation


@frozen
class Sample:
    value: Any
    beside: dict[str, Any] = field(factory=dict)


PNG: Final = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYGBgAAAABQABpfZFQAAAAABJRU5ErkJggg=="
)
SCHEMA: Final = {"type": "object", "properties": {"x": {"type": "integer"}}}
NATIVE_TOOL: Final = {"type": "function", "function": {"name": "f", "parameters": SCHEMA}}
FLAT_TOOL: Final = {"type": "function", "name": "f", "parameters": SCHEMA}
CLAUDE_TOOL: Final = {"name": "f", "input_schema": SCHEMA}
TURNS: Final = [{"role": "user", "content": "Hi"}]

# The least that each route takes.
LEAST: Final[dict[Operation, dict[str, Any]]] = {
    Operation.CHAT: {"model": "m", "messages": TURNS, "stream": False},
    Operation.GENERATE: {"model": "m", "prompt": "Hi", "stream": False},
    Operation.EMBED: {"model": "m", "input": "Hi"},
    Operation.LEGACY_EMBEDDINGS: {"model": "m", "prompt": "Hi"},
    Operation.CHAT_COMPLETIONS: {"model": "m", "messages": TURNS},
    Operation.COMPLETIONS: {"model": "m", "prompt": "Hi"},
    Operation.EMBEDDINGS: {"model": "m", "input": "Hi"},
    Operation.RESPONSES: {"model": "m", "input": "Hi"},
    Operation.MESSAGES: {"model": "m", "max_tokens": 9, "messages": TURNS},
    Operation.COUNT_TOKENS: {"model": "m", "messages": TURNS},
}

_SAMPLING: Final[dict[str, Any]] = {
    "frequency_penalty": 0.5,
    "max_completion_tokens": 7,
    "max_tokens": 7,
    "min_p": 0.1,
    "num_ctx": 2048,
    "num_keep": 3,
    "presence_penalty": 0.5,
    "repeat_last_n": 9,
    "repeat_penalty": 1.1,
    "repetition_penalty": 1.1,
    "seed": 7,
    "stop": ["."],
    "temperature": 0.5,
    "top_k": 5,
    "top_p": 0.5,
    "typical_p": 0.5,
}
_THINKING: Final[dict[str, Any]] = {
    "think": True,
    "reasoning": {"effort": "low"},
    "reasoning_effort": "low",
    "chat_template_kwargs": {"enable_thinking": True},
}
_HARMLESS: Final[dict[str, Any]] = {
    "metadata": {"a": "b"},
    "prediction": {"type": "content", "content": "x"},
    "prompt_cache_key": "k",
    "prompt_cache_options": {"mode": "implicit"},
    "prompt_cache_retention": "24h",
    "safety_identifier": "s",
    "service_tier": "flex",
    "user": "u",
    "verbosity": "low",
}
_OF_OTHER_SERVERS: Final[dict[str, Any]] = {
    "add_generation_prompt": False,
    "allowed_token_ids": [1],
    "bad_words": ["x"],
    "best_of": 2,
    "chat_template": "x",
    "continue_final_message": True,
    "echo": True,
    "format": "json",
    "grammar": "x",
    "guided_choice": ["x"],
    "guided_grammar": "x",
    "guided_json": SCHEMA,
    "guided_regex": "x",
    "ignore_eos": True,
    "images": [PNG],
    "json_schema": SCHEMA,
    "length_penalty": 2,
    "lora": [1],
    "min_tokens": 5,
    "mirostat": 1,
    "num_predict": 5,
    "options": {"seed": 1},
    "prompt_embeds": "x",
    "stop_token_ids": [1],
    "structured_outputs": {"json": SCHEMA},
    "system": "x",
    "template": "x",
    "use_beam_search": True,
}
_OPTIONS: Final = {
    f"options.{name}": value
    for name, value in {
        **{name: _SAMPLING[name] for name in ("frequency_penalty", "min_p", "num_ctx", "num_keep")},
        **{name: _SAMPLING[name] for name in ("presence_penalty", "repeat_last_n", "repeat_penalty")},
        **{name: _SAMPLING[name] for name in ("seed", "stop", "temperature", "top_k", "top_p", "typical_p")},
        "num_predict": 7,
        **dict.fromkeys(("num_batch", "num_gpu", "main_gpu", "num_thread", "numa"), 1),
        **dict.fromkeys(("use_mmap", "use_mlock", "low_vram", "f16_kv", "vocab_only"), True),
        **dict.fromkeys(("logits_all", "embedding_only", "penalize_newline"), True),
        **dict.fromkeys(("tfs_z", "mirostat", "mirostat_tau", "mirostat_eta"), 1.0),
        "draft_num_predict": 1,
    }.items()
}
_NATIVE: Final[dict[str, Any]] = {
    "_debug_render_only": True,
    "format": SCHEMA,
    "keep_alive": "5m",
    "logprobs": True,
    "model": "n",
    "shift": False,
    "stream": True,
    "think": True,
    "top_logprobs": Sample(2, beside={"logprobs": True}),
    "truncate": False,
    "options": {},
    **_OPTIONS,
}
_CHAT_LIKE: Final[dict[str, Any]] = {
    "keep_alive": "5m",
    "logit_bias": {"1": 1},
    "model": "n",
    "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}},
    "stream": True,
    "stream_options": Sample({"include_usage": True}, beside={"stream": True}),
    "truncate": True,
}

# What the gateway does itself, whatever the backend: nothing of it has to be sent.
DONE_HERE: Final = frozenset(
    {"dimensions", "echo", "encoding_format", "function_call", "n", "parallel_tool_calls", "raw", "stream"}
    | {"stream_options", "tool_choice"}
    # A response tells them again.
    | {"metadata", "prompt_cache_key", "safety_identifier", "user"}
)

SAMPLES: Final[dict[Operation, dict[str, Any]]] = {
    Operation.CHAT: {
        **_NATIVE,
        "messages": [{"role": "user", "content": "Ho"}],
        "tools": [NATIVE_TOOL],
    },
    Operation.GENERATE: {
        **_NATIVE,
        "context": [1],
        "images": [PNG],
        "prompt": "Ho",
        "raw": True,
        "suffix": "x",
        "system": "x",
        "template": "x",
    },
    Operation.EMBED: {
        "dimensions": 5,
        "input": ["a", "b"],
        "keep_alive": "5m",
        "model": "n",
        "options": {},
        **_OPTIONS,
        "truncate": False,
    },
    Operation.LEGACY_EMBEDDINGS: {
        "keep_alive": "5m",
        "model": "n",
        "options": {},
        **_OPTIONS,
        "prompt": "Ho",
        "truncate": False,
    },
    Operation.CHAT_COMPLETIONS: {
        **_SAMPLING,
        **_THINKING,
        **_HARMLESS,
        **_OF_OTHER_SERVERS,
        **_CHAT_LIKE,
        "audio": {"voice": "x", "format": "wav"},
        "function_call": Sample({"name": "f"}, beside={"functions": [{"name": "f"}]}),
        "functions": [{"name": "f"}],
        "logprobs": True,
        "messages": [{"role": "user", "content": "Ho"}],
        "modalities": ["text", "audio"],
        "moderation": {"model": "x"},
        "n": 2,
        "parallel_tool_calls": Sample(False, beside={"tools": [NATIVE_TOOL]}),
        "store": True,
        "tool_choice": Sample("required", beside={"tools": [NATIVE_TOOL]}),
        "tools": [NATIVE_TOOL],
        "top_logprobs": Sample(2, beside={"logprobs": True}),
        "web_search_options": {},
    },
    Operation.COMPLETIONS: {
        **_SAMPLING,
        **_THINKING,
        **_HARMLESS,
        **_OF_OTHER_SERVERS,
        **_CHAT_LIKE,
        "audio": {"voice": "x", "format": "wav"},
        "best_of": 2,
        "echo": True,
        "logprobs": 2,
        "messages": TURNS,
        "modalities": ["text", "audio"],
        "moderation": {"model": "x"},
        "n": 2,
        "prompt": "Ho",
        "tools": [NATIVE_TOOL],
        "web_search_options": {},
        "raw": False,
        "suffix": "x",
        "store": True,
    },
    Operation.EMBEDDINGS: {
        **_HARMLESS,
        "add_special_tokens": False,
        "dimensions": 5,
        "encoding_format": "base64",
        "input_type": "query",
        "messages": TURNS,
        "normalize": False,
        "options": {"seed": 1},
        "prompt": "Ho",
        "truncate_prompt_tokens": 5,
        "input": ["a", "b"],
        "keep_alive": "5m",
        "model": "n",
        "num_ctx": 2048,
        "truncate": True,
    },
    Operation.RESPONSES: {
        **_SAMPLING,
        **_THINKING,
        **_HARMLESS,
        "background": True,
        "background_options": {"completion_window": "x"},
        "conversation": "c",
        "functions": [{"name": "f"}],
        "include": ["message.output_text.logprobs"],
        "input": "Ho",
        "instructions": "x",
        "keep_alive": "5m",
        "logit_bias": {"1": 1},
        "max_output_tokens": 7,
        "max_tool_calls": 3,
        "messages": TURNS,
        "model": "n",
        "moderation": {"model": "x"},
        "n": 2,
        "parallel_tool_calls": Sample(False, beside={"tools": [FLAT_TOOL]}),
        "previous_response_id": "r",
        "prompt": {"id": "p"},
        "response_format": {"type": "json_object"},
        "store": True,
        "stream": True,
        "stream_options": Sample({"include_obfuscation": False}, beside={"stream": True}),
        "text": {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA}},
        "tool_choice": Sample("required", beside={"tools": [FLAT_TOOL]}),
        "tools": [FLAT_TOOL],
        "top_logprobs": 2,
        "truncation": "auto",
    },
    Operation.MESSAGES: {
        "cache_control": {"type": "ephemeral"},
        "context_management": {"edits": []},
        "diagnostics": {},
        "keep_alive": "5m",
        "max_tokens": 7,
        "messages": [{"role": "user", "content": "Ho"}],
        "metadata": {"user_id": "u"},
        "model": "n",
        "num_ctx": 2048,
        "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
        "output_format": {"type": "json_schema", "schema": SCHEMA},
        "service_tier": "auto",
        "speed": "fast",
        "stop_sequences": ["."],
        "stream": True,
        "system": "x",
        "temperature": 0.5,
        "think": True,
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "tool_choice": Sample({"type": "any"}, beside={"tools": [CLAUDE_TOOL]}),
        "tools": [CLAUDE_TOOL],
        "top_k": 5,
        "top_p": 0.5,
        "truncate": True,
    },
}
