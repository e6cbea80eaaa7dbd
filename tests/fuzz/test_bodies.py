"""Whatever a caller's body holds: it is refused, or a backend reads what was decided on (security.md D)."""

import json
from typing import Any

import orjson
import pytest

from gateway.errors import InvalidRequest
from gateway.formats.parts import parts_of
from gateway.formats.strict_json import parse_object
from gateway.formats.translation import SURFACES, upstream_of
from gateway.model import Operation
from gateway.rules.model_names import canonical
from tests.fuzz.seeds import as_json, examples, mutated

IMAGE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {
    "type": "function",
    "function": {"name": "f", "description": "d", "parameters": SCHEMA, "strict": True},
}
SAMPLING = {
    "temperature": 0.5, "top_p": 0.5, "top_k": 5, "min_p": 0.1, "typical_p": 0.9, "seed": 1,
    "presence_penalty": 0.5, "frequency_penalty": 0.5, "repeat_penalty": 1.1, "repeat_last_n": 64,
    "num_keep": 4, "num_ctx": 2048, "stop": ["a", "b"],
}  # fmt: skip
CHAT_COMPLETIONS = SAMPLING | {
    "model": "m",
    "messages": [
        {"role": "system", "content": "s", "name": "n"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "x"},
                {
                    "type": "image_url",
                    "image_url": {"url": f"data:image/png;base64,{IMAGE}", "detail": "low"},
                },
            ],
        },
        {
            "role": "assistant",
            "content": None,
            "refusal": None,
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
        {"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}, "reasoning": "r"},
        {"role": "function", "name": "f", "content": "y"},
    ],
    "stream": True,
    "stream_options": {"include_usage": True},
    "max_tokens": 5,
    "max_completion_tokens": 6,
    "tools": [TOOL],
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "parallel_tool_calls": False,
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "n", "schema": SCHEMA, "strict": True},
    },
    "reasoning_effort": "low",
    "reasoning": {"effort": "low"},
    "think": True,
    "chat_template_kwargs": {"enable_thinking": True},
    "logprobs": True,
    "top_logprobs": 2,
    "keep_alive": "5m",
    "n": 1,
    "user": "u",
    "metadata": {"a": "b"},
    "logit_bias": {},
    "store": False,
    "modalities": ["text"],
}
OPTIONS = {**SAMPLING, "num_predict": 7, "num_gpu": 1, "tfs_z": 1.0}
CHAT = {
    "model": "m",
    "messages": [
        {"role": "user", "content": "x", "images": [IMAGE]},
        {
            "role": "assistant",
            "thinking": "t",
            "tool_calls": [{"id": "c1", "function": {"index": 0, "name": "f", "arguments": {"a": [1]}}}],
        },
        {"role": "tool", "tool_name": "f", "tool_call_id": "c1", "content": "sunny"},
    ],
    "tools": [TOOL],
    "stream": False,
    "format": SCHEMA,
    "options": OPTIONS,
    "keep_alive": "5m",
    "think": "low",
    "truncate": True,
    "shift": True,
    "logprobs": True,
    "top_logprobs": 2,
}
GENERATE = {
    "model": "m", "prompt": "x", "suffix": "", "system": "s", "template": "", "raw": False, "context": [1, 2],
    "images": [IMAGE], "stream": True, "format": "json", "options": OPTIONS, "keep_alive": 9, "think": False,
}  # fmt: skip
EMBED = {
    "model": "m", "input": ["x", "y"], "truncate": True, "dimensions": 5, "options": OPTIONS,
    "keep_alive": "5m",
}  # fmt: skip
EMBEDDINGS = {
    "model": "m", "input": ["x", "y"], "encoding_format": "base64", "dimensions": 5, "user": "u",
    "truncate": True, "num_ctx": 2048, "keep_alive": "5m",
}  # fmt: skip
CACHED = {"cache_control": {"type": "ephemeral"}}
MESSAGES = {
    "model": "m",
    "max_tokens": 9,
    "system": [{"type": "text", "text": "s", **CACHED}],
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "x"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": IMAGE}},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "t", "signature": "y"},
                {"type": "redacted_thinking", "data": "z"},
                {"type": "tool_use", "id": "c1", "name": "f", "input": {"a": [1]}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "c1",
                    "content": [{"type": "text", "text": "sunny"}],
                    "is_error": True,
                }
            ],
        },
        {"role": "system", "content": "s"},
    ],
    "stream": True,
    "tools": [{"name": "f", "description": "d", "input_schema": SCHEMA, "strict": True, **CACHED}],
    "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": True},
    "temperature": 0.5,
    "top_p": 0.5,
    "top_k": 5,
    "stop_sequences": ["a"],
    "thinking": {"type": "enabled", "budget_tokens": 1024, "display": "omitted"},
    "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": SCHEMA}},
    "metadata": {"user_id": "u"},
    "context_management": {"edits": []},
    "num_ctx": 2048,
    "keep_alive": "5m",
    "think": True,
}
RESPONSES = {
    "model": "m",
    "instructions": "s",
    "input": [
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "x"},
                {"type": "input_image", "image_url": f"data:image/png;base64,{IMAGE}"},
            ],
        },
        {"type": "reasoning", "id": "rs", "summary": [{"type": "summary_text", "text": "t"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "y"}]},
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"a": [1]}'},
        {"type": "function_call_output", "call_id": "c1", "output": "sunny"},
    ],
    "stream": True,
    "stream_options": {"include_obfuscation": False},
    "tools": [{"type": "function", "name": "f", "description": "d", "parameters": SCHEMA, "strict": True}],
    "tool_choice": {"type": "function", "name": "f"},
    "parallel_tool_calls": False,
    "max_output_tokens": 9,
    "temperature": 0.5,
    "top_p": 0.5,
    "text": {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA}, "verbosity": "low"},
    "reasoning": {"effort": "low", "summary": "auto"},
    "include": ["message.output_text.logprobs"],
    "top_logprobs": 2,
    "store": False,
    "truncation": "disabled",
    "metadata": {"a": "b"},
    "num_ctx": 2048,
    "keep_alive": "5m",
    "think": True,
}
COMPLETIONS = SAMPLING | {
    "model": "m", "prompt": ["x", "y"], "suffix": "", "echo": True, "n": 2, "best_of": 2, "stream": True,
    "stream_options": {"include_usage": True}, "max_tokens": 5, "raw": True, "think": False, "user": "u",
    "response_format": {"type": "json_object"}, "logit_bias": {}, "keep_alive": "5m",
}  # fmt: skip
BODIES: dict[Operation, dict[str, Any]] = {
    Operation.CHAT_COMPLETIONS: CHAT_COMPLETIONS,
    Operation.CHAT: CHAT,
    Operation.GENERATE: GENERATE,
    Operation.EMBED: EMBED,
    Operation.LEGACY_EMBEDDINGS: {"model": "m", "prompt": "x", "options": OPTIONS, "keep_alive": "5m"},
    Operation.COMPLETIONS: COMPLETIONS,
    Operation.EMBEDDINGS: EMBEDDINGS,
    Operation.MESSAGES: MESSAGES,
    Operation.RESPONSES: RESPONSES,
}
PATHS = {
    *("/api/chat", "/api/generate", "/api/embed"),
    *("/v1/chat/completions", "/v1/completions", "/v1/embeddings"),
}
# Whatever stands below these is the caller's own: a schema, the arguments of a call.
FREE = {"parameters", "arguments", "format", "schema", "json_schema"}


def folded_twice(value: Any) -> bool:
    """Whether a parser that folds names, as Go's does, would see one of ours twice."""
    if isinstance(value, list):
        return any(map(folded_twice, value))
    if not isinstance(value, dict):
        return False
    names = [name.casefold() for name in value]
    below = (inner for name, inner in value.items() if name not in FREE)
    return len(names) != len(set(names)) or any(map(folded_twice, below))


@pytest.mark.parametrize("operation", BODIES, ids=lambda operation: operation.value)
@pytest.mark.parametrize("kind", ["ollama", "openai"])
def test_any_body_is_refused_or_sent_as_it_was_decided(operation: Operation, kind: str):
    """The model is the one that was looked up, whatever the caller wrote; no name stands there twice."""
    served = 0
    for number, random in enumerate(examples(10, 2_000)):
        data = as_json(mutated(random, BODIES[operation]))
        try:
            call = SURFACES[operation].read(parse_object(data))
            canonical(call.model)
            sent = [upstream_of(kind, part, "the model:latest").request for part in parts_of(call)]
            written = [orjson.dumps(request.body) for request in sent]
        except InvalidRequest:
            continue
        except Exception as error:
            raise AssertionError(f"example {number}: {data[:2000]!r}") from error
        served += 1
        for request, text in zip(sent, written, strict=True):
            assert request.path in PATHS
            assert request.body["model"] == "the model:latest"
            assert orjson.loads(text) == json.loads(text)
            assert not folded_twice(request.body), text[:2000]
    assert served > 100, "the generator finds nothing that is served"


TOKENS = [
    b"{", b"}", b"[", b"]", b",", b":", b'"', b"'", b"\\", b"\\u", b"\\ud800", b"\\udc00", b" ", b"\n", b"/*",
    b"null", b"NaN", b"-", b"0", b"00", b"1.", b"1e999", b"9" * 30, b"1" * 5_000, b"[" * 70, b"\x00", b"\xff",
    b"\xc0\xaf", b"\xef\xbb\xbf", b"\xed\xa0\x80", b'"model":"other",', b'"MODEL":"other",',
    b'"\\u006dodel":"other",',
]  # fmt: skip


def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len(pairs) == len(dict(pairs)), "a name stands twice"
    return dict(pairs)


def test_any_bytes_are_refused_or_read_as_the_standard_library_reads_them():
    """Bytes put in, left out or doubled anywhere: what is accepted has one reading."""
    sane = orjson.dumps(CHAT)
    for random in examples(11, 6_000):
        data = sane
        for _ in range(random.randint(1, 3)):
            place = random.randint(0, len(data))
            width = random.choice([0, 0, 1, 2, 20])
            data = data[:place] + random.choice(TOKENS) + data[place + width :]
        try:
            value = parse_object(data)
        except InvalidRequest:
            continue
        assert value == json.loads(data, object_pairs_hook=distinct)
