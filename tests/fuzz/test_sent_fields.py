"""No field of a request reaches a backend that the table in docs/API.md does not list: `scripts.api_sent`."""

from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import InvalidRequest
from gateway.formats.chat import UpstreamRequest
from gateway.formats.parts import parts_of
from gateway.formats.translation import READERS, upstream_of
from gateway.model import JsonObject, Operation
from scripts.api_sent import SENT, fields_of, names
from tests.fuzz.test_bodies import BODIES, SCHEMA

SHAPES = {(sent.kind, sent.path): sent.shape for sent in SENT}
KINDS = ("ollama", "openai")

# What vLLM, llama.cpp and Ollama take from whoever asks, and no tenant is to reach; and words that each
# protocol has somewhere else.
TEMPTING = (
    *("chat_template", "chat_template_kwargs", "kv_transfer_params", "prompt_embeds", "priority"),
    *("vllm_xargs", "cache_salt", "allowed_token_ids", "request_id", "logits_processors", "bad_words"),
    *("guided_json", "id_slot", "lora", "grammar", "cache_prompt", "n_cache_reuse", "t_max_predict_ms"),
    *("n_predict", "samplers", "_debug_render_only", "template", "raw", "context", "shift", "num_gpu"),
    *("num_thread", "use_mmap", "insecure", "remote_host", "verbose", "options", "images", "image_url"),
    *("file", "input_audio", "url", "path", "detail", "name", "id", "index", "type", "role", "content"),
    *("system", "tools", "functions", "stream", "keep_alive", "cache_control", "citations"),
    *("annotations", "metadata", "strict", "additionalProperties", "function"),
)  # fmt: skip
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 99)
    | st.sampled_from(["x", "", "http://10.0.0.1/", "/etc/passwd"]),
    lambda below: st.lists(below, max_size=2) | st.dictionaries(st.sampled_from(TEMPTING), below, max_size=2),
    max_leaves=4,
)
EXTRAS = st.lists(
    st.tuples(st.integers(0, 10_000), st.sampled_from(TEMPTING) | st.text(min_size=1, max_size=8), VALUES),
    min_size=1,
    max_size=3,
)


def objects_in(value: Any) -> Iterator[JsonObject]:
    """Every object of a body, at any depth."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for below in value:
            yield from objects_in(below)


def with_extras(body: JsonObject, extras: list[tuple[int, str, Any]]) -> JsonObject:
    """The body with a field more in some of its objects; what stands there already stays."""
    copy: JsonObject = orjson.loads(orjson.dumps(body))
    for place, name, value in extras:
        found = list(objects_in(copy))
        found[place % len(found)].setdefault(name, value)
    return copy


def requests(operation: Operation, kind: str, body: JsonObject) -> list[UpstreamRequest]:
    """All that may be sent for it; nothing where it is refused."""
    try:
        upstreams = [upstream_of(kind, part, "m") for part in parts_of(READERS[operation](body))]
    except InvalidRequest:
        return []
    return [one for upstream in upstreams for one in (upstream.request, upstream.or_cut) if one is not None]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("operation", BODIES, ids=lambda operation: operation.value)
@given(extras=EXTRAS)
def test_no_field_is_sent_that_the_table_does_not_list(
    operation: Operation, kind: str, extras: list[tuple[int, str, Any]]
):
    """Whatever else stands in a request: in its messages, parts, tools and options too."""
    for request in requests(operation, kind, with_extras(BODIES[operation], extras)):
        shape = SHAPES[kind, request.path]

        assert set(fields_of(orjson.loads(orjson.dumps(request.body)), shape)) <= set(names(shape))


HELLO: Any = [{"role": "user", "content": "Hi"}]
# Some that no body of BODIES asks for.
OTHERS: list[tuple[Operation, JsonObject]] = [
    (Operation.GENERATE, {"model": "m", "prompt": "x", "suffix": "y", "logprobs": True, "top_logprobs": 2}),
    (Operation.GENERATE, {"model": "m", "prompt": "x", "raw": True, "options": {"num_predict": 7}}),
    (Operation.COMPLETIONS, {"model": "m", "prompt": "x", "logprobs": 2, "stream": False}),
    (
        Operation.COMPLETIONS,
        {
            "model": "m",
            "prompt": "x",
            "response_format": {
                "type": "json_schema",
                "json_schema": {"schema": SCHEMA, "strict": True, "description": "x"},
            },
            "logit_bias": {"5": 1},
        },
    ),
    (
        Operation.CHAT_COMPLETIONS,
        {
            "model": "m",
            "messages": HELLO,
            "response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA, "description": "x"}},
            "logit_bias": {"5": 1},
        },
    ),
    (
        Operation.CHAT_COMPLETIONS,
        {
            "model": "m",
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "input_audio", "input_audio": {"data": "SUQzBA==", "format": "mp3"}}
                    ],
                }
            ],
        },
    ),
    (Operation.MESSAGES, BODIES[Operation.MESSAGES] | {"tool_choice": {"type": "auto"}, "think": None}),
    (
        Operation.MESSAGES,
        {
            "model": "m",
            "max_tokens": 5,
            "messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}],
        },
    ),
]


def test_every_field_of_the_table_is_sent_for_some_request():
    """So that the table promises nothing that the code does not do."""
    found: dict[tuple[str, str], set[str]] = {place: set() for place in SHAPES}
    for operation, body in [*BODIES.items(), *OTHERS]:
        for kind in KINDS:
            for request in requests(operation, kind, {**body, "stream": True}):
                found[kind, request.path] |= set(fields_of(request.body, SHAPES[kind, request.path]))

    missing = {place: set(names(shape)) - found[place] for place, shape in SHAPES.items()}

    assert not {place: sorted(fields) for place, fields in missing.items() if fields}
