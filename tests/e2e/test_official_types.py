"""Every frame and every whole answer, over a socket, is what the official clients' own types demand.

Their types are made from the official schemas: a required field that an answer lacks is an error here, and
the clients themselves would go on with None.
"""

from collections.abc import Callable
from typing import Any

import httpx
import orjson
import pytest
from anthropic.types import Message, MessageTokensCount, RawMessageStreamEvent
from ollama import ChatResponse, EmbeddingsResponse, EmbedResponse, GenerateResponse
from openai.types import Completion, CreateEmbeddingResponse, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from tests.doubles import Double, answer, chat_frame, stream
from tests.engines import WEATHER_TOOL
from tests.gateways import Gateway

HELLO: Any = [{"role": "user", "content": "Hello!"}]
FUNCTION: dict[str, Any] = WEATHER_TOOL["function"]  # type: ignore[assignment]
CLAUDE_TOOL = {"name": FUNCTION["name"], "input_schema": FUNCTION["parameters"]}
FLAT_TOOL = {"type": "function", "name": FUNCTION["name"], "parameters": FUNCTION["parameters"]}
CHATS = {"openai": "greeting", "ollama": "double"}

# Requests of each route: the type of a whole answer, the type of a frame, and what is asked.
ASKED: dict[str, tuple[str, Any, Any, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", ChatCompletion, ChatCompletionChunk, {"messages": HELLO}),
    "chat, counted": (
        "/v1/chat/completions",
        None,
        ChatCompletionChunk,
        {"messages": HELLO, "stream_options": {"include_usage": True}},
    ),
    "log probabilities": (
        "/v1/chat/completions",
        ChatCompletion,
        ChatCompletionChunk,
        {"messages": HELLO, "logprobs": True, "top_logprobs": 2, "max_tokens": 3},
    ),
    "calls": (
        "/v1/chat/completions",
        ChatCompletion,
        ChatCompletionChunk,
        {"messages": HELLO, "tools": [WEATHER_TOOL]},
    ),
    "functions": (
        "/v1/chat/completions",
        ChatCompletion,
        ChatCompletionChunk,
        {"messages": HELLO, "functions": [FUNCTION]},
    ),
    "two answers": ("/v1/chat/completions", ChatCompletion, ChatCompletionChunk, {"messages": HELLO, "n": 2}),
    "completion": ("/v1/completions", Completion, Completion, {"prompt": "Hello!", "logprobs": 1}),
    "response": ("/v1/responses", Response, ResponseStreamEvent, {"input": "Hello!"}),
    "response with calls": (
        "/v1/responses",
        Response,
        ResponseStreamEvent,
        {"input": "Hello!", "tools": [FLAT_TOOL]},
    ),
    "response with log probabilities": (
        "/v1/responses",
        Response,
        ResponseStreamEvent,
        {"input": "Hello!", "include": ["message.output_text.logprobs"], "top_logprobs": 2},
    ),
    "message": ("/v1/messages", Message, RawMessageStreamEvent, {"messages": HELLO, "max_tokens": 50}),
    "message with tool use": (
        "/v1/messages",
        Message,
        RawMessageStreamEvent,
        {"messages": HELLO, "max_tokens": 50, "tools": [CLAUDE_TOOL]},
    ),
    "native chat": ("/api/chat", ChatResponse, ChatResponse, {"messages": HELLO}),
    "native calls": ("/api/chat", ChatResponse, ChatResponse, {"messages": HELLO, "tools": [WEATHER_TOOL]}),
    "generate": ("/api/generate", GenerateResponse, GenerateResponse, {"prompt": "Hello!"}),
}
FRAMED = ("/api/chat", "/api/generate")

ITEM = {"token": "Hi", "logprob": -0.1, "bytes": [72, 105]}
LOGPROBS = [ITEM | {"top_logprobs": [ITEM]}]
CALL = {"function": {"name": FUNCTION["name"], "arguments": {"city": "Paris"}}}


def as_ollama(double: Double, *, streams: bool, calls: bool) -> None:
    """A model that thinks, says a word, and calls where there are tools."""
    said = {"role": "assistant", "content": "Hi", "thinking": "Hm."}
    last = {"role": "assistant", "content": "", **({"tool_calls": [CALL]} if calls else {})}
    generated = {"response": "Hi", "done": False, "logprobs": LOGPROBS}
    done = {"response": "", "done": True, "done_reason": "stop", "prompt_eval_count": 3, "eval_count": 1}
    if streams:
        double.scripts["/api/chat"] = stream(
            chat_frame(message=said, logprobs=LOGPROBS), chat_frame(done=True, message=last)
        )
        double.scripts["/api/generate"] = stream(generated, done)
        return
    whole = said | last | {"content": "Hi"}
    double.scripts["/api/chat"] = answer(200, chat_frame(done=True, message=whole, logprobs=LOGPROBS))
    double.scripts["/api/generate"] = answer(200, generated | done | {"response": "Hi"})


def frames_of(path: str, answered: httpx.Response) -> list[Any]:
    if path in FRAMED:
        return [orjson.loads(line) for line in answered.text.splitlines()]
    data = [
        line.removeprefix("data: ")
        for event in answered.text.split("\n\n")
        for line in event.split("\n")
        if line.startswith("data: ")
    ]
    return [orjson.loads(payload) for payload in data if payload != "[DONE]"]


@pytest.mark.parametrize("kind", CHATS)
@pytest.mark.parametrize("asked", ASKED)
def test_every_frame_is_of_its_official_type(gateway: Gateway, double: Double, asked: str, kind: str):
    path, _, frame, body = ASKED[asked]
    as_ollama(double, streams=True, calls="tools" in body or "functions" in body)

    with gateway.client() as client:
        answered = client.post(path, json={"model": CHATS[kind], "stream": True, **body})

    assert answered.status_code == 200, answered.text
    frames = frames_of(path, answered)
    assert len(frames) > 1
    for one in frames:
        if frame is Completion:
            # Null until the last, as OpenAI's own have it, though the schema does not say so.
            one["choices"] = [
                choice | {"finish_reason": choice["finish_reason"] or "stop"} for choice in one["choices"]
            ]
        TypeAdapter(frame).validate_python(one)


@pytest.mark.parametrize("kind", CHATS)
@pytest.mark.parametrize("asked", [name for name, (_, whole, *_) in ASKED.items() if whole])
def test_every_whole_answer_is_of_its_official_type(gateway: Gateway, double: Double, asked: str, kind: str):
    path, whole, _, body = ASKED[asked]
    as_ollama(double, streams=False, calls="tools" in body or "functions" in body)

    with gateway.client() as client:
        answered = client.post(path, json={"model": CHATS[kind], "stream": False, **body})

    assert answered.status_code == 200, answered.text
    TypeAdapter(whole).validate_python(answered.json())


OTHERS: dict[str, tuple[Callable[[httpx.Client], httpx.Response], Any]] = {
    "embeddings": (
        lambda client: client.post("/v1/embeddings", json={"model": "embed", "input": ["a", "b"]}),
        CreateEmbeddingResponse,
    ),
    "native embeddings": (
        lambda client: client.post("/api/embed", json={"model": "embed", "input": ["a", "b"]}),
        EmbedResponse,
    ),
    "elder embedding": (
        lambda client: client.post("/api/embeddings", json={"model": "embed", "prompt": "a"}),
        EmbeddingsResponse,
    ),
    "a model": (lambda client: client.get("/v1/models/greeting"), Model),
    "a count": (
        lambda client: client.post(
            "/v1/messages/count_tokens", json={"model": "greeting", "messages": HELLO}
        ),
        MessageTokensCount,
    ),
}


@pytest.mark.parametrize(("ask", "official"), OTHERS.values(), ids=OTHERS)
def test_what_is_never_streamed_is_of_its_official_type(
    gateway: Gateway, ask: Callable[[httpx.Client], httpx.Response], official: Any
):
    with gateway.client() as client:
        answered = ask(client)

    assert answered.status_code == 200, answered.text
    TypeAdapter(official).validate_python(answered.json())
