"""Every client works unchanged: what each of them sees, with each kind of backend, is what the model said."""

from collections.abc import Mapping
from typing import Any

import pytest
from attrs import frozen

from gateway.demo.scripts import GREETING
from tests.conformance.stage import MODELS, Cast, Client, of_node, of_other_python, of_this_python

SAID = {"text": GREETING.answer}
STREAMED = SAID | {"in_pieces": True}
WENT_ROUND = {"called": ["get_weather", {"city": "Paris"}], "text": GREETING.tool_answer}
FITTED = {"says": GREETING.answer, "sure": False}

EXPECTED: dict[str, Any] = {
    "chat": SAID,
    "stream": STREAMED,
    "stream_in_coroutines": STREAMED,
    "tools": WENT_ROUND,
    "tools_streamed": WENT_ROUND,
    "structured": FITTED,
    "structured_by_a_tool": FITTED,
    "completion": SAID,
    "completion_streamed": STREAMED,
    "responses": SAID,
    "responses_streamed": STREAMED,
    "responses_tools": WENT_ROUND,
    "responses_structured": FITTED,
    "counted": {"tokens": True},
    "listed": {"listed": True, "retrieved": True},
    "leave": {"backend is free": True, "audited": [["client_left", True]]},
}

CHAT = ("chat", "stream", "tools", "tools_streamed", "structured")
LEAVE = ("leave",)
COROUTINES = ("stream_in_coroutines",)
COMPLETION = ("completion", "completion_streamed")
RESPONSES = ("responses", "responses_streamed", "responses_tools", "responses_structured")
VECTORS = ("embeddings",)
ERRORS = ("errors",)

# How a refusal looks: the class of the client's exception, and the status where it knows one.
BY_STATUS = {
    "wrong key": ("AuthenticationError", 401),
    "unknown model": ("NotFoundError", 404),
    "over limit": ("RateLimitError", 429),
    "blocked": ("PermissionDeniedError", 403),
}
BY_ONE_CLASS = {refused: ("ResponseError", status) for refused, (_, status) in BY_STATUS.items()}
BY_LANGCHAIN = {
    "wrong key": ("OpenAIAuthenticationError", 401),
    "unknown model": ("OpenAIModelNotFoundError", 404),
    "over limit": ("OpenAIRateLimitError", 429),
    "blocked": ("OpenAIPermissionDeniedError", 403),
}
BY_LITELLM_OPENAI = BY_STATUS | {"blocked": ("APIError", 403)}
BY_AI_SDK = {refused: ("APICallError", status) for refused, (_, status) in BY_STATUS.items()}
BY_AI_SDK_OLLAMA = {refused: ("_OllamaError", status) for refused, (_, status) in BY_STATUS.items()}
# What the gateway's own sentence has, which the exception repeats. A blocked route speaks the dialect of its
# prefix, Ollama's, of which not every client finds the sentence.
SAYS = {"wrong key": "key", "unknown model": "nope", "over limit": "per minute"}


@frozen
class Part:
    """A client, and what it can do."""

    client: Client
    scenarios: tuple[str, ...]
    refused: Mapping[str, tuple[str, int | None]]


PARTS = [
    Part(
        of_this_python("openai_python"),
        (*CHAT, *COROUTINES, *COMPLETION, *RESPONSES, *VECTORS, *ERRORS, *LEAVE, "listed"),
        BY_STATUS,
    ),
    Part(of_this_python("anthropic_python"), (*CHAT, *COROUTINES, *ERRORS, *LEAVE, "counted"), BY_STATUS),
    Part(
        of_this_python("ollama_python"),
        (*CHAT, *COROUTINES, *COMPLETION, *VECTORS, *ERRORS, *LEAVE, "embeddings_one_by_one", "listed"),
        BY_ONE_CLASS,
    ),
    Part(
        of_node("openai_node"),
        (*CHAT, *COMPLETION, *RESPONSES, *VECTORS, *ERRORS, *LEAVE, "listed"),
        BY_STATUS,
    ),
    Part(of_node("anthropic_node"), (*CHAT, *ERRORS, *LEAVE, "counted"), BY_STATUS),
    Part(
        of_node("ollama_js"),
        (*CHAT, *COMPLETION, *VECTORS, *ERRORS, *LEAVE, "embeddings_one_by_one", "listed"),
        BY_ONE_CLASS,
    ),
    Part(of_node("ai_sdk", "openai"), (*CHAT, *VECTORS, *ERRORS, *LEAVE), BY_AI_SDK),
    Part(of_node("ai_sdk", "openai-compatible"), (*CHAT, *VECTORS, *ERRORS, *LEAVE), BY_AI_SDK),
    Part(of_node("ai_sdk", "anthropic"), (*CHAT, *ERRORS, *LEAVE), BY_AI_SDK),
    Part(of_node("ai_sdk", "ollama"), (*CHAT, *VECTORS, *ERRORS), BY_AI_SDK_OLLAMA),
    Part(
        of_other_python("langchain_python", "openai"),
        (*CHAT, *COROUTINES, *VECTORS, *ERRORS, *LEAVE, "structured_by_a_tool"),
        BY_LANGCHAIN,
    ),
    Part(
        of_other_python("langchain_python", "ollama"),
        (*CHAT, *COROUTINES, *VECTORS, *ERRORS, *LEAVE, "structured_by_a_tool"),
        BY_ONE_CLASS,
    ),
    Part(
        of_other_python("llama_index_python", "openai-like"),
        (*CHAT, *COROUTINES, *COMPLETION, *VECTORS, *ERRORS, *LEAVE),
        BY_STATUS,
    ),
    Part(
        of_other_python("llama_index_python", "ollama"),
        (*CHAT, *COROUTINES, *COMPLETION, *VECTORS, *ERRORS, *LEAVE),
        BY_ONE_CLASS,
    ),
    Part(
        of_other_python("litellm_python", "openai"),
        (*CHAT, *COROUTINES, *VECTORS, *ERRORS, *LEAVE),
        BY_LITELLM_OPENAI,
    ),
    Part(
        of_other_python("litellm_python", "ollama_chat"),
        (*CHAT, *COROUTINES, *VECTORS, *ERRORS, *LEAVE),
        BY_STATUS,
    ),
    Part(of_other_python("litellm_python", "anthropic"), (*CHAT, *COROUTINES, *ERRORS, *LEAVE), BY_STATUS),
]


def cases_of(*names: str) -> pytest.MarkDecorator:
    """Each client that has a scenario of these names, with each kind of backend."""
    cases = [
        pytest.param(part, backend, scenario, id=f"{part.client.name}, {backend}: {scenario}")
        for part in PARTS
        for backend in MODELS
        for scenario in part.scenarios
        if scenario in names
    ]
    return pytest.mark.parametrize(("part", "backend", "scenario"), cases)


@cases_of(*EXPECTED)
def test_a_client_sees_what_the_model_said(cast: Cast, part: Part, backend: str, scenario: str):
    assert cast.report(part.client, backend, scenario) == EXPECTED[scenario]


@cases_of("embeddings", "embeddings_one_by_one")
def test_a_client_gets_the_vectors_of_the_backend(cast: Cast, part: Part, backend: str, scenario: str):
    """To the last bits, which in a real engine depend on what it computes together."""
    found = cast.report(part.client, backend, scenario)["vectors"]

    assert found == [pytest.approx(vector, abs=1e-6) for vector in cast.stage.vectors[backend]]


@cases_of("errors")
def test_a_refusal_is_the_clients_own_exception(cast: Cast, part: Part, backend: str, scenario: str):
    """Of its own class, with the status, and with the sentence that says what to do."""
    found = cast.report(part.client, backend, scenario)

    assert {refused: (told["raised"], told["status"]) for refused, told in found.items()} == part.refused
    assert {refused: words for refused, words in SAYS.items() if words not in found[refused]["says"]} == {}


@pytest.mark.parametrize("part", [pytest.param(part, id=part.client.name) for part in PARTS])
def test_all_that_a_client_tells_is_judged(cast: Cast, part: Part):
    assert cast.scenarios(part.client) == {
        (backend, scenario) for backend in MODELS for scenario in part.scenarios
    }
