"""POST /api/show, as far as it bounds a prompt."""

import json
from typing import Any

import pytest
from attrs import evolve

from gateway.accounting import PromptSize
from gateway.errors import BackendFailed
from gateway.formats.chat import UpstreamRequest
from gateway.formats.ollama.shown import read_shown, write_show
from gateway.model import ModelCard

CARD = ModelCard("tiny:latest", digest="ba" * 32)
INFO = {"general.architecture": "llama", "llama.context_length": 131_072, "llama.embedding_length": 64}


def shown(**fields: Any) -> ModelCard:
    return read_shown(json.dumps({"modelfile": "FROM /x", "model_info": INFO, **fields}).encode(), CARD)


def test_a_model_is_asked_about_by_the_backends_name():
    """Never verbose: that would be all of its tokenizer."""
    assert write_show("Tiny:latest") == UpstreamRequest("/api/show", {"model": "Tiny:latest"})


def test_the_context_is_what_the_model_was_trained_for():
    assert shown() == evolve(CARD, context=131_072)


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
    assert shown(**fields) == CARD


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"<html>"])
def test_what_describes_no_model_is_a_failure(body):
    """So it is asked again, and not taken for a model without a system prompt."""
    with pytest.raises(BackendFailed):
        read_shown(body, CARD)
