"""gateway.formats.openai.embeddings: /v1/embeddings, both ways."""

import base64
import struct
from array import array
from typing import Any

import orjson
import pytest
from attrs import evolve
from openai.types import CreateEmbeddingResponse

from gateway.errors import BackendFailed, InvalidRequest, UnsupportedField
from gateway.formats.chat import AnswerStamp, EmbedCall, Event, Finish, Sampling, UpstreamRequest
from gateway.formats.openai.embeddings import (
    MAX_INPUTS,
    UNSUPPORTED,
    read_embeddings,
    read_embeddings_answer,
    write_embeddings,
    write_embeddings_answer,
)
from gateway.formats.openai.other_fields import HARMLESS
from gateway.model import JsonObject, Usage
from tests.formats.recordings import of_llama_cpp

CALL = EmbedCall("tiny", ("Hi",))
STAMP = AnswerStamp("r1", 'my "tiny"', 100.0, lambda: 100.5)
HALF = base64.b64encode(struct.pack("<2f", 0.5, -0.5)).decode()

# ── from callers ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("fields", "call"),
    [
        pytest.param({}, CALL, id="a text"),
        pytest.param({"input": ["Hi", "Ho"]}, evolve(CALL, inputs=("Hi", "Ho")), id="texts"),
        pytest.param({"input": [1, 2, 0]}, evolve(CALL, inputs=((1, 2, 0),)), id="tokens of one input"),
        pytest.param({"input": [[1, 2], [3]]}, evolve(CALL, inputs=((1, 2), (3,))), id="tokens of two"),
        pytest.param({"input": ["Hi", [3]]}, evolve(CALL, inputs=("Hi", (3,))), id="a text and tokens"),
        pytest.param({"encoding_format": "float"}, CALL, id="float"),
        pytest.param({"encoding_format": "base64"}, evolve(CALL, base64=True), id="base64"),
        pytest.param({"encoding_format": "BASE64"}, evolve(CALL, base64=True), id="base64 in any case"),
        pytest.param({"dimensions": 256}, evolve(CALL, dimensions=256), id="dimensions"),
        pytest.param({"user": "u", "options": {}}, CALL, id="what changes nothing"),
        pytest.param(
            {"keep_alive": "5m", "num_ctx": 512, "truncate": True},
            evolve(CALL, keep_alive=300, sampling=Sampling(num_ctx=512), truncate=True),
            id="Ollama's",
        ),
        pytest.param({"priority": 1}, evolve(CALL, dropped=("priority",)), id="an unknown field"),
    ],
)
def test_a_call_is_read(fields: JsonObject, call: EmbedCall):
    assert read_embeddings({"model": "tiny", "input": "Hi", **fields}) == call


@pytest.mark.parametrize("name", sorted(HARMLESS))
def test_harmless_fields_are_ignored(name: str):
    assert read_embeddings({"model": "tiny", "input": "Hi", name: {"any": "thing"}}) == CALL


@pytest.mark.parametrize("name", sorted(UNSUPPORTED))
def test_fields_that_change_the_vectors_are_refused(name: str):
    with pytest.raises(UnsupportedField) as refused:
        read_embeddings({"model": "tiny", "input": "Hi", name: {"any": "thing"}})

    assert refused.value.param == name


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        pytest.param({"model": None}, "model", id="no model"),
        pytest.param({"input": None}, "input", id="no input"),
        pytest.param({"input": ""}, "input", id="an empty text"),
        pytest.param({"input": []}, "input", id="no texts"),
        pytest.param({"input": ["Hi", ""]}, "input", id="an empty text among others"),
        pytest.param({"input": [[1], []]}, "input", id="no tokens"),
        pytest.param({"input": ["Hi", 1]}, "input", id="a token among texts"),
        pytest.param({"input": [1, -1]}, "input", id="a token below 0"),
        pytest.param({"input": [1, 2**31]}, "input", id="a token that no vocabulary has"),
        pytest.param({"input": [1, True]}, "input", id="true is no token"),
        pytest.param({"input": [1, 1.0]}, "input", id="a broken token"),
        pytest.param({"input": {"text": "Hi"}}, "input", id="an object"),
        pytest.param({"input": ["x"] * (MAX_INPUTS + 1)}, "input", id="too many texts"),
        pytest.param({"encoding_format": "hex"}, "encoding_format", id="another encoding"),
        pytest.param({"dimensions": 0}, "dimensions", id="no dimensions"),
        pytest.param({"INPUT": "Ho"}, "INPUT", id="a look-alike"),
    ],
)
def test_a_call_that_cannot_be_is_refused(fields: JsonObject, param: str):
    with pytest.raises(InvalidRequest) as refused:
        read_embeddings({"model": "tiny", "input": "Hi", **fields})

    assert refused.value.param == param


def test_the_tokens_of_one_input_are_no_number_of_inputs():
    assert len(read_embeddings({"model": "tiny", "input": [7] * (MAX_INPUTS + 1)}).inputs) == 1


# ── to backends ──────────────────────────────────────────────────────────────────────────


def test_a_call_is_written():
    """Neither dimensions nor what is Ollama's alone; base64, whatever the caller wants."""
    call = EmbedCall("tiny", ("Hi", (1, 2)), 8, sampling=Sampling(num_ctx=512, max_tokens=0), keep_alive=60)

    assert write_embeddings(call, "org/tiny") == UpstreamRequest(
        "/v1/embeddings",
        {"model": "org/tiny", "input": ["Hi", (1, 2)], "encoding_format": "base64"},
    )


@pytest.mark.parametrize(
    ("name", "inputs", "tokens"), [("embeddings", 2, 6), ("embeddings_base64", 1, 3)], ids=["float", "base64"]
)
def test_answers_of_llama_cpp_are_read(name: str, inputs: int, tokens: int):
    """The same text has the same numbers in both encodings, as far as an engine gives the same ones twice."""
    (finish,) = read_embeddings_answer(of_llama_cpp(name))
    (other,) = read_embeddings_answer(of_llama_cpp("embeddings"))

    assert isinstance(finish, Finish)
    assert isinstance(other, Finish)
    assert (len(finish.vectors), finish.usage) == (inputs, Usage(tokens, 0))
    assert finish.vectors[0].tolist() == pytest.approx(other.vectors[0].tolist(), abs=1e-6)


def test_vectors_are_put_in_their_order():
    """Servers may answer in any; those that do not number keep theirs."""
    data = [{"index": 1, "embedding": [1.0]}, {"index": 0, "embedding": HALF}]
    plain = [{"embedding": [1.0]}, {"embedding": [2.0]}]

    (numbered,) = read_embeddings_answer(orjson.dumps({"data": data, "usage": None}))
    (unnumbered,) = read_embeddings_answer(orjson.dumps({"data": plain}))

    assert numbered == Finish("stop", None, vectors=(array("f", [0.5, -0.5]), array("d", [1.0])))
    assert unnumbered == Finish("stop", None, vectors=(array("d", [1.0]), array("d", [2.0])))


@pytest.mark.parametrize(
    "body",
    [
        b"", b"<p>", b"[]", b"{}", b'{"data":5}', b'{"data":[5]}', b'{"data":[{}]}',
        b'{"data":[{"embedding":[]}]}',
        b'{"data":[{"embedding":"AAA"}]}', b'{"data":[{"embedding":[1]}],"usage":[5]}',
        b'{"data":[{"embedding":[1],"index":0},{"embedding":[1],"index":null}]}',
    ],
    ids=repr,
)  # fmt: skip
def test_what_is_no_answer_is_a_failure(body: bytes):
    with pytest.raises(BackendFailed):
        read_embeddings_answer(body)


# ── to callers ───────────────────────────────────────────────────────────────────────────

PARTS: list[Event] = [
    Finish("stop", Usage(3, 0), vectors=(array("d", [0.1, 0.2]),)),
    Finish("stop", Usage(4, 0), vectors=(array("f", [0.5, -0.5]),)),
]
TWO = evolve(CALL, inputs=("a", "b"))


def written(call: EmbedCall, events: list[Event] = PARTS) -> Any:
    answer = orjson.loads(write_embeddings_answer(events, STAMP, call))
    # The official model knows only lists of numbers; its client decodes base64 itself.
    if not call.base64:
        CreateEmbeddingResponse.model_validate(answer, strict=True)
    return answer


def test_an_answer_is_written():
    """One item for each input, numbered, with the count of all parts."""
    assert written(TWO) == {
        "object": "list",
        "data": [
            {"object": "embedding", "index": 0, "embedding": [0.1, 0.2]},
            {"object": "embedding", "index": 1, "embedding": [0.5, -0.5]},
        ],
        "model": 'my "tiny"',
        "usage": {"prompt_tokens": 7, "total_tokens": 7},
    }


def test_base64_is_little_endian_float32():
    answer = written(evolve(TWO, base64=True))

    assert answer["data"][1]["embedding"] == HALF
    assert struct.unpack("<2f", base64.b64decode(answer["data"][0]["embedding"])) == pytest.approx((0.1, 0.2))


def test_dimensions_are_cut():
    assert [item["embedding"] for item in written(evolve(TWO, dimensions=1))["data"]] == [[1.0], [1.0]]


def test_more_dimensions_than_there_are_are_refused():
    """Fewer numbers than asked would fit no index."""
    with pytest.raises(InvalidRequest, match="at most 2") as refused:
        written(evolve(TWO, dimensions=3))

    assert refused.value.param == "dimensions"


def test_an_answer_without_all_vectors_is_none():
    with pytest.raises(BackendFailed):
        written(TWO, PARTS[:1])
