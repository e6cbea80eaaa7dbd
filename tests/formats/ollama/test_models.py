"""gateway.formats.ollama.models: lists of models, from backends and for clients."""

import json
from hashlib import sha256

import pytest
from attrs import evolve
from ollama._types import ListResponse

from gateway.errors import BackendFailed
from gateway.formats.ollama.models import read_tags, write_tags, write_version
from gateway.model import ModelCard
from tests.formats.recordings import of_ollama
from tests.formats.samples import NO_DETAILS

DIGEST = "0123456789abcdef" * 4
LLAMA = {
    "parent_model": "",
    "format": "gguf",
    "family": "llama",
    "families": ["llama"],
    "parameter_size": "1.2M",
    "quantization_level": "F16",
}
TINY = ModelCard("tiny:latest", 1_795_421_763.565756, 1_234_567, DIGEST, LLAMA, "library")


def test_a_backends_models_are_read():
    """Cloud models and remote ones are marked: another machine would answer."""
    tiny, *others = read_tags(of_ollama("tags.json"))

    assert tiny == evolve(TINY, capabilities=frozenset({"completion"}))
    assert [(one.name, one.leaves) for one in others] == [
        ("gpt-oss:120b-cloud", True),
        ("alias:latest", True),
    ]


ENTRIES = [
    pytest.param(
        {"name": "a/b:7b"}, (ModelCard("a/b:7b", details=NO_DETAILS, owned_by="a"),), id="a name alone"
    ),
    pytest.param(
        {"name": "x", "model": "y:1"}, (ModelCard("y:1", details=NO_DETAILS),), id="`model` before `name`"
    ),
    pytest.param(
        {"name": "x", "digest": f"sha256:{DIGEST}"},
        (ModelCard("x", digest=DIGEST, details=NO_DETAILS),),
        id="a prefix",
    ),
    pytest.param(
        {"name": "x", "size": "1", "digest": 1, "modified_at": "", "details": []},
        (ModelCard("x", details=NO_DETAILS),),
        id="fields of wrong types",
    ),
    pytest.param(
        {"name": "x", "capabilities": ["completion", "thinking", 1]},
        (ModelCard("x", details=NO_DETAILS, capabilities=frozenset({"completion", "thinking", ""})),),
        id="capabilities",
    ),
    pytest.param(
        {"name": "m:cloud"}, (ModelCard("m:cloud", details=NO_DETAILS, leaves=True),), id="a cloud model"
    ),
    pytest.param(
        {"name": "m", "remote_model": "n"},
        (ModelCard("m", details=NO_DETAILS, leaves=True),),
        id="a remote model",
    ),
    pytest.param({"name": "m m"}, (), id="an impossible name"),
    pytest.param({}, (), id="no name"),
    pytest.param("x", (), id="no object"),
]


@pytest.mark.parametrize(("entry", "cards"), ENTRIES)
def test_an_entry_is_read_as_far_as_it_goes(entry, cards):
    """One odd entry does not hide the others; every field but the name may be missing."""
    assert read_tags(json.dumps({"models": [entry]}).encode()) == cards


@pytest.mark.parametrize("body", [b'{"models":[]}', b'{"models":null}'])
def test_no_models_are_none(body):
    """A fresh Ollama has none."""
    assert read_tags(body) == ()


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"models":1}', b'{"models":"tiny"}'])
def test_what_is_no_list_is_a_failure(body):
    """Something else answers at that address."""
    with pytest.raises(BackendFailed):
        read_tags(body)


def test_a_list_is_written_newest_first():
    """Names with their tag, a valid date, 64 hexadecimal digits, all six details."""
    cards = [ModelCard("/models/Old.gguf"), TINY]

    assert json.loads(write_tags(cards)) == {
        "models": [
            {
                "name": "tiny:latest",
                "model": "tiny:latest",
                "modified_at": "2026-11-23T08:16:03.565756Z",
                "size": 1_234_567,
                "digest": DIGEST,
                "details": LLAMA,
            },
            {
                "name": "Old.gguf:latest",
                "model": "Old.gguf:latest",
                "modified_at": "1970-01-01T00:00:00.000000Z",
                "size": 0,
                "digest": sha256(b"old.gguf:latest").hexdigest(),
                "details": NO_DETAILS,
            },
        ]
    }


def test_an_empty_list_is_a_list():
    """Never null: clients loop over it."""
    assert write_tags([]) == b'{"models":[]}'


def test_what_is_written_reads_back():
    """A gateway may stand behind a gateway."""
    assert read_tags(write_tags([TINY])) == (TINY,)


def test_ollamas_own_types_take_the_list():
    """The pydantic models of ollama-python, which refuse an empty date."""
    listed = ListResponse.model_validate_json(write_tags([TINY, ModelCard("Qwen/Qwen2.5-7B")]))

    assert [model.model for model in listed.models] == ["tiny:latest", "Qwen/Qwen2.5-7B:latest"]


def test_the_version_is_an_object():
    """Clients compare it."""
    assert write_version("0.33.0") == b'{"version":"0.33.0"}'
