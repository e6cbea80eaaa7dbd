"""Embeddings over a real socket: official clients, a real engine and an Ollama double, and what they cost."""

import struct
from base64 import b64decode
from typing import Any

import ollama
import openai
import pytest

from tests.doubles import Double, answer, hang
from tests.gateways import Gateway

TEXTS = ["hello good world", "hello world", "number of words"]


@pytest.fixture
def openai_client(gateway: Gateway):
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0) as client:
        yield client


@pytest.fixture
def ollama_client(gateway: Gateway):
    client = ollama.Client(gateway.url, headers=gateway.headers)
    yield client
    client._client.close()


def vectors(count: int, counted: int | None = 7) -> dict[str, Any]:
    """What Ollama answers, in float32's own digits."""
    return {
        "model": "double:latest",
        "embeddings": [[0.6, 0.8, 0.0]] * count,
        "total_duration": 14143917,
        "load_duration": 1019500,
        "prompt_eval_count": counted,
    }


def test_all_surfaces_give_the_same_vectors(openai_client: Any, ollama_client: Any):
    """Base64, which the client asks for unless told otherwise, text, and Ollama's two routes."""
    packed = openai_client.embeddings.create(model="embed", input=TEXTS)
    plain = openai_client.embeddings.create(model="embed", input=TEXTS, encoding_format="float")
    native = ollama_client.embed("embed", TEXTS)
    elder = [ollama_client.embeddings("embed", text).embedding for text in TEXTS]

    expected = [item.embedding for item in plain.data]
    assert [item.index for item in packed.data] == [0, 1, 2]
    for found in ([item.embedding for item in packed.data], native.embeddings, elder):
        for vector, other in zip(found, expected, strict=True):
            # The engine's own last bits depend on what it computes together.
            assert list(vector) == pytest.approx(other, abs=1e-6)
    assert packed.usage.prompt_tokens == plain.usage.total_tokens == native.prompt_eval_count > len(TEXTS)


def test_no_bit_of_an_engines_numbers_is_lost(gateway: Gateway, double: Double):
    """float32 in Go's shortest text, to base64, and to text."""
    meant = struct.unpack("<3f", struct.pack("<3f", 0.036699954, -0.9993264, 1e-42))
    double.scripts["/api/embed"] = answer(200, {"embeddings": [[0.036699954, -0.9993264, 1e-42]]})
    body = {"model": "double", "input": "x"}

    with gateway.client() as client:
        packed = client.post("/v1/embeddings", json={**body, "encoding_format": "base64"}).json()
        plain = client.post("/v1/embeddings", json=body).json()

    assert struct.unpack("<3f", b64decode(packed["data"][0]["embedding"])) == meant
    assert plain["data"][0]["embedding"] == [0.036699954, -0.9993264, 1e-42]


def test_dimensions_are_honoured(openai_client: Any, ollama_client: Any):
    """llama.cpp ignores them; what is cut has length one again."""
    short = openai_client.embeddings.create(model="embed", input="hello", dimensions=8).data[0].embedding
    native = ollama_client.embed("embed", "hello", dimensions=8).embeddings[0]
    with pytest.raises(openai.BadRequestError) as refused:
        openai_client.embeddings.create(model="embed", input="hello", dimensions=4096)

    assert len(short) == 8
    assert sum(number * number for number in short) == pytest.approx(1)
    assert native == pytest.approx(short, abs=1e-6)
    assert refused.value.param == "dimensions"


def test_tokens_are_honoured_where_a_backend_takes_them(openai_client: Any):
    """Ollama takes none, and says so by our mouth."""
    tokens = openai_client.embeddings.create(model="embed", input=[[1, 5, 7], [1, 5]])
    with pytest.raises(openai.BadRequestError) as refused:
        openai_client.embeddings.create(model="double", input=[1, 5])

    assert (len(tokens.data), tokens.usage.prompt_tokens) == (2, 5)
    assert refused.value.param == "input"


def test_what_is_asked_reaches_ollama(gateway: Gateway, double: Double):
    double.scripts["/api/embed"] = answer(200, vectors(2))
    body = {
        "model": "double",
        "input": ["a", "b"],
        "truncate": False,
        "dimensions": 3,
        "options": {"num_ctx": 64},
    }

    with gateway.client() as client:
        native = client.post("/api/embed", json=body)
        client.post("/v1/embeddings", json={"model": "double", "input": ["a", "b"]})

    first, second = (one.json() for one in double.inference[-2:])
    assert first == {**body, "model": "double:latest"}
    assert second == {"model": "double:latest", "input": ["a", "b"], "truncate": False}
    assert native.json() == {**vectors(2), "model": "double"}
    row = gateway.row_of(native.headers["x-request-id"])
    assert (row["operation"], row["backend"], row["model"]) == ("embed", "double", "double:latest")
    assert (row["prompt_tokens"], row["completion_tokens"], row["tokens_estimated"]) == (7, 0, 0)
    assert row["load_ms"] == pytest.approx(1.0195, abs=0.001)


@pytest.mark.parametrize("kind", ["openai", "ollama"])
def test_a_large_batch_is_whole_and_in_order(gateway: Gateway, double: Double, kind: str):
    """2048 inputs, in parts; what each is, its vector tells."""
    texts = [("hello" if number % 3 else "world") for number in range(2048)]
    if kind == "ollama":
        double.scripts["/api/embed"] = answer(200, vectors(128))
    model = "embed" if kind == "openai" else "double"
    body = {"model": model, "input": texts, "encoding_format": "float"}

    with gateway.client() as client:
        data = client.post("/v1/embeddings", json=body).json()
        single = client.post("/v1/embeddings", json={**body, "input": ["hello", "world"] * 64}).json()["data"]

    assert [item["index"] for item in data["data"]] == list(range(2048))
    hello, world = single[0]["embedding"], single[1]["embedding"]
    for text, item in zip(texts, data["data"], strict=True):
        assert item["embedding"] == pytest.approx(hello if text == "hello" else world, abs=1e-6)
    assert data["usage"]["prompt_tokens"] == (16 * 7 if kind == "ollama" else 2 * 2048)


ERRORS: dict[str, tuple[dict[str, Any], int, str | None]] = {
    "no input": ({"input": []}, 400, "input"),
    "an empty text": ({"input": ""}, 400, "input"),
    "too many inputs": ({"input": ["x"] * 2049}, 400, "input"),
    "another encoding": ({"encoding_format": "hex"}, 400, "encoding_format"),
    "a model that makes words": ({"model": "greeting"}, 400, "model"),
    "an input beyond the context": ({"input": "hello " * 3000}, 400, "input"),
    "an unknown model": ({"model": "nope"}, 404, "model"),
}


@pytest.mark.parametrize(("fields", "status", "param"), ERRORS.values(), ids=ERRORS)
def test_what_cannot_be_is_told(gateway: Gateway, fields: dict[str, Any], status: int, param: str | None):
    with gateway.client() as client:
        answered = client.post("/v1/embeddings", json={"model": "embed", "input": "hello", **fields})

    assert answered.status_code == status
    assert answered.json()["error"]["param"] == param


def test_ollamas_clients_are_told_as_ollama_does(ollama_client: Any, double: Double):
    """A load has no vectors, an error is a sentence."""
    double.scripts["/api/embed"] = answer(501, {"error": "this model does not support embeddings"})
    with pytest.raises(ollama.ResponseError, match="makes no embeddings") as refused:
        ollama_client.embed("double", "x")

    assert refused.value.status_code == 400
    assert ollama_client.embed("double", "").embeddings == []
    assert ollama_client.embeddings("double", "").embedding == []


def test_a_budget_is_charged_what_the_backend_counted(gateway: Gateway, double: Double):
    """No output is reserved: what a tenant has left is enough for a prompt of that size."""
    double.scripts["/api/embed"] = answer(200, vectors(1))
    gateway.json("create-tenant", "--name", "embedders", "--total-tokens", "20", "--tpm", "1000")
    key = gateway.json("create-key", "--tenant", "embedders", "--name", "only")["key"]
    body = {"model": "double", "input": "0123456789"}

    with gateway.client() as client:
        client.headers["authorization"] = f"Bearer {key}"
        first, second, third = (client.post("/v1/embeddings", json=body) for _ in range(3))
        never = client.post("/v1/embeddings", json={**body, "input": "x" * 30})

    assert (first.status_code, second.status_code, third.status_code) == (200, 200, 429)
    assert [one.headers["x-budget-remaining-total"] for one in (first, second, third)] == ["13", "6", "6"]
    assert first.headers["x-ratelimit-limit-tokens"] == "1000"
    assert third.json()["error"]["code"] == "insufficient_quota"
    assert never.json()["error"]["code"] == "request_too_expensive"
    used = gateway.json("show-tenant", "--name", "embedders")["usage"]["total_tokens"]["tenant"]["used"]
    assert used == 14


def test_what_nobody_counted_is_charged_its_bound(gateway: Gateway, double: Double):
    double.scripts["/api/embed"] = answer(200, vectors(1, counted=None))

    with gateway.client() as client:
        answered = client.post("/api/embed", json={"model": "double", "input": "0123456789"})

    row = gateway.row_of(answered.headers["x-request-id"])
    assert row["tokens_estimated"] == 1


def test_a_client_that_leaves_stops_the_backend(gateway: Gateway, double: Double):
    """The connection to it is closed at once, whatever it computes."""
    double.scripts["/api/embed"] = hang()
    double.closed_early.clear()

    with gateway.client() as client, pytest.raises(Exception, match="timed out"):
        client.post("/api/embed", json={"model": "double", "input": "x"}, timeout=0.5)

    assert double.closed_early.wait(5)
