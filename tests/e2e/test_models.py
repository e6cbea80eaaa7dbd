"""What callers see of the models over a real socket: merged over the backends, and without their insides."""

from typing import Any

import ollama
import pytest

from tests.doubles import TAGS, Double, answer
from tests.engines import wait_until
from tests.gateways import Gateway


@pytest.fixture
def client(gateway: Gateway):
    one = ollama.Client(gateway.url, headers=gateway.headers)
    yield one
    one._client.close()


def test_a_model_of_llama_cpp_is_shown(client: Any):
    """What its own server tells of it."""
    shown = client.show("library/greeting")

    assert shown.capabilities == ["completion"]
    assert shown.modelinfo == {"general.architecture": "unknown", "unknown.context_length": 8192}
    assert shown.details.format == "gguf"


def test_a_model_of_ollama_is_shown_without_what_is_its_operators(gateway: Gateway, double: Double):
    """By what was asked in the background: no call reaches the backend."""
    asked = len(double.received)

    def context() -> Any:
        with gateway.client() as client:
            answered = client.post("/api/show", json={"model": "double"})
        assert answered.status_code == 200
        return answered.json()["model_info"].get("llama.context_length")

    assert wait_until(lambda: context() == 131_072, 15)
    assert not [one for one in double.received[asked:] if one.body and b"verbose" in one.body]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"model": "nope"}, 404),
        ({"model": "big:cloud"}, 404),
        ({}, 400),
        ({"model": 5}, 400),
        ({"model": "double", "MODEL": "other"}, 400),
    ],
    ids=str,
)
def test_what_cannot_be_shown_is_told(gateway: Gateway, body: dict[str, Any], status: int):
    with gateway.client() as client:
        answered = client.post("/api/show", json=body)

    assert answered.status_code == status
    assert isinstance(answered.json()["error"], str)
    row = gateway.row_of(answered.headers["x-request-id"])
    assert (row["operation"], row["prompt_tokens"]) == ("show", None)


def test_a_stranger_sees_nothing(gateway: Gateway):
    with gateway.client() as client:
        client.headers["authorization"] = "Bearer wrong"
        statuses = {
            client.post("/api/show", json={"model": "double"}).status_code,
            client.get("/api/ps").status_code,
        }

    assert statuses == {401}


def test_what_is_in_memory_is_listed(tmp_path, engine_greeting):
    """Of Ollama what it says, of llama.cpp what it serves; asked in the background, never for a caller."""
    loaded = {
        **TAGS["models"][0],
        "expires_at": "2099-01-01T00:00:00Z",
        "size_vram": 7,
        "context_length": 4096,
    }
    with Double() as double:
        double.scripts["/api/ps"] = answer(200, {"models": [loaded, {**loaded, "model": "other"}]})
        backends = f"words={engine_greeting.url};kind=openai,double={double.url}"
        gateway = Gateway(tmp_path, OLLAMA_BACKENDS=backends)
        gateway.make_first_key()
        try:
            gateway.start()
            asked = len(double.received)
            client = ollama.Client(gateway.url, headers=gateway.headers)
            listed = client.ps().models
            client._client.close()
            with gateway.client() as plain:
                head = plain.head("/api/ps")
            since = [one.target for one in double.received[asked:]]
        finally:
            gateway.stop()

    assert [model.model for model in listed] == ["greeting:latest", "double:latest"]
    assert (listed[1].size_vram, listed[1].context_length) == (7, 4096)
    assert str(listed[1].expires_at).startswith("2099")
    assert (head.status_code, head.content) == (200, b"")
    assert since.count("/api/ps") <= 1, "the next round in the background at most"
