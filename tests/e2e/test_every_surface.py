"""What holds on every surface: strict bodies, bounded options, no model in the cloud, no image fetched.

Nothing of what is refused reaches a backend.
"""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.doubles import Double, answer, chat_frame
from tests.gateways import Gateway

HELLO: Any = [{"role": "user", "content": "Hi"}]
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="

# Every route that has a body, with the least that it takes beside the model.
ROUTES: dict[str, dict[str, Any]] = {
    "/api/chat": {"messages": HELLO, "stream": False},
    "/api/generate": {"prompt": "Hi", "stream": False},
    "/api/embed": {"input": "Hi"},
    "/api/embeddings": {"prompt": "Hi"},
    "/api/show": {},
    "/v1/chat/completions": {"messages": HELLO},
    "/v1/completions": {"prompt": "Hi"},
    "/v1/embeddings": {"input": "Hi"},
    "/v1/responses": {"input": "Hi"},
    "/v1/messages": {"messages": HELLO, "max_tokens": 5},
    "/v1/messages/count_tokens": {"messages": HELLO},
}
ASKING = [path for path in ROUTES if path not in ("/api/show", "/v1/messages/count_tokens")]


def text(fields: dict[str, Any], more: str = "") -> bytes:
    """A body, with more put in as it is written: what no JSON writer would write."""
    return (json.dumps({"model": "double", **fields})[:-1] + more + "}").encode()


BODIES: dict[str, Callable[[dict[str, Any]], bytes]] = {
    "a name twice": lambda fields: text(fields, ',"model":"other"'),
    "a name twice, deep": lambda fields: text(fields, ',"metadata":{"a":1,"a":2}'),
    "another folding": lambda fields: text(fields, ',"MODEL":"other"'),
    "a Kelvin sign": lambda fields: text(fields, ',"\\u212aeep_alive":0'),
    "NaN": lambda fields: text(fields, ',"metadata":{"a":NaN}'),
    "a number beyond all bounds": lambda fields: text(fields, ',"seed":1e999'),
    "absurd nesting": lambda fields: text(fields, ',"metadata":' + "[" * 5000 + "]" * 5000),
    "half a surrogate": lambda fields: text(fields, ',"metadata":{"a":"\\ud800"}'),
    "a second object": lambda fields: text(fields) + b'{"model":"other"}',
    "no object": lambda fields: b"[" + text(fields) + b"]",
    "nothing": lambda fields: b"",
    "UTF-16": lambda fields: text(fields).decode().encode("utf-16"),
}


def told(answered: httpx.Response, path: str) -> str:
    """The sentence of an error, which has the shape of its surface."""
    body = answered.json()
    if path.startswith("/api/"):
        assert set(body) == {"error"}
        return str(body["error"])
    if path.startswith("/v1/messages"):
        assert set(body) == {"type", "error", "request_id"}
        assert body["type"] == "error"
        return str(body["error"]["message"])
    assert set(body["error"]) == {"message", "type", "param", "code"}
    return str(body["error"]["message"])


# /api/show has no keep_alive that a name could be taken for.
REFUSED = [(path, how) for path in ROUTES for how in BODIES if (path, how) != ("/api/show", "a Kelvin sign")]


@pytest.mark.parametrize(("path", "how"), REFUSED)
def test_a_body_that_could_be_read_in_two_ways_is_refused(
    gateway: Gateway, double: Double, path: str, how: str
):
    before = len(double.inference)

    with gateway.client() as client:
        answered = client.post(path, content=BODIES[how](ROUTES[path]))

    assert answered.status_code == 400
    assert told(answered, path)
    assert len(double.inference) == before


NAMES = (
    *("gpt-oss:120b-cloud", "double:cloud", "DOUBLE:Cloud", "registry.ollama.ai/library/double:cloud"),
    *("http://evil.example/double", "double:latest:cloud", "../double", "double\u212a", "nobody/knows:it"),
)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("path", ROUTES)
def test_a_model_that_leaves_the_machine_is_one_that_does_not_exist(
    gateway: Gateway, double: Double, path: str, name: str
):
    before = len(double.inference)

    with gateway.client() as client:
        answered = client.post(path, json=ROUTES[path] | {"model": name})

    assert answered.status_code == 404
    assert "does not exist" in told(answered, path)
    assert len(double.inference) == before


SPELLINGS = (
    "double",
    "DOUBLE",
    " double ",
    "double:latest",
    "library/double",
    "registry.ollama.ai/library/double",
)


@pytest.mark.parametrize("name", SPELLINGS)
@pytest.mark.parametrize("path", ASKING)
def test_every_spelling_of_a_model_is_sent_as_its_backend_writes_it(
    gateway: Gateway, double: Double, path: str, name: str
):
    """And told to the caller as it wrote it; /api/embeddings tells no name."""
    ready(double)

    with gateway.client() as client:
        answered = client.post(path, json=ROUTES[path] | {"model": name})

    assert answered.status_code == 200, answered.text
    assert double.inference[-1].json()["model"] == "double:latest"
    assert answered.json().get("model", name) == name


def ready(double: Double) -> None:
    double.scripts["/api/chat"] = answer(200, chat_frame("Hi", done=True))
    generated = {"response": "Hi", "done": True, "prompt_eval_count": 3, "eval_count": 1}
    double.scripts["/api/generate"] = answer(200, generated)
    double.scripts["/api/embed"] = answer(200, {"embeddings": [[1.0, 0.0]], "prompt_eval_count": 2})


LOAD_TIME = {"num_gpu": 99, "num_thread": 64, "use_mmap": False, "main_gpu": 1, "num_batch": 9}


@pytest.mark.parametrize("path", ASKING)
def test_what_would_reload_a_model_is_dropped_and_named(gateway: Gateway, double: Double, path: str):
    """Whether it stands in `options`, as Ollama's clients have it, or beside the model."""
    ready(double)
    fields: dict[str, Any] = {"options": LOAD_TIME} if path.startswith("/api/") else LOAD_TIME

    with gateway.client() as client:
        answered = client.post(path, json=ROUTES[path] | {"model": "double"} | fields)

    if path == "/v1/messages":
        # Anthropic refuses what it does not know, and so do we there.
        assert answered.status_code == 400
        assert told(answered, path)
        return
    assert answered.status_code == 200, answered.text
    assert set(answered.headers["x-gateway-dropped-options"].split(", ")) == set(LOAD_TIME)
    sent = double.inference[-1].json()
    assert not set(LOAD_TIME) & (set(sent) | set(sent.get("options", {})))


@pytest.mark.parametrize("path", ASKING)
def test_memory_and_time_are_bounded(gateway: Gateway, double: Double, path: str):
    """No model is pinned for ever, and none gets a context beyond the operator's bound."""
    ready(double)
    fields: dict[str, Any] = {"num_ctx": 10**6}
    fields = {"keep_alive": 10**9} | ({"options": fields} if path.startswith("/api/") else fields)

    with gateway.client() as client:
        answered = client.post(path, json=ROUTES[path] | {"model": "double"} | fields)

    assert answered.status_code == 200, answered.text
    sent = double.inference[-1].json()
    assert (sent["keep_alive"], sent["options"]["num_ctx"]) == (1800, 32768)
    assert set(answered.headers["x-gateway-dropped-options"].split(", ")) == {"keep_alive", "num_ctx"}


@pytest.mark.parametrize("path", ASKING)
def test_nobody_unloads_a_model(gateway: Gateway, double: Double, path: str):
    ready(double)

    with gateway.client() as client:
        answered = client.post(path, json=ROUTES[path] | {"model": "double", "keep_alive": 0})

    assert answered.status_code == 200, answered.text
    assert "keep_alive" not in double.inference[-1].json()
    assert answered.headers["x-gateway-dropped-options"] == "keep_alive"


# ── images ───────────────────────────────────────────────────────────────────────────────


def in_a_chat(url: str) -> dict[str, Any]:
    part = {"type": "image_url", "image_url": {"url": url}}
    return {"messages": [{"role": "user", "content": [part]}]}


def in_a_response(url: str) -> dict[str, Any]:
    return {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": url}]}]}


def in_a_message(url: str) -> dict[str, Any]:
    source = {"type": "url", "url": url}
    if url.startswith("data:"):
        source = {"type": "base64", "media_type": "image/png", "data": url.partition(",")[2]}
    content = [{"type": "image", "source": source}]
    return {"max_tokens": 5, "messages": [{"role": "user", "content": content}]}


def as_it_is(url: str) -> str:
    """Ollama's clients send the bytes alone."""
    return url.removeprefix("data:image/png;base64,")


def natively(url: str) -> dict[str, Any]:
    message = {"role": "user", "content": "Hi", "images": [as_it_is(url)]}
    return {"messages": [message], "stream": False}


WITH_IMAGE: dict[str, Callable[[str], dict[str, Any]]] = {
    "/v1/chat/completions": in_a_chat,
    "/v1/responses": in_a_response,
    "/v1/messages": in_a_message,
    "/v1/messages/count_tokens": lambda url: {
        name: value for name, value in in_a_message(url).items() if name != "max_tokens"
    },
    "/api/chat": natively,
    "/api/generate": lambda url: {"prompt": "Hi", "images": [as_it_is(url)], "stream": False},
}
FETCHED = (
    *("http://169.254.169.254/latest/meta-data", "https://example.com/a.png", "file:///etc/passwd"),
    *(
        "ftp://10.0.0.1/a.png",
        "//10.0.0.1/a.png",
        "/etc/passwd",
        "data:image/png,plain",
        "data:image/png;base64,%%%",
    ),
)


@pytest.mark.parametrize("url", FETCHED)
@pytest.mark.parametrize("path", WITH_IMAGE)
def test_no_image_is_fetched(gateway: Gateway, double: Double, path: str, url: str):
    """llama.cpp would read the file; vLLM would ask whoever is on its network."""
    before = len(double.inference)

    with gateway.client() as client:
        answered = client.post(path, json={"model": "double", **WITH_IMAGE[path](url)})

    assert answered.status_code == 400
    assert told(answered, path)
    assert len(double.inference) == before


@pytest.mark.parametrize("path", WITH_IMAGE)
def test_an_image_by_value_arrives(gateway: Gateway, double: Double, path: str):
    """As Ollama takes it: the bytes alone."""
    ready(double)

    with gateway.client() as client:
        answered = client.post(
            path, json={"model": "double", **WITH_IMAGE[path](f"data:image/png;base64,{PNG}")}
        )

    assert answered.status_code == 200, answered.text
    if path == "/v1/messages/count_tokens":
        assert answered.headers["x-gateway-estimated"] == "input_tokens"
        return
    sent = double.inference[-1].json()
    assert (sent["images"] if path == "/api/generate" else sent["messages"][0]["images"]) == [PNG]


@pytest.mark.parametrize("path", WITH_IMAGE)
def test_images_are_bounded_by_number(gateway: Gateway, double: Double, path: str):
    before = len(double.inference)
    body = json.dumps({"model": "double", **WITH_IMAGE[path](f"data:image/png;base64,{PNG}")})
    image = body[body.rindex("[", 0, body.index(PNG)) + 1 : body.index("]", body.index(PNG))]

    with gateway.client() as client:
        answered = client.post(path, content=body.replace(image, ",".join([image] * 65)))

    assert answered.status_code == 400
    assert "64 images" in told(answered, path)
    assert len(double.inference) == before


# ── HEAD ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", ["/", "/api/version", "/api/tags", "/api/ps"])
def test_head_is_get_without_its_body_where_ollama_has_it(gateway: Gateway, path: str):
    """Ollama's command line asks `HEAD /` before anything else."""
    with gateway.client() as client:
        got, head = client.get(path), client.head(path)

    assert (head.status_code, head.content) == (200, b"")
    for name in ("content-type", "content-length"):
        assert head.headers[name] == got.headers[name]


@pytest.mark.parametrize("path", ["/v1/models", "/api/chat", "/v1/messages"])
def test_head_is_no_method_elsewhere(gateway: Gateway, path: str):
    with gateway.client() as client:
        answered = client.head(path)

    assert answered.status_code == 405
    assert answered.headers["allow"] in ("GET", "POST")
