"""Streams that go wrong: the client leaves, the backend breaks. Told truly, stopped at once, and audited."""

import contextlib
import json
import time
from typing import Any

import httpx
import ollama
import openai
import pytest

from gateway.demo.engine import Engine
from tests.doubles import (
    HEAD_OF_STREAM,
    Double,
    Script,
    answer,
    chat_frame,
    chunk,
    raw,
    reset_after,
    stream,
)
from tests.engines import busy_slots, wait_until
from tests.gateways import Gateway, heal

HELLO: Any = [{"role": "user", "content": "Hello!"}]
ROUTES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": HELLO},
    "/v1/messages": {"messages": HELLO, "max_tokens": 9000},
    "/api/chat": {"messages": HELLO},
    "/api/generate": {"prompt": "x"},
}


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("is_stream", [True, False], ids=["streamed", "plain"])
def test_a_client_that_leaves_stops_the_engine(
    gateway: Gateway, engine_endless: Engine, path: str, is_stream: bool
):
    """Within a second the slot is free again; the audit row tells what happened, and what it cost."""
    body = {"model": "endless", "stream": is_stream, **ROUTES[path]}
    # Rows are written in batches: those of other tests may still come.
    mine = "model = 'endless:latest'"
    before = {row["request_id"] for row in gateway.rows(mine)}

    with gateway.client() as client:
        if is_stream:
            with client.stream("POST", path, json=body) as answered:
                pieces = answered.iter_bytes()  # kept: httpx closes the stream with its iterator
                next(pieces)
                assert wait_until(lambda: busy_slots(engine_endless) == 1, 1.0)
        else:
            with contextlib.suppress(httpx.ReadTimeout):
                client.post(path, json=body, timeout=0.5)

    assert wait_until(lambda: busy_slots(engine_endless) == 0, 1.0)
    assert wait_until(lambda: len({row["request_id"] for row in gateway.rows(mine)} - before) == 1, 5)
    (row,) = [row for row in gateway.rows(mine) if row["request_id"] not in before]
    assert row["outcome"] == "client_left"
    assert (row["model"], row["backend"], row["stream"]) == ("endless:latest", "loop", is_stream)
    if is_stream:
        assert row["completion_tokens"] > 0
        assert row["tokens_estimated"] == 1


@pytest.mark.parametrize("surface", ["openai", "ollama"])
def test_the_official_clients_can_leave_too(gateway: Gateway, engine_endless: Engine, surface: str):
    if surface == "openai":
        with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key) as client:
            chunks: Any = client.chat.completions.create(model="endless", messages=HELLO, stream=True)
            next(iter(chunks))
            chunks.close()
    else:
        native = ollama.Client(gateway.url, headers=gateway.headers)
        frames: Any = native.chat("endless", HELLO, stream=True)
        next(frames)
        frames.close()
        native._client.close()

    assert wait_until(lambda: busy_slots(engine_endless) == 0, 1.0)


def test_a_slow_reader_holds_the_backend_back(gateway: Gateway, engine_endless: Engine):
    """What is not read is not buffered: the engine waits, and its slot is freed when the reader gives up."""
    with (
        gateway.client() as client,
        client.stream("POST", "/api/chat", json={"model": "endless", "messages": HELLO}) as answered,
    ):
        pieces = answered.iter_bytes()
        next(pieces)
        time.sleep(1)

    assert wait_until(lambda: busy_slots(engine_endless) == 0, 1.0)


BROKEN: dict[str, Script] = {
    "closes without a final record": stream(chat_frame("Hello"), chat_frame(" th")),
    "closes in the middle of a chunk": raw(HEAD_OF_STREAM + chunk(chat_frame("Hello")) + b"ff\r\n{"),
    "resets the connection": reset_after(HEAD_OF_STREAM + chunk(chat_frame("Hello"))),
    "sends what is no JSON": raw(HEAD_OF_STREAM + chunk(chat_frame("Hello")) + b"4\r\n<p>\n\r\n0\r\n\r\n"),
    "says that it failed": stream(chat_frame("Hello"), {"error": "llama runner process has terminated"}),
}


@pytest.mark.parametrize("script", BROKEN.values(), ids=BROKEN)
def test_a_broken_stream_never_looks_complete(gateway: Gateway, double: Double, script: Script):
    """Both clients raise: the last frame is an error in their own dialect."""
    double.scripts["/api/chat"] = script

    client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0)
    with client, pytest.raises(openai.APIError) as caught:
        list(client.chat.completions.create(model="double", messages=HELLO, stream=True))
    with gateway.client() as plain:
        answered = plain.post("/api/chat", json={"model": "double", "messages": HELLO})

    assert caught.value.message
    frames = [json.loads(line) for line in answered.text.splitlines()]
    assert frames[0]["message"]["content"] == "Hello"
    assert set(frames[-1]) == {"error"}
    assert not any(frame.get("done") for frame in frames)
    row = gateway.row_of(answered.headers["x-request-id"])
    assert (row["status"], row["outcome"], row["error_code"]) == (200, "backend_failed", "backend_failed")
    assert row["tokens_estimated"] == 1


FAILING: dict[str, tuple[Script, int]] = {
    "closes at once": (raw(), 502),
    "answers 500": (answer(500, {"error": "CUDA error at 10.0.0.7:11434 /usr/lib/x.so"}), 502),
    "is busy": (
        answer(503, {"error": "server busy, please try again.  maximum pending requests exceeded"}),
        503,
    ),
    "redirects": (answer(307, {}, Location="/api/pull"), 502),
    "answers 401": (answer(401, {"error": "unauthorized"}), 502),
    "refuses": (answer(400, {"error": '"double" does not support tools'}), 400),
    "does not have the model after all": (answer(404, {"error": "model 'double' not found"}), 404),
}


@pytest.mark.parametrize(("script", "status"), FAILING.values(), ids=FAILING)
@pytest.mark.parametrize("is_stream", [True, False], ids=["streamed", "plain"])
def test_a_backend_that_fails_before_its_first_byte_is_a_status(
    gateway: Gateway, double: Double, script: Script, status: int, is_stream: bool
):
    """In the caller's dialect, without a word about where the backend is."""
    heal(gateway.url, gateway.key, double)
    double.scripts["/api/chat"] = script

    with gateway.client() as client:
        answered = client.post(
            "/v1/chat/completions", json={"model": "double", "messages": HELLO, "stream": is_stream}
        )

    assert answered.status_code == status
    assert answered.json()["error"]["message"]
    assert not any(inside in answered.text for inside in ("10.0.0.7", "/usr/lib", "127.0.0.1", "11434"))
    assert answered.headers["content-type"] == "application/json"
    if status == 503:
        assert int(answered.headers["retry-after"]) >= 1


def test_no_header_of_a_backend_reaches_the_caller(gateway: Gateway, double: Double):
    """B19: cookies, CORS, servers and redirects of a backend are its own affair."""
    double.scripts["/api/chat"] = answer(
        200,
        chat_frame("fine", done=True),
        **{"Set-Cookie": "a=b", "Server": "x", "Via": "y", "Access-Control-Allow-Origin": "*", "X-Evil": "z"},
    )

    with gateway.client() as client:
        answered = client.post("/api/chat", json={"model": "double", "messages": HELLO, "stream": False})

    assert set(answered.headers) <= {"content-type", "content-length", "x-request-id", "date"}


def test_odd_characters_pass_in_ascii(gateway: Gateway, double: Double):
    """A raw U+2028 or U+0085 in a line of NDJSON makes ollama-python raise."""
    text = "a\u2028b\u0085c\u00e4\U0001f600"
    double.scripts["/api/chat"] = stream(chat_frame(text), chat_frame(done=True))

    with gateway.client() as client:
        answered = client.post("/api/chat", json={"model": "double", "messages": HELLO})

    assert answered.content.isascii()
    assert json.loads(answered.text.splitlines()[0])["message"]["content"] == text
