"""Anthropic's official client, unchanged, against a running gateway: a real engine, doubles of both kinds."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import httpx
import pytest

from gateway.demo.engine import Engine
from gateway.demo.scripts import GREETING
from tests.doubles import Double, Script, answer, chat_frame, raw, stream
from tests.engines import WEATHER_TOOL, busy_slots, wait_until
from tests.formats.samples import PNG
from tests.gateways import Gateway

HELLO: Any = [{"role": "user", "content": "Hello!"}]
WEATHER: Any = {
    "name": "get_weather",
    "description": "The weather in a city.",
    "input_schema": WEATHER_TOOL["function"]["parameters"],  # type: ignore[index]
}
ASKED: dict[str, Any] = {"model": "greeting", "max_tokens": 100, "messages": HELLO}
IMAGE: Any = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
SSE_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


def sse(*payloads: dict[str, Any]) -> Script:
    """An answer as vLLM streams it."""
    frames = b"".join(b"data: " + json.dumps(payload).encode() + b"\n\n" for payload in payloads)
    return raw(SSE_HEAD + frames + b"data: [DONE]\n\n")


def choice(delta: dict[str, Any], reason: str | None = None, **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": reason, **more}]}


@pytest.fixture
def client(gateway: Gateway) -> Iterator[Any]:
    with anthropic.Anthropic(base_url=gateway.url, api_key=gateway.key, max_retries=0) as official:
        yield official


@pytest.fixture(scope="module")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Double]]:
    """A client of a gateway whose one backend plays vLLM, and that backend."""
    with Double({"/v1/models": answer(200, {"data": [{"id": "qwen", "owned_by": "vllm"}]})}) as double:
        backends = f"vllm={double.url};kind=openai"
        one = Gateway(tmp_path_factory.mktemp("over vllm"), OLLAMA_BACKENDS=backends)
        key = one.make_first_key()
        try:
            one.start()
            with anthropic.Anthropic(base_url=one.url, api_key=key, max_retries=0) as official:
                yield official, double
        finally:
            one.stop()


# ── over a real engine ───────────────────────────────────────────────────────────────────


def test_plain_and_streamed_answers_agree(gateway: Gateway, client: Any):
    """With each other, and with what the same engine is asked by the other surface."""
    plain = client.messages.create(**ASKED)
    with client.messages.stream(**ASKED) as events:
        names = [event.type for event in events]
        streamed = events.get_final_message()
    with gateway.client() as other:
        counted = other.post("/v1/chat/completions", json=ASKED).json()["usage"]

    assert plain.content[0].text == streamed.content[0].text == GREETING.answer
    assert (plain.stop_reason, streamed.stop_reason) == ("end_turn", "end_turn")
    assert (plain.model, streamed.model) == ("greeting", "greeting")
    assert {(one.usage.input_tokens, one.usage.output_tokens) for one in (plain, streamed)} == {
        (counted["prompt_tokens"], counted["completion_tokens"])
    }
    assert names[:2] == ["message_start", "content_block_start"]
    assert names.count("content_block_delta") > 10
    assert names[-3:] == ["content_block_stop", "message_delta", "message_stop"]


def test_the_output_is_cut_at_the_asked_length(client: Any):
    message = client.messages.create(**ASKED | {"max_tokens": 5})

    assert (message.stop_reason, message.usage.output_tokens) == ("max_tokens", 5)


def test_an_answer_that_is_begun_is_gone_on_with(client: Any):
    """Nothing of the beginning is said again: the caller puts both together."""
    begun = ASKED | {"messages": [*HELLO, {"role": "assistant", "content": "Well,"}]}

    plain = client.messages.create(**begun)
    with client.messages.stream(**begun) as events:
        streamed = events.get_final_message()

    assert plain.content[0].text == streamed.content[0].text == GREETING.answer


@pytest.mark.parametrize("is_stream", [False, True], ids=["plain", "streamed"])
def test_a_tool_call_goes_round(client: Any, is_stream: bool):
    """The model calls, we answer with the id that it gave, the model goes on in words."""
    asked = ASKED | {"tools": [WEATHER]}
    if is_stream:
        with client.messages.stream(**asked) as events:
            message = events.get_final_message()
    else:
        message = client.messages.create(**asked)
    (call,) = [block for block in message.content if block.type == "tool_use"]
    result = {"type": "tool_result", "tool_use_id": call.id, "content": [{"type": "text", "text": "sunny"}]}

    last = client.messages.create(
        **asked
        | {
            "messages": [
                *HELLO,
                {"role": "assistant", "content": message.content},
                {"role": "user", "content": [result]},
            ]
        }
    )

    assert message.stop_reason == "tool_use"
    assert (call.name, call.input) == ("get_weather", {"city": "Paris"})
    assert call.id
    assert (last.stop_reason, last.content[0].text) == ("end_turn", GREETING.tool_answer)


@pytest.mark.parametrize(
    "more",
    [
        pytest.param({"system": "Be brief."}, id="a system prompt"),
        pytest.param({"tools": [WEATHER], "tool_choice": {"type": "auto"}}, id="tools"),
        pytest.param({"messages": [*HELLO, {"role": "assistant", "content": "Well,"}]}, id="an answer begun"),
    ],
)
def test_the_count_of_a_prompt_is_what_its_answer_is_charged(client: Any, more: dict[str, Any]):
    """To the token: the engine that answers is the one that counts."""
    asked = ASKED | more

    told = client.messages.with_raw_response.count_tokens(
        **{name: value for name, value in asked.items() if name != "max_tokens"}
    )

    assert told.parse().input_tokens == client.messages.create(**asked).usage.input_tokens
    assert "x-gateway-estimated" not in told.headers


def test_the_key_may_come_as_x_api_key_and_only_once(gateway: Gateway):
    """As elder clients send it, and curl."""
    with httpx.Client(base_url=gateway.url, trust_env=False) as plain:
        own = plain.post("/v1/messages", json=ASKED, headers={"x-api-key": gateway.key})
        both = plain.post("/v1/messages", json=ASKED, headers={"x-api-key": gateway.key} | gateway.headers)
        elsewhere = plain.post("/v1/chat/completions", json=ASKED, headers={"x-api-key": gateway.key})

    assert [one.status_code for one in (own, both, elsewhere)] == [200, 400, 401]
    assert both.json()["error"]["type"] == "invalid_request_error"
    assert "x-api-key" in both.json()["error"]["message"]


def test_errors_reach_the_client_as_its_own(gateway: Gateway, client: Any):
    """By type, with the field's name and with the id that the audit log has."""
    missing = refused(anthropic.NotFoundError, lambda: client.messages.create(**ASKED | {"model": "nope"}))
    stranger = refused(
        anthropic.AuthenticationError, lambda: client.with_options(api_key="wrong").messages.create(**ASKED)
    )
    unknown = refused(
        anthropic.BadRequestError,
        lambda: client.messages.create(**ASKED, extra_body={"frobnicate": 1}),
    )
    long: Any = [{"role": "user", "content": "long " * 20_000}]
    too_long = refused(
        anthropic.BadRequestError, lambda: client.messages.create(**ASKED | {"messages": long})
    )

    assert (missing.type, stranger.type) == ("not_found_error", "authentication_error")
    assert (unknown.type, too_long.type) == ("invalid_request_error", "invalid_request_error")
    assert "'frobnicate'" in unknown.api_message
    assert "context" in too_long.api_message
    assert missing.body["request_id"] == missing.request_id
    row = gateway.row_of(missing.request_id)
    assert (row["surface"], row["operation"], row["error_code"]) == (
        "anthropic",
        "messages",
        "model_not_found",
    )


def refused(kind: type[anthropic.APIStatusError], ask: Callable[[], Any]) -> Any:
    """The error of this kind that the client raises when it asks so."""
    with pytest.raises(kind) as caught:
        ask()
    return caught.value


def client_of(gateway: Gateway, tenant: str, **policy: int) -> Any:
    """A client of a new tenant with this policy."""
    options = [text for name, value in policy.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    gateway.json("create-tenant", "--name", tenant, *options)
    key = gateway.json("create-key", "--tenant", tenant, "--name", "only")["key"]
    return anthropic.Anthropic(base_url=gateway.url, api_key=key, max_retries=2)


def total_used(gateway: Gateway, tenant: str) -> int:
    shown = gateway.json("show-tenant", "--name", tenant)
    return int(shown["usage"]["total_tokens"]["tenant"]["used"])


def test_a_budget_holds_and_is_told(gateway: Gateway):
    """Every answer tells what is left; the refusal says so that the client does not try again."""
    with client_of(gateway, "anthropic-spent", total_tokens=700) as official:
        told = official.messages.with_raw_response.create(**ASKED)
        used = told.parse().usage
        spent = refused(
            anthropic.RateLimitError, lambda: [official.messages.create(**ASKED) for _ in range(30)]
        )

    assert told.headers["x-budget-remaining-total"] == str(700 - used.input_tokens - used.output_tokens)
    assert spent.type == "rate_limit_error"
    assert "700 tokens in total" in spent.api_message
    assert gateway.row_of(spent.request_id)["error_code"] == "insufficient_quota"
    refusals = gateway.rows("error_code = 'insufficient_quota' AND surface = 'anthropic'")
    assert len(refusals) == 1, "asked once"
    assert wait_until(lambda: 0 < total_used(gateway, "anthropic-spent") <= 700, 5)


def test_a_client_that_leaves_pays_for_what_was_produced(gateway: Gateway, engine_endless: Engine):
    with (
        client_of(gateway, "anthropic-left", total_tokens=10**6) as official,
        official.messages.stream(**ASKED | {"model": "endless", "max_tokens": 9000}) as events,
    ):
        for _, _ in zip(range(20), events.text_stream, strict=False):
            pass

    assert wait_until(lambda: busy_slots(engine_endless) == 0, 1)
    assert wait_until(lambda: total_used(gateway, "anthropic-left") >= 20, 5)


# ── over an Ollama that is a double ──────────────────────────────────────────────────────


def test_ollama_is_asked_in_its_own_words(client: Any, double: Double):
    """Images, a failed tool, thinking and a format arrive; what it thinks comes back as a block."""
    thought = chat_frame(message={"role": "assistant", "content": "", "thinking": "a pixel"})
    double.scripts["/api/chat"] = stream(thought, chat_frame("Red."), chat_frame(done=True))
    call = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"at": 1}}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "blind", "is_error": True}

    with client.messages.stream(
        model="double",
        max_tokens=50,
        system="Be brief.",
        messages=[
            {"role": "user", "content": [IMAGE, {"type": "text", "text": "What?"}]},
            {"role": "assistant", "content": [call]},
            {"role": "user", "content": [result]},
        ],
        thinking={"type": "enabled", "budget_tokens": 1024},
        stop_sequences=["END"],
    ) as events:
        message = events.get_final_message()

    sent = double.inference[-1].json()
    assert sent["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What?", "images": [PNG]},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"id": "toolu_1", "function": {"index": 0, "name": "look", "arguments": {"at": 1}}}
            ],
        },
        {"role": "tool", "content": "Error: blind", "tool_name": "look", "tool_call_id": "toolu_1"},
    ]
    assert (sent["think"], sent["options"]) == (True, {"num_predict": 50, "stop": ["END"]})
    assert [block.type for block in message.content] == ["thinking", "text"]
    assert (message.content[0].thinking, message.content[1].text) == ("a pixel", "Red.")
    assert (message.usage.input_tokens, message.usage.output_tokens) == (26, 3)


def test_what_is_not_done_is_told_in_a_header(client: Any, double: Double):
    double.scripts["/api/chat"] = answer(200, chat_frame("fine", done=True))

    told = client.messages.with_raw_response.create(
        **ASKED | {"model": "double", "thinking": {"type": "enabled", "budget_tokens": 1024}},
        extra_body={"keep_alive": -1, "context_management": {"edits": []}},
    )

    assert told.headers["x-gateway-dropped-options"] == "budget_tokens, context_management, keep_alive"
    assert told.parse().content[0].text == "fine"


def test_a_broken_stream_never_looks_complete(gateway: Gateway, client: Any, double: Double):
    """The client raises, after what came before it."""
    double.scripts["/api/chat"] = stream(chat_frame("Hello"))
    seen: list[str] = []

    events = client.messages.create(**ASKED | {"model": "double", "stream": True})
    broken = refused(anthropic.APIStatusError, lambda: seen.extend(event.type for event in events))

    assert seen == ["message_start", "content_block_start", "content_block_delta"]
    assert (broken.type, broken.status_code) == ("api_error", 200)
    row = gateway.row_of(broken.body["request_id"])
    assert (row["outcome"], row["tokens_estimated"]) == ("backend_failed", 1)


def test_where_nobody_can_count_an_estimate_is_told_as_one(gateway: Gateway, client: Any, double: Double):
    """Ollama shows no tokenizer. A count is a request like any other, and costs nothing."""
    before = len(double.inference)
    asked: Any = {"model": "double", "messages": [{"role": "user", "content": "four bytes a token" * 20}]}

    told = client.messages.with_raw_response.count_tokens(**asked)
    missing = refused(
        anthropic.NotFoundError, lambda: client.messages.count_tokens(**asked | {"model": "nope"})
    )

    assert told.headers["x-gateway-estimated"] == "input_tokens"
    assert told.parse().input_tokens == 18 * 20 // 4 + 5
    assert len(double.inference) == before
    row = gateway.row_of(told.headers["request-id"])
    assert (row["operation"], row["status"], row["prompt_tokens"]) == ("count_tokens", 200, None)
    assert missing.type == "not_found_error"


# ── over a vLLM that is a double ─────────────────────────────────────────────────────────


@pytest.mark.parametrize("is_stream", [False, True], ids=["plain", "streamed"])
def test_vllm_is_asked_in_its_own_words(vllm: tuple[Any, Double], is_stream: bool):
    """And what it alone tells, the text that it stopped at, reaches the caller."""
    client, double = vllm
    double.scripts["/v1/chat/completions"] = sse(
        choice({"reasoning": "hm"}),
        choice({"content": '{"a":'}),
        choice({"content": "1}"}, "stop", stop_reason="END"),
        {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}},
    )
    asked = {
        "model": "qwen",
        "max_tokens": 50,
        "messages": HELLO,
        "stop_sequences": ["END"],
        "thinking": {"type": "adaptive"},
        "output_config": {"effort": "high", "format": {"type": "json_schema", "schema": {"type": "object"}}},
        "tools": [WEATHER],
        "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
    }
    if is_stream:
        with client.messages.stream(**asked) as events:
            message = events.get_final_message()
    else:
        message = client.messages.create(**asked)

    sent = double.inference[-1].json()
    assert sent["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert (sent["reasoning_effort"], sent["stop"], sent["max_tokens"]) == ("high", ["END"], 50)
    assert (sent["tool_choice"], sent["parallel_tool_calls"]) == ("required", False)
    assert sent["tools"] == [WEATHER_TOOL]
    assert [block.type for block in message.content] == ["thinking", "text"]
    assert message.content[1].text == '{"a":1}'
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "END")
    assert (message.usage.input_tokens, message.usage.output_tokens) == (7, 3)


def test_vllm_counts_by_its_tokenizer_but_no_images(vllm: tuple[Any, Double]):
    """A count that is no true one is told as an estimate, and so is one for want of any."""
    client, double = vllm
    double.scripts["/tokenize"] = answer(200, {"count": 7, "max_model_len": 4096, "tokens": [1] * 7})
    asked = {"model": "qwen", "messages": HELLO, "tools": [WEATHER], "system": "Be brief."}

    counted = client.messages.with_raw_response.count_tokens(**asked)
    sent = double.inference[-1].json()
    seen = client.messages.with_raw_response.count_tokens(
        model="qwen", messages=[{"role": "user", "content": [IMAGE]}]
    )
    double.scripts["/tokenize"] = answer(500, {"error": "out of memory"})
    broken = client.messages.with_raw_response.count_tokens(**asked)

    assert (counted.parse().input_tokens, counted.headers.get("x-gateway-estimated")) == (7, None)
    assert [message["role"] for message in sent["messages"]] == ["system", "user"]
    assert sent["tools"] == [WEATHER_TOOL]
    assert [one.headers["x-gateway-estimated"] for one in (seen, broken)] == ["input_tokens"] * 2
    assert seen.parse().input_tokens > 1000


def test_a_refusal_of_a_filter_is_told(vllm: tuple[Any, Double]):
    client, double = vllm
    double.scripts["/v1/chat/completions"] = sse(choice({"content": "I"}), choice({}, "content_filter"))

    message = client.messages.create(model="qwen", max_tokens=5, messages=HELLO)

    assert message.stop_reason == "refusal"


def test_vllm_too_gets_images(vllm: tuple[Any, Double]):
    client, double = vllm
    double.scripts["/v1/chat/completions"] = sse(choice({"content": "Red."}, "stop"))

    client.messages.create(model="qwen", max_tokens=5, messages=[{"role": "user", "content": [IMAGE]}])

    (message,) = double.inference[-1].json()["messages"]
    assert message["content"] == [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}]
