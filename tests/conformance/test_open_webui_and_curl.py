"""Callers that are no library: Open WebUI and curl, as they put their requests.

Open WebUI's are after its `routers/ollama.py`, `routers/openai.py` and `utils/payload.py`: aiohttp, what its
chat page can set, what it reads of each answer. curl's heads are those of curl 8.
"""

import json
import socket
from datetime import datetime
from typing import Any

import aiohttp
import httpx
import pytest

from gateway.demo.scripts import GREETING
from tests.conformance.stage import MODELS, Stage

EACH_BACKEND = pytest.mark.parametrize("backend", MODELS)

HELLO: Any = [{"role": "user", "content": "Hello!"}]
# With ENABLE_FORWARD_USER_INFO_HEADERS.
WHO = {
    "X-OpenWebUI-User-Name": "Ada%20Lovelace",
    "X-OpenWebUI-User-Id": "e7f6c2e0",
    "X-OpenWebUI-User-Email": "ada@example.com",
    "X-OpenWebUI-User-Role": "user",
    "X-OpenWebUI-Chat-Id": "7a1f",
}
# All "advanced parameters" of its page, under the names that it gives them for Ollama; some are long gone.
ADVANCED: dict[str, Any] = {
    "temperature": 0.8,
    "top_p": 0.9,
    "top_k": 40,
    "min_p": 0.0,
    "seed": 7,
    "stop": ["<end>"],
    "num_predict": 128,
    "num_ctx": 2048,
    "num_batch": 512,
    "num_keep": 24,
    "repeat_last_n": 64,
    "repeat_penalty": 1.1,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "mirostat": 0,
    "mirostat_eta": 0.1,
    "mirostat_tau": 5.0,
    "tfs_z": 1.0,
    "use_mmap": True,
    "use_mlock": True,
    "num_thread": 2,
    "num_gpu": 0,
}


class OpenWebUI:
    """Its server: one session for each request."""

    def __init__(self, stage: Stage) -> None:
        self._url = stage.gateway.url
        self._headers = {"Content-Type": "application/json", **stage.gateway.headers, **WHO}

    async def get(self, path: str) -> Any:
        async with (
            aiohttp.ClientSession() as session,
            session.get(self._url + path, headers=self._headers) as answered,
        ):
            assert answered.status == 200, await answered.text()
            return await answered.json()

    async def post(self, path: str, payload: Any) -> Any:
        async with (
            aiohttp.ClientSession() as session,
            session.post(self._url + path, data=json.dumps(payload), headers=self._headers) as answered,
        ):
            assert answered.status == 200, await answered.text()
            return await answered.json()

    async def lines(self, path: str, payload: Any) -> list[str]:
        async with (
            aiohttp.ClientSession() as session,
            session.post(self._url + path, data=json.dumps(payload), headers=self._headers) as answered,
        ):
            assert answered.status == 200, await answered.text()
            return [line.decode().strip() async for line in answered.content if line.strip()]


@pytest.fixture
def open_webui(stage: Stage) -> OpenWebUI:
    return OpenWebUI(stage)


# ── Open WebUI, with the gateway as a connection to Ollama ───────────────────────────────


@EACH_BACKEND
async def test_it_finds_the_models(open_webui: OpenWebUI, backend: str):
    """It asks for the version to try the connection, and reads when a loaded model will go."""
    version = (await open_webui.get("/api/version"))["version"]
    listed = (await open_webui.get("/api/tags"))["models"]
    loaded = (await open_webui.get("/api/ps"))["models"]

    assert [int(part) for part in version.split(".")] > [0, 6, 4]
    assert f"{MODELS[backend]['chat']}:latest" in {model["model"] for model in listed}
    assert {model["name"] for model in loaded} <= {model["name"] for model in listed}
    assert all(
        datetime.fromisoformat(model["expires_at"]).tzinfo for model in loaded if "expires_at" in model
    )


@EACH_BACKEND
@pytest.mark.parametrize(
    "parameters",
    [
        pytest.param({"options": ADVANCED, "keep_alive": "10m"}, id="as it sends them today"),
        pytest.param(ADVANCED, id="at the top, as it once sent them"),
    ],
)
async def test_it_chats(open_webui: OpenWebUI, backend: str, parameters: Any):
    payload = {"model": f"{MODELS[backend]['chat']}:latest", "messages": HELLO, "stream": True, **parameters}

    frames = [json.loads(line) for line in await open_webui.lines("/api/chat", payload)]

    assert "".join(frame["message"]["content"] for frame in frames) == GREETING.answer
    assert frames[-1]["done"]
    assert {"total_duration", "prompt_eval_count", "eval_count"} <= set(frames[-1])


@EACH_BACKEND
async def test_it_makes_a_title(open_webui: OpenWebUI, backend: str):
    """Beside the chat, and not streamed."""
    payload = {
        "model": f"{MODELS[backend]['chat']}:latest",
        "messages": [{"role": "user", "content": "### Task:\nGenerate a concise title ..."}],
        "stream": False,
        "options": {"num_predict": 1000},
    }

    assert (await open_webui.post("/api/chat", payload))["message"]["content"] == GREETING.answer


@EACH_BACKEND
async def test_it_embeds_documents(stage: Stage, open_webui: OpenWebUI, backend: str):
    payload = {"model": MODELS[backend]["embedding"], "input": ["hello", "world"], "truncate": True}

    assert len((await open_webui.post("/api/embed", payload))["embeddings"]) == 2


async def test_it_is_told_of_an_error_in_a_sentence(stage: Stage):
    """It shows `error` as it is."""
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            f"{stage.gateway.url}/api/chat",
            data=json.dumps({"model": "nope:latest", "messages": HELLO}),
            headers=stage.gateway.headers,
        ) as answered,
    ):
        told = await answered.json()

    assert answered.status == 404
    assert "nope" in told["error"]


# ── Open WebUI, with the gateway as a connection to OpenAI ───────────────────────────────


@EACH_BACKEND
async def test_it_chats_as_with_openai(open_webui: OpenWebUI, backend: str):
    """It always wants the usage of a stream, and marks the last message for a cache that others have."""
    model = MODELS[backend]["chat"]
    marked = [{"type": "text", "text": "Hello!", "cache_control": {"type": "ephemeral"}}]
    payload = {
        "model": model,
        "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": marked}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.8,
        "max_tokens": 128,
        "seed": 7,
        "stop": ["<end>"],
        "reasoning": {"effort": "low"},
        "user": {"name": "Ada", "id": "e7f6c2e0", "email": "ada@example.com", "role": "user"},
    }

    models = (await open_webui.get("/v1/models"))["data"]
    lines = await open_webui.lines("/v1/chat/completions", payload)

    assert {model, f"{model}:latest"} & {one["id"] for one in models}
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    assert lines[-1] == "data: [DONE]"
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]
    assert "".join(delta.get("content") or "" for delta in deltas) == GREETING.answer
    assert chunks[-1]["usage"]["total_tokens"] > 0


# ── curl ─────────────────────────────────────────────────────────────────────────────────


def curled(stage: Stage, path: str, body: bytes, *fields: str) -> socket.socket:
    """A connection with the head that curl sends for `-H 'Authorization: …' -d @body`, and `fields`."""
    address = httpx.URL(stage.gateway.url)
    connection = socket.create_connection((address.host, address.port), 30)
    head = [
        f"POST {path} HTTP/1.1",
        f"Host: {address.netloc.decode()}",
        "User-Agent: curl/8.5.0",
        "Accept: */*",
        f"Authorization: Bearer {stage.gateway.key}",
        f"Content-Length: {len(body)}",
        *fields,
    ]
    connection.sendall("\r\n".join([*head, "", ""]).encode())
    return connection


FORM = "Content-Type: application/x-www-form-urlencoded"  # which `-d` says unless told otherwise
ASKS: dict[str, tuple[str, Any]] = {
    "/v1/chat/completions": ("stream", {"messages": HELLO}),
    "/v1/messages": ("stream", {"messages": HELLO, "max_tokens": 500}),
    "/api/chat": ("", {"messages": HELLO}),
    "/api/generate": ("", {"prompt": "Hello!"}),
}


@pytest.mark.parametrize("path", ASKS)
def test_what_curl_posts_is_streamed_back(stage: Stage, path: str):
    flag, asks = ASKS[path]
    body = json.dumps({"model": "greeting", **asks, **({flag: True} if flag else {})}).encode()

    with curled(stage, path, body, FORM, "Connection: close") as connection:
        connection.sendall(body)
        answered = b"".join(iter(lambda: connection.recv(65536), b""))

    assert answered.startswith(b"HTTP/1.1 200 ")
    assert b"friendly" in answered
    assert answered.endswith(b"\r\n0\r\n\r\n")


def test_curl_waits_before_it_sends_much(stage: Stage):
    """From a mebibyte on it asks first, and sends when it is told to go on."""
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * (1 << 20)}}
    body = json.dumps({"model": "greeting", "messages": [{"role": "user", "content": [image]}]}).encode()

    with curled(stage, "/v1/chat/completions", body, FORM, "Expect: 100-continue") as connection:
        told = connection.recv(65536)
        connection.sendall(body)
        answered = connection.recv(65536)

    assert told == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert answered.startswith(b"HTTP/1.1 400 "), "that is no image"


def test_curl_that_would_rather_speak_http2_is_answered_in_http1(stage: Stage):
    """`curl --http2` offers to upgrade a plain connection; nobody here takes that up."""
    body = json.dumps({"model": "greeting", "messages": HELLO}).encode()
    offer = (
        "Connection: Upgrade, HTTP2-Settings",
        "Upgrade: h2c",
        "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA",
    )

    with curled(stage, "/v1/chat/completions", body, FORM, *offer) as connection:
        connection.sendall(body)
        answered = connection.recv(65536)

    assert answered.startswith(b"HTTP/1.1 200 ")
