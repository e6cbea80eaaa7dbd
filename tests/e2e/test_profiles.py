"""Profiles over a real socket: a public name on every surface, of Ollama's kind and of a real engine."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from gateway.demo.engine import Engine
from tests.doubles import SHOWN, TAGS, Double, answer, chat_stream
from tests.engines import wait_until
from tests.gateways import Gateway

MESSAGES = [{"role": "user", "content": "Hello!"}]


@pytest.fixture(scope="module")
def ollama() -> Iterator[Double]:
    loaded = {**TAGS["models"][0], "expires_at": "2099-01-01T00:00:00Z"}
    with Double() as one:
        one.scripts["/api/show"] = answer(200, SHOWN)
        one.scripts["/api/ps"] = answer(200, {"models": [loaded]})
        one.scripts["/api/chat"] = chat_stream()
        one.scripts["/api/embed"] = answer(200, {"embeddings": [[1.0, 0.0]], "prompt_eval_count": 1})
        yield one


@pytest.fixture(scope="module")
def gateway(
    tmp_path_factory: pytest.TempPathFactory, engine_greeting: Engine, engine_embed: Engine, ollama: Double
) -> Iterator[Gateway]:
    """Three profiles: of the real engines' models, and of the double's."""
    backends = (
        f"words={engine_greeting.url};kind=openai,vectors={engine_embed.url};kind=openai,double={ollama.url}"
    )
    one = Gateway(tmp_path_factory.mktemp("profiles"), OLLAMA_BACKENDS=backends)
    one.make_first_key()
    one.json("set-model", "--name", "Brief", "--model", "greeting", "--option", "num_predict=2")
    one.json(
        *("set-model", "--name", "double-32k", "--model", "double", "--option", "num_ctx=65536"),
        *("--option", "temperature=0", "--default", "top_p=0.5", "--max-output-tokens", "70"),
        *("--keep-alive", "24h"),
    )
    embedding = one.command("list-backends").stdout
    assert "vectors" in embedding
    try:
        yield one.start()
    finally:
        one.stop()


@pytest.fixture
def client(gateway: Gateway) -> Iterator[httpx.Client]:
    with gateway.client() as one:
        yield one


SURFACES: dict[str, dict[str, Any]] = {
    "/api/chat": {"messages": MESSAGES, "stream": False},
    "/api/generate": {"prompt": "Hello!", "stream": False},
    "/v1/chat/completions": {"messages": MESSAGES},
    "/v1/completions": {"prompt": "Hello!"},
    "/v1/responses": {"input": "Hello!"},
    "/v1/messages": {"messages": MESSAGES, "max_tokens": 50},
}


def output_tokens(answered: dict[str, Any]) -> int:
    usage = answered.get("usage", {})
    counts = answered.get("eval_count"), usage.get("completion_tokens"), usage.get("output_tokens")
    return next(int(count) for count in counts if count is not None)


@pytest.mark.parametrize("path", SURFACES)
def test_a_real_engine_serves_a_public_name_on_every_surface(client: httpx.Client, path: str):
    """It is the model that the answer names; what it fixes holds, whatever was asked."""
    answered = client.post(path, json={"model": "brief", **SURFACES[path]})

    assert answered.status_code == 200, answered.text
    assert answered.json()["model"] == "brief"
    assert output_tokens(answered.json()) == 2


def test_a_stream_names_the_public_name(client: httpx.Client):
    body = {"model": "brief", "messages": MESSAGES, "stream": True}
    with client.stream("POST", "/api/chat", json=body) as answered:
        lines = list(answered.iter_lines())

    assert all('"model":"brief"' in line.replace(" ", "") for line in lines if line)


def test_ollama_is_sent_its_own_name_and_the_profiles_options(client: httpx.Client, ollama: Double):
    """Fixed ones over the caller's, which is told; the caller's over what is preset; and no bound."""
    asked = {"temperature": 1, "num_predict": 500, "num_ctx": 1024, "top_p": 0.9}
    answered = client.post("/api/chat", json={"model": "double-32k", "messages": MESSAGES, "options": asked})

    assert answered.status_code == 200
    assert answered.headers["x-gateway-dropped-options"] == "temperature, num_ctx"
    sent = [one for one in ollama.received if one.target == "/api/chat"][-1].json()
    assert sent["model"] == "double:latest"
    assert sent["keep_alive"] == 86_400
    options = sent["options"]
    assert (options["temperature"], options["num_ctx"], options["top_p"]) == (0, 65_536, 0.9)
    assert options["num_predict"] == 70, "its bound on the output"


@pytest.mark.parametrize("path", ["/api/embed", "/v1/embeddings"])
def test_embeddings_have_public_names(client: httpx.Client, ollama: Double, path: str):
    answered = client.post(path, json={"model": "double-32k", "input": "a"})

    assert answered.status_code == 200, answered.text
    assert answered.json()["model"] == "double-32k"
    sent = [one for one in ollama.received if one.target == "/api/embed"][-1].json()
    assert (sent["model"], sent["options"]["num_ctx"]) == ("double:latest", 65_536)


def test_tokens_are_counted_under_a_public_name(client: httpx.Client):
    counted = client.post("/v1/messages/count_tokens", json={"model": "brief", "messages": MESSAGES})

    assert counted.json()["input_tokens"] > 0


def test_a_public_name_is_listed_and_described(client: httpx.Client):
    """Beside the model that it stands for."""
    tags = {model["name"] for model in client.get("/api/tags").json()["models"]}
    models = {model["id"] for model in client.get("/v1/models").json()["data"]}
    loaded = {model["name"] for model in client.get("/api/ps").json()["models"]}
    shown = client.post("/api/show", json={"model": "double-32k"})

    assert {"Brief:latest", "double-32k:latest", "double:latest"} <= tags
    assert {"Brief", "double-32k", "double:latest"} <= models
    assert {"Brief:latest", "double-32k:latest", "double:latest"} <= loaded
    assert client.get("/v1/models/double-32k").json()["id"] == "double-32k"
    assert "num_ctx 65536" in shown.json()["parameters"]
    assert client.post("/api/show", json={"model": "brief"}).status_code == 200


def test_the_audit_names_the_public_name(gateway: Gateway, client: httpx.Client):
    answered = client.post("/v1/chat/completions", json={"model": "Brief", "messages": MESSAGES})

    assert gateway.row_of(answered.headers["x-request-id"])["model"] == "brief:latest"


def test_a_key_may_have_the_public_name_alone(gateway: Gateway):
    """Then the model itself is not there for it."""
    key = gateway.json("create-key", "--tenant", "acme", "--name", "public", "--models", "brief")["key"]
    with httpx.Client(
        base_url=gateway.url, headers={"Authorization": f"Bearer {key}"}, trust_env=False, timeout=30
    ) as client:
        ids = {model["id"] for model in client.get("/v1/models").json()["data"]}
        statuses = {
            name: client.post("/v1/chat/completions", json={"model": name, "messages": MESSAGES}).status_code
            for name in ("brief", "greeting", "double-32k")
        }

    assert ids == {"Brief"}
    assert statuses == {"brief": 200, "greeting": 404, "double-32k": 404}


def test_a_running_gateway_learns_and_forgets_public_names(gateway: Gateway, client: httpx.Client):
    """Without a restart."""

    def status() -> int:
        body = {"model": "passing", "messages": MESSAGES}
        return client.post("/v1/chat/completions", json=body).status_code

    assert status() == 404

    gateway.json("set-model", "--name", "passing", "--model", "greeting", "--option", "num_predict=2")
    assert wait_until(lambda: status() == 200, 30)

    gateway.json("remove-model", "--name", "passing")
    assert wait_until(lambda: status() == 404, 30)
