"""gateway.formats.ollama.embeddings: /api/embed and /api/embeddings, both ways."""

from array import array
from typing import Any

import orjson
import pytest
from attrs import evolve
from ollama import EmbeddingsResponse, EmbedResponse

from gateway.errors import BackendFailed, InvalidRequest, UnsupportedField
from gateway.formats.chat import AnswerStamp, EmbedCall, Event, Finish, Sampling, UpstreamRequest
from gateway.formats.ollama.embeddings import (
    MAX_INPUTS,
    read_embed,
    read_embed_answer,
    read_embeddings,
    write_embed,
    write_embed_answer,
    write_embeddings_answer,
)
from gateway.model import JsonObject, Timings, Usage

CALL = EmbedCall("tiny", ("Hi",), truncate=True)
STAMP = AnswerStamp("r1", "Tiny", 100.0, lambda: 100.5)

# ── from Ollama's clients ────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("fields", "call"),
    [
        pytest.param({"input": "Hi"}, CALL, id="a text"),
        pytest.param({"input": ["Hi", ""]}, evolve(CALL, inputs=("Hi", "")), id="texts, one of them empty"),
        pytest.param({}, evolve(CALL, inputs=()), id="absent: a load"),
        pytest.param({"input": None}, evolve(CALL, inputs=()), id="null: a load"),
        pytest.param({"input": ""}, evolve(CALL, inputs=()), id="empty: a load"),
        pytest.param({"input": []}, evolve(CALL, inputs=()), id="no texts: a load"),
        pytest.param({"input": "Hi", "truncate": False}, evolve(CALL, truncate=False), id="nothing is cut"),
        pytest.param({"input": "Hi", "dimensions": 8}, evolve(CALL, dimensions=8), id="dimensions"),
        pytest.param({"input": "Hi", "dimensions": 0}, CALL, id="no dimensions are all"),
        pytest.param({"input": "Hi", "dimensions": -1}, CALL, id="less than none are all"),
        pytest.param(
            {"input": "Hi", "keep_alive": "5m", "options": {"num_ctx": 512, "num_gpu": 9}},
            evolve(CALL, keep_alive=300, sampling=Sampling(num_ctx=512), dropped=("num_gpu",)),
            id="options pass the firewall",
        ),
    ],
)
def test_an_embed_call_is_read(fields: JsonObject, call: EmbedCall):
    assert read_embed({"model": "tiny", **fields}) == call


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        pytest.param({"model": ""}, "model", id="no model"),
        pytest.param({"input": 5}, "input", id="a number"),
        pytest.param({"input": {"text": "Hi"}}, "input", id="an object"),
        pytest.param({"input": ["Hi", 5]}, "input", id="a number among texts"),
        pytest.param({"input": [1, 2]}, "input", id="tokens"),
        pytest.param({"input": ["x"] * (MAX_INPUTS + 1)}, "input", id="too many"),
        pytest.param({"Input": "Hi"}, "Input", id="a look-alike"),
        pytest.param({"truncate": "yes"}, "truncate", id="truncate is no boolean"),
        pytest.param({"dimensions": 1.5}, "dimensions", id="half a dimension"),
    ],
)
def test_an_embed_call_that_cannot_be_is_refused(fields: JsonObject, param: str):
    with pytest.raises(InvalidRequest) as refused:
        read_embed({"model": "tiny", "input": "Hi", **fields})

    assert refused.value.param == param


@pytest.mark.parametrize(
    ("fields", "call"),
    [
        pytest.param({"prompt": "Hi"}, CALL, id="a prompt"),
        pytest.param({"prompt": "Hi", "input": ["other"]}, CALL, id="an input is not read"),
        pytest.param({}, evolve(CALL, inputs=()), id="absent: a load"),
        pytest.param({"prompt": ""}, evolve(CALL, inputs=()), id="empty: a load"),
    ],
)
def test_the_elder_call_is_read(fields: JsonObject, call: EmbedCall):
    assert read_embeddings({"model": "tiny", **fields}) == call


# ── to Ollama ────────────────────────────────────────────────────────────────────────────


def test_a_call_is_written():
    """Of the sampling, only what the model is loaded with: a bound of the output is of no use here."""
    call = EmbedCall(
        "tiny", ("Hi", "Ho"), 8, truncate=False, sampling=Sampling(num_ctx=512, max_tokens=0), keep_alive=60
    )

    assert write_embed(call, "tiny:latest") == UpstreamRequest(
        "/api/embed",
        {
            "model": "tiny:latest",
            "input": ["Hi", "Ho"],
            "truncate": False,
            "dimensions": 8,
            "options": {"num_ctx": 512},
            "keep_alive": 60,
        },
    )
    assert write_embed(CALL, "t").body == {"model": "t", "input": ["Hi"], "truncate": False}


def test_tokens_are_refused():
    """Ollama takes text alone."""
    with pytest.raises(UnsupportedField) as refused:
        write_embed(evolve(CALL, inputs=("Hi", (1, 2))), "tiny")

    assert refused.value.param == "input"


def test_an_answer_is_read():
    body = {
        "model": "tiny",
        "embeddings": [[0.6, 0.8], [1, 0]],
        "total_duration": 14143917,
        "load_duration": 1019500,
        "prompt_eval_count": 8,
    }

    assert read_embed_answer(orjson.dumps(body)) == [
        Finish(
            "stop",
            Usage(8, 0),
            Timings(14143917, 1019500),
            vectors=(array("d", [0.6, 0.8]), array("d", [1.0, 0.0])),
        )
    ]


def test_an_answer_of_an_old_server_has_no_counts():
    """A count of 0 is none: no input is empty."""
    for body in (b'{"embeddings":[[1.0]]}', b'{"embeddings":[[1.0]],"prompt_eval_count":0}'):
        assert read_embed_answer(body) == [Finish("stop", None, vectors=(array("d", [1.0]),))]


@pytest.mark.parametrize(
    "body",
    [b"", b"<p>", b"[]", b"{}", b'{"embeddings":5}', b'{"embeddings":[[]]}', b'{"embeddings":[[null]]}'],
    ids=repr,
)
def test_what_is_no_answer_is_a_failure(body: bytes):
    with pytest.raises(BackendFailed):
        read_embed_answer(body)


# ── to Ollama's clients ──────────────────────────────────────────────────────────────────

PARTS: list[Event] = [
    Finish("stop", Usage(3, 0), Timings(1000, 10), vectors=(array("d", [3.0, 4.0]),)),
    Finish("stop", Usage(4, 0), Timings(2000, 20), vectors=(array("f", [0.0, 1.0]),)),
]


def written(answer: bytes) -> Any:
    return orjson.loads(answer)


def test_an_answer_is_written():
    """Every vector has length one, whatever the backend made; counts and times of all parts are added up."""
    answer = written(write_embed_answer(PARTS, STAMP, evolve(CALL, inputs=("a", "b"))))

    assert answer == {
        "model": "Tiny",
        "embeddings": [[0.6, 0.8], [0.0, 1.0]],
        "total_duration": 3000,
        "load_duration": 30,
        "prompt_eval_count": 7,
    }
    assert EmbedResponse(**answer).embeddings == [[0.6, 0.8], [0.0, 1.0]]


def test_times_are_measured_where_the_backend_says_none():
    events = [Finish("stop", Usage(3, 0), vectors=(array("d", [1.0]),))]

    answer = written(write_embed_answer(events, STAMP, CALL))

    assert (answer["total_duration"], answer["load_duration"]) == (500_000_000, 0)


def test_a_load_is_answered_without_vectors():
    """As Ollama does: no counts either."""
    call = evolve(CALL, inputs=())

    assert written(write_embed_answer([], STAMP, call)) == {"model": "Tiny", "embeddings": []}
    assert written(write_embeddings_answer([], STAMP, call)) == {"embedding": []}


def test_the_elder_answer_is_the_vector_alone():
    """As the backend made it: nobody promised a length."""
    answer = written(write_embeddings_answer(PARTS[:1], STAMP, CALL))

    assert answer == {"embedding": [3.0, 4.0]}
    assert EmbeddingsResponse(**answer).embedding == [3.0, 4.0]


def test_a_vector_that_an_old_server_did_not_shorten_is_shortened():
    call = evolve(CALL, dimensions=1)

    assert written(write_embed_answer(PARTS[:1], STAMP, call))["embeddings"] == [[1.0]]


def test_an_answer_without_all_vectors_is_none():
    with pytest.raises(BackendFailed):
        write_embed_answer(PARTS, STAMP, CALL)
