"""What a backend can be sent for a request: every field, at every depth. The law of docs/API.md's last table.

Nothing that stands here only in a request reaches a backend; tests/fuzz/test_sent_fields.py sees to it.
"""

from collections.abc import Iterator
from typing import Any, Final

from attrs import frozen

# A shape is an object's fields, a list of one shape, or one of these two.
PLAIN: Final = "plain"
"""A text, a number, a boolean, or a list of those."""
FREE: Final = "free"
"""Whatever the caller wrote: a JSON Schema, the arguments of a call."""

_NATIVE_OPTIONS: Final = dict.fromkeys(
    (
        *("temperature", "top_p", "top_k", "min_p", "typical_p", "seed", "stop", "num_predict", "num_ctx"),
        *("presence_penalty", "frequency_penalty", "repeat_penalty", "repeat_last_n", "num_keep"),
    ),
    PLAIN,
)
_NATIVE_COMMON: Final = {
    **dict.fromkeys(
        ("model", "stream", "think", "truncate", "keep_alive", "logprobs", "top_logprobs"), PLAIN
    ),
    "format": FREE,
    "options": _NATIVE_OPTIONS,
}
_FORMAT: Final = {"name": PLAIN, "description": PLAIN, "schema": FREE, "strict": PLAIN}
_OPENAI_COMMON: Final = {
    **dict.fromkeys(
        (
            *("model", "stream", "max_tokens", "temperature", "top_p", "seed", "stop"),
            *("presence_penalty", "frequency_penalty", "top_k", "min_p", "typical_p"),
            *("repeat_penalty", "repetition_penalty", "repeat_last_n", "n_keep", "logprobs"),
        ),
        PLAIN,
    ),
    "stream_options": {"include_usage": PLAIN},
    "logit_bias": FREE,
    "response_format": {"type": PLAIN, "json_schema": _FORMAT},
}
_IMAGE: Final = {"url": PLAIN}
_SOUND: Final = {"data": PLAIN, "format": PLAIN}


@frozen
class Sent:
    """One path of one kind of backend, and what its body can hold."""

    kind: str
    path: str
    shape: Any


SENT: Final = (
    Sent(
        "ollama",
        "/api/chat",
        _NATIVE_COMMON
        | {
            "messages": [
                {
                    **dict.fromkeys(
                        ("role", "content", "thinking", "images", "tool_name", "tool_call_id"), PLAIN
                    ),
                    "tool_calls": [
                        {"id": PLAIN, "function": {"index": PLAIN, "name": PLAIN, "arguments": FREE}}
                    ],
                }
            ],
            "tools": [
                {"type": PLAIN, "function": {"name": PLAIN, "description": PLAIN, "parameters": FREE}}
            ],
        },
    ),
    Sent(
        "ollama",
        "/api/generate",
        _NATIVE_COMMON
        | dict.fromkeys(("prompt", "suffix", "system", "raw", "images", "context"), PLAIN),
    ),
    Sent(
        "ollama",
        "/api/embed",
        dict.fromkeys(("model", "input", "dimensions", "truncate", "keep_alive"), PLAIN)
        | {"options": {"num_ctx": PLAIN}},
    ),
    Sent(
        "openai",
        "/v1/chat/completions",
        _OPENAI_COMMON
        | dict.fromkeys(
            (
                *("top_logprobs", "tool_choice", "parallel_tool_calls", "reasoning_effort"),
                *("add_generation_prompt", "continue_final_message"),
            ),
            PLAIN,
        )
        | {
            "chat_template_kwargs": {"enable_thinking": PLAIN},
            "messages": [
                {
                    **dict.fromkeys(
                        ("role", "name", "reasoning", "reasoning_content", "tool_call_id"), PLAIN
                    ),
                    "content": [{"type": PLAIN, "text": PLAIN, "image_url": _IMAGE, "input_audio": _SOUND}],
                    "tool_calls": [
                        {"id": PLAIN, "type": PLAIN, "function": {"name": PLAIN, "arguments": PLAIN}}
                    ],
                }
            ],
            "tools": [
                {
                    "type": PLAIN,
                    "function": {
                        "name": PLAIN, "description": PLAIN, "parameters": FREE, "strict": PLAIN,
                    },
                }
            ],
        },
    ),
    Sent("openai", "/v1/completions", _OPENAI_COMMON | {"prompt": PLAIN, "json_schema": FREE}),
    Sent(
        "openai",
        "/v1/embeddings",
        dict.fromkeys(("model", "input", "encoding_format", "truncate_prompt_tokens"), PLAIN),
    ),
)  # fmt: skip


def names(shape: Any, path: str = "") -> Iterator[str]:
    """Every field of a shape with its path, such as `messages[].content`."""
    if isinstance(shape, list):
        yield from names(shape[0], f"{path}[]")
    elif isinstance(shape, dict):
        for name, below in shape.items():
            inner = f"{path}.{name}" if path else name
            yield inner
            yield from names(below, inner)


def fields_of(value: Any, shape: Any, path: str = "") -> Iterator[str]:
    """The same for a body; what its shape does not have is told as it stands, and looked into no further."""
    if isinstance(value, list):
        below, place = (shape[0], f"{path}[]") if isinstance(shape, list) else (shape, path)
        for item in value:
            yield from fields_of(item, below, place)
    elif isinstance(value, dict) and shape is not FREE:
        known = shape if isinstance(shape, dict) else {}
        for name, below in value.items():
            inner = f"{path}.{name}" if path else name
            yield inner
            if name in known:
                yield from fields_of(below, known[name], inner)


def table() -> str:
    """The table of docs/API.md."""
    return "\n".join(["| Kind | Request | Fields |", "|---|---|---|", *map(_row, SENT)])


def _row(sent: Sent) -> str:
    fields = ", ".join(f"`{name}`" for name in sorted(names(sent.shape)))
    return f"| `{sent.kind}` | `POST {sent.path}` | {fields} |"
