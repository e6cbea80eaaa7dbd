"""Allow-lists over a real socket: what a key may not use does not exist for it, on any surface."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from gateway.demo.engine import Engine
from tests.doubles import SHOWN, TAGS, Double, answer, chat_stream
from tests.engines import wait_until
from tests.gateways import Gateway

MESSAGES = [{"role": "user", "content": "Hi"}]
ASKING: dict[str, dict[str, Any]] = {
    "/api/chat": {"messages": MESSAGES},
    "/api/generate": {"prompt": "Hi"},
    "/api/embed": {"input": "Hi"},
    "/api/embeddings": {"prompt": "Hi"},
    "/api/show": {},
    "/v1/chat/completions": {"messages": MESSAGES},
    "/v1/completions": {"prompt": "Hi"},
    "/v1/embeddings": {"input": "Hi"},
    "/v1/responses": {"input": "Hi"},
    "/v1/messages": {"messages": MESSAGES, "max_tokens": 5},
    "/v1/messages/count_tokens": {"messages": MESSAGES},
}
CLOUD = {**TAGS["models"][0], "name": "big:cloud", "model": "big:cloud", "remote_model": "big"}


@pytest.fixture(scope="module")
def cloud() -> Iterator[Double]:
    """An Ollama with a model of its own, and one that another machine answers for. Both are loaded."""
    models = answer(200, {"models": [TAGS["models"][0], CLOUD]})
    loaded = {"expires_at": "2099-01-01T00:00:00Z"}
    with Double() as one:
        one.scripts["/api/tags"] = models
        one.scripts["/api/show"] = answer(200, SHOWN)
        one.scripts["/api/ps"] = answer(200, {"models": [TAGS["models"][0] | loaded, CLOUD | loaded]})
        one.scripts["/api/chat"] = chat_stream()
        yield one


@pytest.fixture(scope="module")
def gateway(
    tmp_path_factory: pytest.TempPathFactory, engine_greeting: Engine, cloud: Double
) -> Iterator[Gateway]:
    """The greeting of a real engine, and the two models of the double; its key may use the greeting only."""
    backends = f"words={engine_greeting.url};kind=openai,double={cloud.url}"
    one = Gateway(tmp_path_factory.mktemp("allowing"), OLLAMA_BACKENDS=backends)
    one.make_first_key()
    one.json("allow-models", "--tenant", "acme", "--models", "greet*,double,big*")
    one.json("allow-models", "--prefix", one.key[:11], "--models", "GREETING")
    try:
        yield one.start()
    finally:
        one.stop()


@pytest.fixture
def client(gateway: Gateway) -> Iterator[httpx.Client]:
    with gateway.client() as one:
        yield one


def listed(client: httpx.Client) -> dict[str, set[str]]:
    """What each list has."""
    return {
        "tags": {model["name"] for model in client.get("/api/tags").json()["models"]},
        "ps": {model["name"] for model in client.get("/api/ps").json()["models"]},
        "models": {model["id"] for model in client.get("/v1/models").json()["data"]},
    }


@pytest.mark.parametrize("path", ASKING)
def test_a_forbidden_model_looks_like_one_that_does_not_exist(client: httpx.Client, path: str):
    """The same status and the same body, but for the name."""

    def refusal(model: str) -> tuple[int, str]:
        answered = client.post(path, json={"model": model, **ASKING[path]})
        body = answered.text.replace(answered.headers["x-request-id"], "ID")
        return answered.status_code, body.replace(model, "MODEL")

    assert refusal("double") == refusal("nobody")
    assert refusal("library/double:latest") == refusal("nobody")
    assert refusal("double")[0] == 404


@pytest.mark.parametrize("name", ["double", "big:cloud"])
def test_a_forbidden_model_is_not_described_either(client: httpx.Client, name: str):
    unknown, forbidden = client.get("/v1/models/nobody"), client.get(f"/v1/models/{name}")

    assert (forbidden.status_code, unknown.status_code) == (404, 404)
    assert forbidden.text.replace(name, "") == unknown.text.replace("nobody", "")


@pytest.mark.parametrize("name", ["greeting", "GREETING:latest", "library/greeting"])
def test_an_allowed_model_serves_under_all_its_names(client: httpx.Client, name: str):
    answered = client.post("/v1/chat/completions", json={"model": name, "messages": MESSAGES})

    assert answered.status_code == 200
    assert answered.json()["choices"][0]["message"]["content"]
    assert client.get(f"/v1/models/{name}").status_code == 200


def test_lists_show_only_what_the_key_may_use(client: httpx.Client):
    assert listed(client) == {
        "tags": {"greeting:latest"},
        "ps": {"greeting:latest"},
        "models": {"greeting"},
    }


def test_a_change_is_seen_by_a_running_gateway(gateway: Gateway):
    """Of the key, and of its tenant; within a second or so, and without a restart."""
    made = gateway.json("create-key", "--tenant", "acme", "--name", "changing", "--models", "greeting")
    with httpx.Client(
        base_url=gateway.url, headers={"Authorization": f"Bearer {made['key']}"}, trust_env=False, timeout=30
    ) as client:
        assert listed(client)["models"] == {"greeting"}

        gateway.json("allow-models", "--prefix", made["prefix"], "--models", "none")

        assert wait_until(lambda: listed(client)["models"] == {"greeting", "double:latest"}, 30)
        asked = client.post("/api/chat", json={"model": "double", "messages": MESSAGES})
        assert asked.status_code == 200


def test_a_model_of_the_cloud_is_there_for_who_was_opted_in(gateway: Gateway, cloud: Double):
    """And until then nothing of it: no name, no call, and no question about it in the background."""
    gateway.json("create-tenant", "--name", "curious")
    key = gateway.json("create-key", "--tenant", "curious", "--name", "a")["key"]
    asked = len(cloud.received)
    with httpx.Client(
        base_url=gateway.url, headers={"Authorization": f"Bearer {key}"}, trust_env=False, timeout=30
    ) as client:

        def asking() -> Any:
            return client.post(
                "/api/chat", json={"model": "big:cloud", "messages": MESSAGES, "stream": False}
            )

        assert asking().status_code == 404
        assert "big:cloud" not in set().union(*listed(client).values())
        assert not [one for one in cloud.received[asked:] if b"big" in one.body]

        gateway.json("allow-models", "--tenant", "curious", "--allow-cloud")

        assert wait_until(lambda: "big:cloud" in listed(client)["tags"], 30)
        assert "big:cloud" in listed(client)["ps"]
        asking()
        assert [one.json()["model"] for one in cloud.received if one.target == "/api/chat"][-1] == "big:cloud"

        gateway.json("allow-models", "--tenant", "curious", "--no-cloud")

        assert wait_until(lambda: asking().status_code == 404, 30)
    assert not [one for one in cloud.received if one.target == "/api/show" and b"big" in one.body]


def test_a_keys_caps_bound_what_is_sent(gateway: Gateway, cloud: Double):
    """The context that a model is loaded with, and the output."""
    caps = ("--max-num-ctx", "1024", "--max-output-tokens", "77")
    key = gateway.json("create-key", "--tenant", "acme", "--name", "capped", *caps)["key"]
    body = {"model": "double", "messages": MESSAGES, "options": {"num_ctx": 4096, "num_predict": 500}}
    with httpx.Client(
        base_url=gateway.url, headers={"Authorization": f"Bearer {key}"}, trust_env=False, timeout=30
    ) as client:
        answered = client.post("/api/chat", json=body)

    assert answered.status_code == 200
    assert answered.headers["x-gateway-dropped-options"] == "num_ctx"
    sent = [one for one in cloud.received if one.target == "/api/chat"][-1].json()["options"]
    assert (sent["num_ctx"], sent["num_predict"]) == (1024, 77)
