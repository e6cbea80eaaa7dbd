"""POST /api/show: as far as it bounds a prompt, and as callers see it."""

import json
from typing import Any

import pytest
from attrs import evolve
from ollama import ShowResponse

from gateway.accounting import PromptSize
from gateway.errors import BackendFailed, InvalidRequest
from gateway.formats.chat import UpstreamRequest
from gateway.formats.ollama.shown import read_show, read_shown, write_show, write_shown
from gateway.model import JsonObject, ModelCard
from tests.formats.samples import NO_DETAILS

CARD = ModelCard("tiny:latest", digest="ba" * 32)
INFO = {"general.architecture": "llama", "llama.context_length": 131_072, "llama.embedding_length": 64}


def shown(**fields: Any) -> ModelCard:
    return read_shown(json.dumps({"modelfile": "FROM /x", "model_info": INFO, **fields}).encode(), CARD)


def test_a_model_is_asked_about_by_the_backends_name():
    """Never verbose: that would be all of its tokenizer."""
    assert write_show("Tiny:latest") == UpstreamRequest("/api/show", {"model": "Tiny:latest"})


def test_the_context_is_what_the_model_was_trained_for():
    assert shown() == evolve(CARD, context=131_072, info=INFO)


def test_what_the_model_says_first_is_measured():
    """Ollama puts its system prompt and its examples before every prompt; the caller sends none of them."""
    messages = [{"role": "user", "content": "Grüße"}, {"role": "assistant", "content": "Hi"}]

    card = shown(system="Be brief.", messages=messages)

    assert card.own == PromptSize(text_bytes=9 + 7 + 2, messages=3)


def test_what_the_model_can_do_is_kept():
    """Elder servers tell it here only."""
    told = shown(capabilities=["completion", "thinking"])

    assert told.capabilities == frozenset({"completion", "thinking"})


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"model_info": None}, id="no info"),
        pytest.param({"model_info": {"llama.context_length": 4096}}, id="no architecture"),
        pytest.param({"model_info": INFO | {"llama.context_length": 0}}, id="zero"),
        pytest.param({"model_info": INFO | {"llama.context_length": True}}, id="a boolean"),
        pytest.param({"model_info": INFO | {"llama.context_length": 2**53}}, id="no bound at all"),
        pytest.param({"model_info": None, "system": 1, "messages": [7, {"content": []}]}, id="nonsense"),
    ],
)
def test_what_cannot_be_read_stays_unknown(fields):
    """A bound that rests on it would be too low."""
    assert evolve(shown(**fields), info={}) == CARD


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"<html>"])
def test_what_describes_no_model_is_a_failure(body):
    """So it is asked again, and not taken for a model without a system prompt."""
    with pytest.raises(BackendFailed):
        read_shown(body, CARD)


# ── what callers see ─────────────────────────────────────────────────────────────────────

# As a real server answers: with the operator's own, and with paths of its machine.
SHOWN: JsonObject = {
    "license": "Long words.",
    "modelfile": "FROM /root/.ollama/models/blobs/sha256-ba\nSYSTEM You are ours.",
    "parameters": 'stop    "<|end|>"\ntemperature    0.5',
    "template": "{{ .System }} secret",
    "system": "You are ours.",
    "messages": [{"role": "user", "content": "ours"}],
    "details": {"family": "other"},
    "model_info": INFO
    | {
        "general.parameter_count": 1_235_814_432,
        "general.quantization_version": 2,
        "llama.rope.freq_base": 500000.0,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": None,
        "tokenizer.ggml.merges": ["a b"],
        "tokenizer.chat_template": "{{ secret }}",
        "general.description": "x" * 513,
        "n" * 513: 1,
    },
    "tensors": [{"name": "t", "type": "F32", "shape": [1]}],
    "capabilities": ["tools", "completion"],
    "modified_at": "2020-01-01T00:00:00Z",
}
LISTED = evolve(CARD, modified_at=1_800_000_000.0, details=NO_DETAILS | {"family": "llama"})


def test_callers_see_what_a_model_is_and_can_do():
    """And nothing of what its operator made of it; the list is what tells of details and time."""
    card = read_shown(json.dumps(SHOWN).encode(), LISTED)

    written = json.loads(write_shown(card))

    assert written == {
        "parameters": SHOWN["parameters"],
        "details": NO_DETAILS | {"family": "llama"},
        "model_info": {
            "general.architecture": "llama",
            "llama.context_length": 131_072,
            "llama.embedding_length": 64,
            "general.parameter_count": 1_235_814_432,
            "general.quantization_version": 2,
            "llama.rope.freq_base": 500000.0,
            "tokenizer.ggml.add_bos_token": True,
            "tokenizer.ggml.model": "gpt2",
        },
        "capabilities": ["completion", "tools"],
        "modified_at": "2027-01-15T08:00:00.000000Z",
    }
    assert ShowResponse(**written).capabilities == ["completion", "tools"]


@pytest.mark.parametrize(
    ("card", "info"),
    [
        pytest.param(
            ModelCard("m", details={"family": "qwen3"}, context=8192),
            {"general.architecture": "qwen3", "qwen3.context_length": 8192},
            id="by its family",
        ),
        pytest.param(
            ModelCard("m", context=8192),
            {"general.architecture": "unknown", "unknown.context_length": 8192},
            id="by none",
        ),
        pytest.param(ModelCard("m"), {"general.architecture": "unknown"}, id="nothing is known"),
    ],
)
def test_a_model_that_no_backend_describes_is_shown_as_far_as_it_is_known(card: ModelCard, info: JsonObject):
    """Clients read `<architecture>.context_length`; ollama-python insists on `model_info`, and on a date."""
    written = json.loads(write_shown(card))

    assert written["model_info"] == info
    assert written["capabilities"] == ["completion"]
    assert ShowResponse(**written).modified_at is not None


def test_what_is_kept_of_a_model_has_bounds():
    """A file may hold anything, and is kept as long as it is listed."""
    card = shown(model_info={f"x.{number}": number for number in range(1000)}, parameters="x" * 10_000)

    assert len(card.info) == 256
    assert len(card.parameters) == 4096


@pytest.mark.parametrize(
    "fields", [{"model": "tiny"}, {"name": "tiny"}, {"model": "tiny", "name": "other"}], ids=str
)
def test_the_name_is_read(fields: JsonObject):
    """Elder clients call it `name`; nothing else changes what is shown."""
    assert read_show(fields | {"verbose": True, "system": "x", "options": {"num_ctx": 1}}) == "tiny"


@pytest.mark.parametrize(
    "fields", [{}, {"model": ""}, {"model": 5}, {"MODEL": "tiny", "model": "other"}], ids=str
)
def test_without_a_name_nothing_is_shown(fields: JsonObject):
    with pytest.raises(InvalidRequest):
        read_show(fields)
