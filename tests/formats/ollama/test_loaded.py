"""gateway.formats.ollama.loaded: /api/ps, both ways."""

import json
from typing import Any

import pytest
from ollama import ProcessResponse

from gateway.errors import BackendFailed
from gateway.formats.ollama.loaded import read_ps, write_ps
from gateway.model import LoadedModel, ModelCard
from tests.formats.samples import NO_DETAILS

NOW = 1_800_000_000.0
DIGEST = "ba" * 32
TINY = ModelCard("tiny", digest=DIGEST, context=4096)


def entry(**fields: Any) -> dict[str, Any]:
    """As Ollama writes it."""
    return {
        "name": "tiny:latest",
        "model": "tiny:latest",
        "size": 600,
        "digest": DIGEST,
        "details": NO_DETAILS,
        "expires_at": "2027-01-15T08:00:00.5Z",
        "size_vram": 500,
        "context_length": 2048,
    } | fields


@pytest.mark.parametrize(
    ("fields", "loaded"),
    [
        pytest.param({}, LoadedModel("tiny:latest", NOW + 0.5, 600, 500, 2048), id="all"),
        pytest.param(
            {"expires_at": "2318-10-10T00:00:00-05:00"},
            LoadedModel("tiny:latest", 11_006_168_400.0, 600, 500, 2048),
            id="for ever",
        ),
        pytest.param(
            {"model": None, "size": -1, "size_vram": "x", "expires_at": "", "context_length": 0},
            LoadedModel("tiny:latest"),
            id="what can't be read is unknown",
        ),
    ],
)
def test_what_is_loaded_is_read(fields: dict[str, Any], loaded: LoadedModel):
    assert read_ps(json.dumps({"models": [entry(**fields)]}).encode()) == (loaded,)


@pytest.mark.parametrize("body", [b'{"models":[]}', b'{"models":null}', b'{"models":[5,{}]}'])
def test_nothing_may_be_loaded(body: bytes):
    assert read_ps(body) == ()


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"models":1}'])
def test_what_is_no_list_is_a_failure(body: bytes):
    with pytest.raises(BackendFailed):
        read_ps(body)


def test_what_stays_longest_comes_first():
    """Known by the lists' names and digests; what has expired since it was asked for is gone."""
    written = json.loads(
        write_ps(
            [
                (ModelCard("gone"), LoadedModel("gone", NOW)),
                (TINY, LoadedModel("TINY", NOW + 0.5, 600, 500, 2048)),
                (ModelCard("/models/big.gguf", context=8192), LoadedModel("big")),
            ],
            NOW,
        )
    )

    big, tiny = written["models"]
    assert tiny == entry(expires_at="2027-01-15T08:00:00.500000Z")
    assert (big["name"], big["context_length"], big["expires_at"][:4]) == ("big.gguf:latest", 8192, "2319")
    assert len(ProcessResponse(**written).models) == 2


def test_nothing_loaded_is_an_empty_list():
    assert json.loads(write_ps([], NOW)) == {"models": []}
