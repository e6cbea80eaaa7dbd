"""Budgets against a real engine and its tokenizer: what fits is served, and nothing is ever spent beyond."""

import threading
from http import HTTPStatus
from typing import Any

import httpx
import pytest

from gateway.demo.engine import Engine
from tests.e2e.test_limits import client_of
from tests.engines import ask, ask_json
from tests.gateways import Gateway

# 1,440 bytes, so 1,712 tokens by the bound; about 300 in truth.
TEXT = "the weather in the city " * 60
CHAT: dict[str, Any] = {
    "model": "greeting",
    "messages": [{"role": "user", "content": TEXT}],
    "max_tokens": 20,
}
# More tokens than the 8,192 of the engine's context.
LONG = "word " * 9_000
LONG_CHAT: dict[str, Any] = {**CHAT, "messages": [{"role": "user", "content": LONG}]}


def spent(client: httpx.Client) -> int:
    """What the caller's tenant has used in total, and holds."""
    budgets = client.get("/v1/usage").json()["budgets"]
    (total,) = [row for row in budgets if (row["window"], row["scope"]) == ("total", "tenant")]
    return int(total["used"]) + int(total["reserved"])


def test_a_prompt_whose_count_fits_is_served(gateway: Gateway, engine_greeting: Engine):
    """Its bytes would not; and what it costs is what the engine counted before."""
    count = ask_json(engine_greeting, "/v1/chat/completions/input_tokens", CHAT)["input_tokens"]
    assert count < 600 < len(TEXT)

    with client_of(gateway, "counted", total_tokens=600) as client:
        served = client.post("/v1/chat/completions", json=CHAT)
        refused = client.post("/v1/chat/completions", json=CHAT)
        in_the_end = spent(client)

    usage = served.json()["usage"]
    assert usage["prompt_tokens"] == count
    assert served.headers["x-budget-remaining-total"] == str(600 - usage["total_tokens"])
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "insufficient_quota")
    assert f"may need {count + 16:,}" in refused.json()["error"]["message"]
    assert in_the_end == usage["total_tokens"]


def test_an_answer_gets_what_the_prompt_does_not_need(gateway: Gateway):
    """By its bytes there would be 28 tokens left for it."""
    with client_of(gateway, "longer", total_tokens=1_740) as client:
        answered = client.post("/api/chat", json={**CHAT, "max_tokens": None, "stream": False}).json()

    assert answered["done_reason"] == "stop"
    assert answered["eval_count"] > 28


TOOL = {"type": "function", "function": {"name": "f", "description": TEXT, "parameters": {}}}
NATIVE: dict[str, Any] = {"model": "greeting", "stream": False, "options": {"num_predict": 5}}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        pytest.param(
            "/api/chat",
            NATIVE | {"messages": [{"role": "user", "content": "Hello!"}], "tools": [TOOL]},
            id="tools",
        ),
        pytest.param(
            "/v1/completions", {"model": "greeting", "prompt": TEXT, "max_tokens": 5}, id="completions"
        ),
        pytest.param("/v1/messages", CHAT | {"max_tokens": 5}, id="messages"),
    ],
)
def test_what_is_counted_is_what_it_costs(
    gateway: Gateway, request: pytest.FixtureRequest, path: str, body: dict[str, Any]
):
    """Whatever way it comes: a budget of just the count and the output serves it."""
    with gateway.client() as unlimited:
        truth = gateway.row_of(unlimited.post(path, json=body).headers["x-request-id"])
    budget = truth["prompt_tokens"] + 5

    with client_of(gateway, request.node.callspec.id, total_tokens=budget) as client:
        answered = client.post(path, json=body)
        assert 0 < spent(client) <= budget

    assert answered.status_code == 200, answered.text
    row = gateway.row_of(answered.headers["x-request-id"])
    assert (row["prompt_tokens"], row["tokens_estimated"]) == (truth["prompt_tokens"], 0)


@pytest.mark.parametrize(
    ("path", "extra", "code"),
    [
        ("/v1/chat/completions", {}, lambda error: error["error"]["code"]),
        ("/v1/messages", {}, lambda error: error["error"]["type"]),
        ("/api/chat", {"stream": False}, lambda error: error["error"][:36]),
    ],
    ids=["openai", "anthropic", "ollama"],
)
def test_a_prompt_beyond_the_context_is_told_for_good(
    gateway: Gateway, path: str, extra: dict[str, Any], code
):
    """By us where it was counted, with both numbers; by the engine where it was not; and it costs nothing."""
    tenant = f"long {path.rpartition('/')[2]}"
    with client_of(gateway, tenant, total_tokens=8_000) as limited, gateway.client() as unlimited:
        counted = limited.post(path, json={**LONG_CHAT, **extra})
        assert spent(limited) == 0
        told = unlimited.post(path, json={**LONG_CHAT, **extra})

    assert (counted.status_code, told.status_code) == (HTTPStatus.BAD_REQUEST, HTTPStatus.BAD_REQUEST)
    assert code(counted.json()) == code(told.json())
    assert "and the context has 8192" in counted.text
    assert gateway.row_of(counted.headers["x-request-id"])["error_code"] == "context_length_exceeded"


def test_a_prompt_that_just_fits_its_context_is_served(engine_greeting: Engine):
    """Where we say that it does not, the engine says so too: from as many tokens on as the context has."""

    def status_of(tokens: int) -> int:
        body = {"prompt": "<|done|>" * (tokens - 1), "max_tokens": 1}
        return ask(engine_greeting, "/v1/completions", body)[0]

    assert (status_of(8_191), status_of(8_192)) == (200, 400)


def test_counted_prompts_never_overspend(gateway: Gateway):
    """Eight clients race for the last tokens with prompts that fit by their counts alone."""
    budget = 1_700
    used: list[int] = []
    statuses: list[int] = []
    with client_of(gateway, "counted race", total_tokens=budget) as client:

        def ask_often() -> None:
            for _ in range(4):
                answered = client.post("/v1/chat/completions", json=CHAT)
                statuses.append(answered.status_code)
                if answered.status_code == 200:
                    used.append(answered.json()["usage"]["total_tokens"])

        threads = [threading.Thread(target=ask_often) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        in_the_end = spent(client)

    assert set(statuses) == {200, 429}
    assert in_the_end == sum(used) <= budget
