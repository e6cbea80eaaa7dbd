"""Which translator reads and writes what: what holds for all of them."""

from typing import Any

import pytest
from attrs import evolve

from gateway.errors import InvalidRequest
from gateway.formats.chat import ChatCall, EmbedCall, GenerateCall, Message, Part
from gateway.formats.translation import READERS, upstream_of
from gateway.model import JsonObject, Operation
from scripts.api_samples import LEAST, SAMPLES

CHAT = ChatCall("m", (Message("user", "Hi"),), stream=True)
GENERATE = GenerateCall("m", "Hi", stream=False)
EMBED = EmbedCall("m", ("Hi",))


@pytest.mark.parametrize("call", [CHAT, GENERATE, EMBED], ids=["chat", "generate", "embed"])
def test_ollama_is_never_asked_at_once_to_cut_a_prompt(call: Part):
    """It would do so without a word: first it is to refuse, then, where the caller wants that, to cut."""
    refused = upstream_of("ollama", call, "m")
    cut = upstream_of("ollama", evolve(call, truncate=True), "m")

    assert refused.request == cut.request
    assert refused.request.body["truncate"] is False
    assert refused.or_cut is None
    assert cut.or_cut == evolve(cut.request, body=cut.request.body | {"truncate": True})


def test_vllm_is_asked_to_cut_an_input_only_after_it_refused():
    upstream = upstream_of("openai", evolve(EMBED, truncate=True), "m")

    assert "truncate_prompt_tokens" not in upstream.request.body
    assert upstream.or_cut is not None
    assert upstream.or_cut.body == upstream.request.body | {"truncate_prompt_tokens": -1}


@pytest.mark.parametrize("call", [CHAT, GENERATE], ids=["chat", "generate"])
def test_openai_compatible_servers_cut_no_chat(call: Part):
    """They refuse what is too long, and that is told."""
    assert upstream_of("openai", evolve(call, truncate=True), "m").or_cut is None


@pytest.mark.parametrize(
    ("operation", "body", "truncate"),
    [
        (Operation.CHAT, {"messages": []}, True),
        (Operation.GENERATE, {"prompt": "Hi"}, True),
        (Operation.EMBED, {"input": "Hi"}, True),
        (Operation.LEGACY_EMBEDDINGS, {"prompt": "Hi"}, True),
        (Operation.CHAT_COMPLETIONS, {"messages": [{"role": "user", "content": "Hi"}]}, False),
        (Operation.COMPLETIONS, {"prompt": "Hi"}, False),
        (Operation.EMBEDDINGS, {"input": "Hi"}, False),
        (Operation.RESPONSES, {"input": "Hi"}, False),
        (Operation.MESSAGES, {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5}, False),
    ],
    ids=lambda value: value.value if isinstance(value, Operation) else "",
)
def test_a_long_prompt_is_cut_where_its_clients_expect_that(
    operation: Operation, body: JsonObject, truncate: bool
):
    """Ollama's do; those of the others know an error for it. Either can ask for the other."""
    name, values = ("truncation", ("disabled", "auto")) if operation is Operation.RESPONSES else (
        "truncate", (False, True)
    )  # fmt: skip
    read = READERS[operation]

    assert read({"model": "m", **body}).truncate is truncate
    assert [read({"model": "m", **body, name: value}).truncate for value in values] == [False, True]


EMPTY: tuple[Any, ...] = ("", [], {})
FIELDS = [
    (operation, name)
    for operation, samples in SAMPLES.items()
    for name in samples
    if "." not in name and name not in LEAST[operation]
]


@pytest.mark.parametrize(
    ("operation", "name"), FIELDS, ids=[f"{operation.value}: {name}" for operation, name in FIELDS]
)
def test_a_field_of_null_is_a_field_that_is_not_there(operation: Operation, name: str):
    """Many clients write out every field that they know. What is merely empty is read, or refused by name."""
    read = READERS[operation]

    assert read(LEAST[operation] | {name: None}) == read(LEAST[operation])
    for empty in EMPTY:
        blamed = refused_field(operation, LEAST[operation] | {name: empty})
        assert blamed is None or blamed.partition(".")[0] == name


def refused_field(operation: Operation, body: JsonObject) -> str | None:
    """The field that is named where a body is refused."""
    try:
        READERS[operation](body)
    except InvalidRequest as error:
        return str(error.param)
    return None
