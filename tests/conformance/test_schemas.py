"""Every answer and every chunk under /v1 has what the official schemas require, by either kind of backend."""

import json
from typing import Any

import httpx
import pytest

from tests.conformance import official
from tests.conformance.official import Official
from tests.conformance.reciting_ollama import FAIL
from tests.conformance.stage import MODELS, Stage
from tests.engines import WEATHER_TOOL

HELLO: Any = [{"role": "user", "content": "Hello!"}]
SCHEMA: Any = {"type": "object", "properties": {"says": {"type": "string"}}, "required": ["says"]}
CLAUDE_TOOL: Any = {
    "name": "get_weather",
    "input_schema": WEATHER_TOOL["function"]["parameters"],  # type: ignore[index]
}
FLAT_TOOL: Any = {"type": "function", **WEATHER_TOOL["function"]}  # type: ignore[dict-item]

CHAT: dict[str, Any] = {
    "text": {},
    "the longest text": {"max_completion_tokens": 3},
    "two texts": {"n": 2},
    "tools": {"tools": [WEATHER_TOOL]},
    "functions": {"functions": [WEATHER_TOOL["function"]]},
    "log probabilities": {"logprobs": True},
    "log probabilities of others": {"logprobs": True, "top_logprobs": 2},
    "thinking": {"reasoning_effort": "low"},
    "a schema": {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}},
}
COMPLETION: dict[str, Any] = {
    "text": {},
    "the longest text": {"max_tokens": 3},
    "several texts": {"prompt": ["Hello!", "Bye!"], "n": 2},
    "an echo": {"echo": True},
    "log probabilities": {"logprobs": 2},
}
RESPONSES: dict[str, Any] = {
    "text": {},
    "the longest text": {"max_output_tokens": 3},
    "tools": {"tools": [FLAT_TOOL]},
    "thinking": {"reasoning": {"effort": "low"}},
    "log probabilities": {"include": ["message.output_text.logprobs"], "top_logprobs": 2},
    "a schema": {"text": {"format": {"type": "json_schema", "name": "a", "schema": SCHEMA}}},
}
MESSAGES: dict[str, Any] = {
    "text": {},
    "the longest text": {"max_tokens": 3},
    "tools": {"tools": [CLAUDE_TOOL]},
    "thinking": {"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 2000},
    "a schema": {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
}

# By route: what each request has, what one may have, the type of an answer, and of each piece of a stream.
ROUTES: dict[str, tuple[Any, dict[str, Any], Official, Official]] = {
    "/v1/chat/completions": ({"messages": HELLO}, CHAT, official.CHAT, official.CHAT_CHUNK),
    "/v1/completions": ({"prompt": "Hello!"}, COMPLETION, official.COMPLETION, official.COMPLETION_CHUNK),
    "/v1/responses": ({"input": "Hello!"}, RESPONSES, official.RESPONSE, official.RESPONSE_EVENT),
    "/v1/messages": (
        {"messages": HELLO, "max_tokens": 500},
        MESSAGES,
        official.MESSAGE,
        official.MESSAGE_EVENT,
    ),
}
EACH_REQUEST = pytest.mark.parametrize(
    ("path", "asks"),
    [
        pytest.param(path, asks, id=f"{path}: {name}")
        for path, (_, requests, _, _) in ROUTES.items()
        for name, asks in requests.items()
    ],
)
EACH_BACKEND = pytest.mark.parametrize("backend", MODELS)


def posted(stage: Stage, backend: str, path: str, asks: Any) -> httpx.Response:
    body = {"model": MODELS[backend]["chat"], **ROUTES[path][0], **asks}
    with stage.gateway.client() as client:
        return client.post(path, json=body)


def payloads(text: str) -> list[str]:
    """What the events of a stream carry, comments and the last word left out."""
    found = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    return found[:-1] if found[-1] == "[DONE]" else found


@EACH_REQUEST
@EACH_BACKEND
def test_an_answer_has_what_is_required(stage: Stage, backend: str, path: str, asks: Any):
    answered = posted(stage, backend, path, asks)

    assert answered.status_code == 200, answered.text
    assert answered.headers["content-type"] == "application/json"
    ROUTES[path][2].check(answered.content)


@EACH_REQUEST
@EACH_BACKEND
def test_each_piece_of_a_stream_has_what_is_required(stage: Stage, backend: str, path: str, asks: Any):
    usage = {"stream_options": {"include_usage": True}} if path.endswith("completions") else {}
    answered = posted(stage, backend, path, {**asks, **usage, "stream": True})

    assert answered.status_code == 200, answered.text
    assert answered.headers["content-type"].startswith("text/event-stream")
    pieces = [ROUTES[path][3].check(payload) for payload in payloads(answered.text)]
    assert len(pieces) >= 3
    whole = [piece["response"] for piece in pieces if "response" in piece]
    assert [official.RESPONSE.check(json.dumps(one)) for one in whole if one["status"] == "completed"] == [
        one for one in whole if one["status"] == "completed"
    ]


@EACH_BACKEND
@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_embeddings_have_what_is_required(stage: Stage, backend: str, encoding: str):
    body = {"model": MODELS[backend]["embedding"], "input": ["hello", "world"], "encoding_format": encoding}
    with stage.gateway.client() as client:
        answered = client.post("/v1/embeddings", json=body)

    kind = official.EMBEDDINGS if encoding == "float" else official.PACKED_EMBEDDINGS
    assert [item["index"] for item in kind.check(answered.content)["data"]] == [0, 1]


@EACH_BACKEND
def test_models_and_counts_have_what_is_required(stage: Stage, backend: str):
    model = MODELS[backend]["chat"]
    with stage.gateway.client() as client:
        listed = client.get("/v1/models")
        one = client.get(f"/v1/models/{model}")
        count = client.post("/v1/messages/count_tokens", json={"model": model, "messages": HELLO})

    assert len(official.MODELS.check(listed.content)["data"]) == 6
    assert official.MODEL.check(one.content)["id"] == model
    assert official.COUNT.check(count.content)["input_tokens"] > 0


# Status, and how a request comes to it.
ERRORS: dict[int, dict[str, Any]] = {
    400: {"model": 7},
    401: {"headers": {"Authorization": "Bearer wrong"}},
    404: {"model": "nope"},
    405: {"method": "PUT"},
    413: {"content": b" " * (21 << 20)},
    429: {"is_limited": True},
}


BODIES: dict[str, Any] = {path: {"model": "greeting", **asks} for path, (asks, _, _, _) in ROUTES.items()} | {
    "/v1/messages/count_tokens": {"model": "greeting", "messages": HELLO},
    "/v1/embeddings": {"model": "embed", "input": "Hello!"},
}


@pytest.mark.parametrize("status", ERRORS)
@pytest.mark.parametrize("path", BODIES)
def test_an_error_has_what_is_required(stage: Stage, path: str, status: int):
    how = dict(ERRORS[status])
    method, headers = how.pop("method", "POST"), how.pop("headers", stage.gateway.headers)
    if how.pop("is_limited", False):
        headers = {"Authorization": f"Bearer {stage.limited_key}"}
    content = how.pop("content", None) or json.dumps(BODIES[path] | how).encode()
    with stage.gateway.client() as client:
        answers = [client.request(method, path, content=content, headers=headers) for _ in range(2)]

    kind = official.ANTHROPIC_ERROR if path.startswith("/v1/messages") else official.OPENAI_ERROR
    assert answers[-1].status_code == status, answers[-1].text
    kind.check(answers[-1].content)


@pytest.mark.parametrize("path", ROUTES)
def test_an_error_inside_a_stream_has_what_is_required(stage: Stage, path: str):
    """Told by the double in the midst of its answer."""
    prompt = {"prompt": FAIL, "input": FAIL, "messages": [{"role": "user", "content": FAIL}]}
    asks = {name: value for name, value in prompt.items() if name in ROUTES[path][0]}
    last = payloads(posted(stage, "ollama", path, {**asks, "stream": True}).text)[-1]

    match path:
        case "/v1/messages":
            official.ANTHROPIC_ERROR.check(last)
        case "/v1/responses":
            assert official.RESPONSE_EVENT.check(last)["type"] in ("error", "response.failed")
        case _:
            official.OPENAI_ERROR.check(last)
