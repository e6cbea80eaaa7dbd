"""Real answers are what /openapi.json says that they are, by whichever kind of backend."""

from functools import cache
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator

from tests.doubles import Double, answer, chat_frame
from tests.engines import WEATHER_TOOL
from tests.gateways import Gateway

HELLO: Any = [{"role": "user", "content": "Hello!"}]
CLAUDE_TOOL = {
    "name": "get_weather",
    "input_schema": WEATHER_TOOL["function"]["parameters"],  # type: ignore[index]
}

# By kind of backend, a model.
CHATS = {"openai": "greeting", "ollama": "double"}
VECTORS = {"openai": "embed", "ollama": "double"}

# Requests, and which of the models above they are for.
POSTS: dict[str, tuple[str, dict[str, Any], dict[str, str]]] = {
    "chat completion": ("/v1/chat/completions", {"messages": HELLO, "n": 2}, CHATS),
    "log probabilities": (
        "/v1/chat/completions",
        {"messages": HELLO, "logprobs": True, "top_logprobs": 2, "max_tokens": 3},
        CHATS,
    ),
    "a tool call": ("/v1/chat/completions", {"messages": HELLO, "tools": [WEATHER_TOOL]}, CHATS),
    "a function call": (
        "/v1/chat/completions",
        {"messages": HELLO, "functions": [WEATHER_TOOL["function"]]},
        CHATS,
    ),
    "completion": ("/v1/completions", {"prompt": "Hello!", "logprobs": 1, "max_tokens": 3}, CHATS),
    "response": ("/v1/responses", {"input": "Hello!"}, CHATS),
    "a cut response": ("/v1/responses", {"input": "Hello!", "max_output_tokens": 2}, CHATS),
    "embeddings": ("/v1/embeddings", {"input": ["hello", "world"]}, VECTORS),
    "packed embeddings": ("/v1/embeddings", {"input": "hello", "encoding_format": "base64"}, VECTORS),
    "message": ("/v1/messages", {"messages": HELLO, "max_tokens": 5}, CHATS),
    "a tool use": ("/v1/messages", {"messages": HELLO, "max_tokens": 50, "tools": [CLAUDE_TOOL]}, CHATS),
    "count": ("/v1/messages/count_tokens", {"messages": HELLO}, CHATS),
    "chat": ("/api/chat", {"messages": HELLO, "stream": False}, CHATS),
    "a native tool call": (
        "/api/chat",
        {"messages": HELLO, "stream": False, "tools": [WEATHER_TOOL]},
        CHATS,
    ),
    "a load": ("/api/chat", {"messages": []}, CHATS),
    "generate": ("/api/generate", {"prompt": "Hello!", "stream": False, "logprobs": True}, CHATS),
    "embed": ("/api/embed", {"input": ["hello", "world"]}, VECTORS),
    "elder embedding": ("/api/embeddings", {"prompt": "hello"}, VECTORS),
    "show": ("/api/show", {}, CHATS),
}
GETS = (
    *("/v1/models", "/v1/models/greeting", "/v1/usage"),
    *("/api/tags", "/api/ps", "/api/version", "/healthz", "/readyz", "/openapi.json"),
)
ERRORS: dict[str, tuple[str, dict[str, Any]]] = {
    "openai": ("/v1/chat/completions", {"model": "nope", "messages": HELLO}),
    "anthropic": ("/v1/messages", {"model": "nope", "messages": HELLO}),
    "ollama": ("/api/chat", {"model": "nope", "messages": HELLO}),
}


@cache
def document(url: str) -> dict[str, Any]:
    return dict(httpx.get(f"{url}/openapi.json").json())


def check(gateway: Gateway, path: str, method: str, answered: httpx.Response, status: str = "200") -> None:
    """The answer is of a type that the document names, has the headers it promises, and fits its schema."""
    told = document(gateway.url)
    described = told["paths"][path][method]["responses"][status]
    media_type = answered.headers["content-type"].partition(";")[0]
    schema = described["content"][media_type]["schema"] | {"components": told["components"]}

    Draft202012Validator(schema).validate(answered.json())

    assert "x-request-id" in answered.headers
    ours = {name for name in answered.headers if name.startswith("x-gateway-")}
    assert ours <= set(described["headers"])


def as_ollama(double: Double) -> None:
    """What an Ollama would say to all of these."""
    item = {"token": "Hi", "logprob": -0.1, "bytes": [72, 105]}
    logprobs = [item | {"top_logprobs": [item]}]
    calls = [{"function": {"name": "get_weather", "arguments": {"city": "Paris"}}}]
    message = {"role": "assistant", "content": "Hi", "thinking": "Hm.", "tool_calls": calls}
    double.scripts["/api/chat"] = answer(200, chat_frame(done=True, message=message, logprobs=logprobs))
    generated = {
        "response": "Hi",
        "done": True,
        "done_reason": "stop",
        "context": [1, 2],
        "logprobs": logprobs,
    }
    double.scripts["/api/generate"] = answer(200, generated | {"prompt_eval_count": 3, "eval_count": 1})
    double.scripts["/api/embed"] = answer(200, {"embeddings": [[1.0, 0.0]] * 2, "prompt_eval_count": 4})


@pytest.mark.parametrize("kind", CHATS)
@pytest.mark.parametrize("asked", POSTS)
def test_an_answer_is_what_the_document_says(gateway: Gateway, double: Double, asked: str, kind: str):
    path, body, models = POSTS[asked]
    as_ollama(double)
    if isinstance(body.get("input", body.get("prompt")), str) and "embed" in path:
        double.scripts["/api/embed"] = answer(200, {"embeddings": [[1.0, 0.0]], "prompt_eval_count": 2})

    with gateway.client() as client:
        answered = client.post(path, json={"model": models[kind], **body})

    assert answered.status_code == 200, answered.text
    check(gateway, path, "post", answered)


@pytest.mark.parametrize("path", GETS)
def test_a_list_is_what_the_document_says(gateway: Gateway, path: str):
    with gateway.client() as client:
        answered = client.get(path)

    check(gateway, path.replace("/greeting", "/{model}"), "get", answered)


@pytest.mark.parametrize("dialect", ERRORS)
def test_an_error_is_what_the_document_says(gateway: Gateway, dialect: str):
    path, body = ERRORS[dialect]

    with gateway.client() as client:
        answered = client.post(path, json=body)

    assert answered.status_code in (400, 404)
    check(gateway, path, "post", answered, "default")
