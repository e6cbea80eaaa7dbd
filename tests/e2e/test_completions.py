"""/v1/completions over a real socket: the official client, a real engine and an Ollama double."""

import json
from typing import Any

import openai
import pytest

from gateway.demo.scripts import GREETING
from tests.doubles import Double, answer, stream
from tests.engines import wait_until
from tests.gateways import Gateway

WORDS = {"model": "greeting", "prompt": "Hello there", "max_tokens": 5}
START = "Hello! I am the demo"


@pytest.fixture
def client(gateway: Gateway):
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0) as one:
        yield one


def generated(text: str, *, done: bool = True, **more: Any) -> dict[str, Any]:
    """A frame of Ollama's /api/generate."""
    frame: dict[str, Any] = {"model": "double:latest", "response": text, "done": done, **more}
    return frame | ({"done_reason": "stop", "prompt_eval_count": 26, "eval_count": 3} if done else {})


def test_a_completion_continues_its_prompt(client: Any):
    """Plain and streamed say the same, and count the same."""
    plain = client.completions.create(**WORDS)
    chunks = list(client.completions.create(**WORDS, stream=True, stream_options={"include_usage": True}))

    assert plain.choices[0].text == START
    assert "".join(chunk.choices[0].text for chunk in chunks[:-1]) == START
    assert plain.choices[0].finish_reason == chunks[-2].choices[0].finish_reason == "length"
    assert chunks[-1].usage == plain.usage
    assert (plain.usage.prompt_tokens, plain.usage.completion_tokens) == (7, 5)
    assert plain.id.startswith("cmpl-")


def test_prompts_and_answers_are_numbered(client: Any):
    """Two prompts, one of them as tokens, and two answers to each, whose tokens are added up."""
    plain = client.completions.create(**WORDS | {"prompt": ["Hello there"], "n": 2})
    tokens = client.completions.create(**WORDS | {"prompt": [[1, 100, 101], [1, 100]], "n": 2})
    chunks = list(client.completions.create(**WORDS | {"prompt": ["Hello", "Bye"], "n": 2, "stream": True}))

    assert [choice.index for choice in plain.choices] == [0, 1]
    assert (plain.usage.prompt_tokens, plain.usage.completion_tokens) == (2 * 7, 2 * 5)
    assert [(choice.index, choice.text) for choice in tokens.choices] == [(n, START) for n in range(4)]
    assert tokens.usage.prompt_tokens == 2 * (3 + 2)
    texts = ["", "", "", ""]
    for chunk in chunks:
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == [START] * 4


def test_the_prompt_is_echoed(client: Any):
    plain = client.completions.create(**WORDS, echo=True)
    chunks = client.completions.create(**WORDS, echo=True, stream=True)

    assert plain.choices[0].text == f"Hello there{START}"
    assert "".join(chunk.choices[0].text for chunk in chunks) == f"Hello there{START}"


@pytest.mark.parametrize("alternatives", [0, 2])
def test_log_probabilities_are_given(client: Any, alternatives: int):
    """Also none but the chosen token's, which llama.cpp does not give by itself."""
    logprobs = (
        client.completions.create(**WORDS | {"max_tokens": 2}, logprobs=alternatives).choices[0].logprobs
    )

    assert logprobs.tokens == ["Hello!", " I"]
    assert logprobs.text_offset == [0, 6]
    assert len(logprobs.token_logprobs) == 2
    assert (logprobs.top_logprobs is None) == (alternatives == 0)
    assert all(len(top) == 2 for top in logprobs.top_logprobs or ())


def test_a_template_is_put_around_where_it_is_asked(client: Any):
    """An OpenAI-like server does it for chats alone; by the template, the model knows that it was asked."""
    plain = client.completions.create(model="greeting", prompt="Hello!", extra_body={"raw": False})

    assert plain.choices[0].text == GREETING.answer


@pytest.mark.parametrize("is_stream", [False, True], ids=["plain", "streamed"])
def test_ollama_is_asked_to_generate(gateway: Gateway, client: Any, double: Double, is_stream: bool):
    """With its template, as its own /v1/completions does, and without thinking."""
    frames = (generated("Hel", done=False, thinking="Hm."), generated("lo", done=False), generated(""))
    double.scripts["/api/generate"] = stream(*frames) if is_stream else answer(200, generated("Hello"))
    asked = {"model": "double", "prompt": "Once", "suffix": "end.", "max_tokens": 9, "stop": ["x"], "n": 2}

    answered = client.completions.create(**asked, seed=7, stream=is_stream)

    texts = ["", ""]
    for choice in (one for chunk in (answered if is_stream else [answered]) for one in chunk.choices):
        texts[choice.index] += choice.text
    assert texts == ["Hello", "Hello"]
    first, second = (one.json() for one in double.inference[-2:])
    assert first == {
        "model": "double:latest",
        "prompt": "Once",
        "suffix": "end.",
        "stream": is_stream,
        "truncate": False,
        "think": False,
        "options": {"num_predict": 9, "stop": ["x"], "seed": 7},
    }
    assert second == {**first, "options": {**first["options"], "seed": 8}}


def test_all_answers_are_charged(gateway: Gateway, client: Any, double: Double):
    """The row has the sum of what the backend counted."""
    double.scripts["/api/generate"] = answer(200, generated("Hello"))

    answered = client.completions.with_raw_response.create(model="double", prompt=["a", "b"], n=2)

    row = gateway.row_of(answered.headers["x-request-id"])
    assert (row["operation"], row["prompt_tokens"], row["completion_tokens"]) == (
        "completions",
        4 * 26,
        4 * 3,
    )
    assert answered.parse().usage.total_tokens == 4 * 29


def test_a_budget_holds_for_all_answers(gateway: Gateway):
    """What is left is shared among them: none is longer than was granted."""
    gateway.json("create-tenant", "--name", "completers", "--total-tokens", "1400")
    key = gateway.json("create-key", "--tenant", "completers", "--name", "only")["key"]

    with gateway.client() as client:
        client.headers["authorization"] = f"Bearer {key}"
        answered = client.post("/v1/completions", json={"model": "greeting", "prompt": "Hello there", "n": 4})
        refused = client.post("/v1/completions", json={"model": "greeting", "prompt": "Hello there", "n": 8})

    assert answered.status_code == 200
    assert answered.json()["usage"]["completion_tokens"] <= 1400 - 4 * 256
    assert refused.json()["error"]["code"] == "request_too_expensive"


@pytest.mark.parametrize("model", ["greeting", "double"])
def test_all_answers_of_a_stream_are_charged(gateway: Gateway, double: Double, model: str):
    """By the ledger, as the caller is told: not only the first of them."""
    double.scripts["/api/generate"] = stream(generated("Hi", done=False), generated(""))
    name = f"streamers of {model}"
    gateway.json("create-tenant", "--name", name)
    key = gateway.json("create-key", "--tenant", name, "--name", "only")["key"]
    asked = {"model": model, "prompt": "Hello there", "n": 4, "stream": True, "max_tokens": 8}

    with gateway.client() as client:
        client.headers["authorization"] = f"Bearer {key}"
        told = client.post("/v1/completions", json={**asked, "stream_options": {"include_usage": True}})
    (usage,) = (json.loads(line[6:])["usage"] for line in told.text.splitlines() if '"usage":{' in line)

    def charged() -> int:
        usage = gateway.json("show-tenant", "--name", name)["usage"]
        return int(usage["total_tokens"]["tenant"]["used"])

    assert usage["completion_tokens"] > 4
    assert wait_until(lambda: charged() == usage["total_tokens"], 20), (charged(), usage)


ERRORS: dict[str, tuple[dict[str, Any], int, str]] = {
    "an empty prompt": ({"prompt": ""}, 400, "prompt"),
    "the best of several": ({"best_of": 3}, 400, "best_of"),
    "a suffix that the server would ignore": ({"suffix": "x"}, 400, "suffix"),
    "tokens to Ollama": ({"model": "double", "prompt": [1, 2]}, 400, "prompt"),
    "a prompt beyond the context": ({"prompt": "long " * 20_000}, 400, "prompt"),
    "an unknown model": ({"model": "nope"}, 404, "model"),
}


@pytest.mark.parametrize(("fields", "status", "param"), ERRORS.values(), ids=ERRORS)
def test_what_cannot_be_is_told(gateway: Gateway, fields: dict[str, Any], status: int, param: str):
    with gateway.client() as client:
        answered = client.post("/v1/completions", json=WORDS | fields)

    assert answered.status_code == status
    assert answered.json()["error"]["param"] == param
