"""gateway.formats.openai.models: lists of models, from backends and for callers."""

import orjson
import pytest
from attrs import evolve
from openai.types import Model

from gateway.errors import BackendFailed
from gateway.formats.openai.models import (
    props_path,
    read_loaded,
    read_models,
    read_props,
    write_model,
    write_models,
)
from gateway.model import Engine, LoadedModel, ModelCard
from tests.formats.recordings import of_llama_cpp
from tests.formats.samples import NO_DETAILS


def test_the_list_of_llama_cpp() -> None:
    """Its `created` is the time of the question, so no time of the model is known."""
    assert read_models(of_llama_cpp("models")) == (
        ModelCard(
            name="greeting",
            size=481_536,
            details={**NO_DETAILS, "format": "gguf", "families": [""]},
            engine=Engine.LLAMA_CPP,
            context=8192,
        ),
    )


def test_what_is_listed_is_loaded() -> None:
    """These servers load their model when they start."""
    assert read_loaded(of_llama_cpp("models")) == (LoadedModel("greeting", size=481_536, context=8192),)


@pytest.mark.parametrize(
    ("status", "names"),
    [({"value": "loaded"}, ["m"]), ({"value": "unloaded"}, []), ({"value": "loading"}, []), (None, ["m"])],
    ids=str,
)
def test_what_llama_cpp_would_load_first_is_not_loaded(status: object, names: list[str]) -> None:
    """Its router lists also the models that wait on the disk."""
    body = orjson.dumps({"data": [{"id": "m", "status": status}]})

    assert [loaded.name for loaded in read_loaded(body)] == names


def test_the_settings_of_llama_cpp() -> None:
    """What one slot can hold; elder builds tell it nowhere else. A model that is not loaded stays so."""
    card = ModelCard("ns/greeting", engine=Engine.LLAMA_CPP)
    body = b'{"default_generation_settings": {"params": {}, "n_ctx": 8192}, "total_slots": 4}'

    assert read_props(body, card) == evolve(card, context=8192)
    assert props_path("ns/greeting") == "/props?model=ns%2Fgreeting&autoload=false"


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"default_generation_settings":1}', b"<html>"])
def test_what_tells_no_settings_is_a_failure(body: bytes) -> None:
    """So it is asked again."""
    with pytest.raises(BackendFailed):
        read_props(body, ModelCard("greeting"))


def test_the_list_of_vllm_and_of_others() -> None:
    """A name with an organisation is owned by it; vLLM's `created` is the time of the question too.

    A context is taken only where it is known to be one: from vLLM's bound, not from llama.cpp's training.
    """
    body = {
        "object": "list",
        "data": [
            {
                "id": "meta-llama/Llama-3.1-8B",
                "created": 1_700_000_000,
                "owned_by": "vllm",
                "max_model_len": 4096,
            },
            {"id": "gpt-4o", "created": 1_700_000_000, "owned_by": "system", "max_model_len": 4096},
            {"id": "/models/tiny.gguf", "owned_by": "llamacpp", "meta": {"n_ctx_train": 4096}},
        ],
    }

    assert read_models(orjson.dumps(body)) == (
        ModelCard(
            name="meta-llama/Llama-3.1-8B",
            details=NO_DETAILS,
            owned_by="meta-llama",
            engine=Engine.VLLM,
            context=4096,
        ),
        ModelCard(name="gpt-4o", modified_at=1_700_000_000, details=NO_DETAILS),
        ModelCard(name="/models/tiny.gguf", details=NO_DETAILS, engine=Engine.LLAMA_CPP),
    )


@pytest.mark.parametrize(
    ("body", "cards"),
    [
        pytest.param(b'{"data":null}', (), id="null"),
        pytest.param(
            b'{"data":[{"id":"a b"},{"id":1},{},7,{"id":"gpt:cloud:cloud"}]}',
            (),
            id="names that can't be served",
        ),
    ],
)
def test_what_cannot_be_served_is_left_out(body: bytes, cards: tuple[ModelCard, ...]) -> None:
    """One odd entry must not hide the others."""
    assert read_models(body) == cards


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"data":1}', b'{"data":[],"models":[1]}', b"<html>"])
def test_what_is_no_list_is_a_failure(body: bytes) -> None:
    """Not an empty list: that would take all models from the callers."""
    with pytest.raises(BackendFailed):
        read_models(body)


def test_a_list_is_written_newest_first() -> None:
    """Directories of a backend's files are nobody's business."""
    cards = [
        ModelCard("tiny:latest", modified_at=1.5),
        ModelCard("/models/a.gguf"),
        ModelCard("Org/Big", modified_at=2, owned_by="Org"),
    ]
    written = orjson.loads(write_models(cards))

    assert written == {
        "object": "list",
        "data": [
            {"id": "Org/Big", "object": "model", "created": 2, "owned_by": "Org"},
            {"id": "tiny:latest", "object": "model", "created": 1, "owned_by": "library"},
            {"id": "a.gguf", "object": "model", "created": 0, "owned_by": "library"},
        ],
    }
    for entry in written["data"]:
        Model.model_validate(entry, strict=True)


def test_no_models_are_an_empty_list() -> None:
    """Ollama says null there, which many clients can't iterate."""
    assert write_models([]) == b'{"object":"list","data":[]}'


def test_one_model_is_written_as_it_was_asked_for() -> None:
    """Clients compare the id with what they sent."""
    assert orjson.loads(write_model(ModelCard("tiny:latest"), "TINY")) == {
        "id": "TINY",
        "object": "model",
        "created": 0,
        "owned_by": "library",
    }


@pytest.mark.parametrize("created", [1_700_000_000_000, 2**64 - 1, -(2**63), True, "1", None], ids=repr)
def test_a_time_that_no_calendar_has_is_left_out(created: object) -> None:
    """Milliseconds for seconds would be the year 55842, which took /api/tags away from everybody."""
    (card,) = read_models(orjson.dumps({"data": [{"id": "m", "created": created}]}))

    assert card.modified_at is None
