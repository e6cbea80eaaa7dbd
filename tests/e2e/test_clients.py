"""The official clients, unchanged, against a running gateway with a real llama.cpp engine behind it."""

import json
from asyncio import StreamReader, StreamWriter
from typing import Any

import ollama
import openai
import pytest

from gateway.demo.engine import Engine
from gateway.demo.scripts import GREETING
from tests.doubles import Double, Script, answer, chat_frame, chat_stream
from tests.engines import WEATHER_TOOL, ask_json
from tests.gateways import Gateway

HELLO: Any = [{"role": "user", "content": "Hello!"}]


@pytest.fixture
def openai_client(gateway: Gateway):
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0) as client:
        yield client


@pytest.fixture
def ollama_client(gateway: Gateway):
    client = ollama.Client(gateway.url, headers=gateway.headers)
    yield client
    client._client.close()


def test_plain_and_streamed_chats_agree_on_both_surfaces(openai_client: Any, ollama_client: Any):
    """Four ways to the same engine: one text, one count of tokens."""
    plain = openai_client.chat.completions.create(model="greeting", messages=HELLO)
    chunks = list(
        openai_client.chat.completions.create(
            model="greeting", messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
    )
    native = ollama_client.chat("greeting", HELLO)
    frames = list(ollama_client.chat("greeting", HELLO, stream=True))

    texts = {
        plain.choices[0].message.content,
        "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices),
        native.message.content,
        "".join(frame.message.content or "" for frame in frames),
    }
    counts = {
        (plain.usage.prompt_tokens, plain.usage.completion_tokens),
        (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens),
        (native.prompt_eval_count, native.eval_count),
        (frames[-1].prompt_eval_count, frames[-1].eval_count),
    }
    assert texts == {GREETING.answer}
    assert len(counts) == 1
    assert min(counts.pop()) > 0


def test_streams_come_in_pieces_and_end_well(openai_client: Any, ollama_client: Any):
    chunks = list(openai_client.chat.completions.create(model="greeting", messages=HELLO, stream=True))
    frames = list(ollama_client.chat("greeting", HELLO, stream=True))

    assert len(chunks) > 10
    assert {chunk.id for chunk in chunks} == {chunks[0].id}
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert all(chunk.usage is None for chunk in chunks), "not asked for"
    assert len(frames) > 10
    assert [frame.done for frame in frames] == [False] * (len(frames) - 1) + [True]
    assert frames[-1].done_reason == "stop"


def test_generate_agrees_with_chat(ollama_client: Any):
    plain = ollama_client.generate("greeting", "Hello!")
    frames = list(ollama_client.generate("greeting", "Hello!", stream=True))

    assert plain.response == "".join(frame.response for frame in frames) == GREETING.answer
    assert (plain.prompt_eval_count, plain.eval_count) == (
        frames[-1].prompt_eval_count,
        frames[-1].eval_count,
    )


def test_output_is_cut_at_the_asked_length(openai_client: Any, ollama_client: Any):
    plain = openai_client.chat.completions.create(model="greeting", messages=HELLO, max_completion_tokens=5)
    native = ollama_client.chat("greeting", HELLO, options={"num_predict": 5})

    assert (plain.choices[0].finish_reason, plain.usage.completion_tokens) == ("length", 5)
    assert (native.done_reason, native.eval_count) == ("length", 5)
    assert plain.choices[0].message.content == native.message.content


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_a_tool_call_goes_round_with_openai(openai_client: Any, stream: bool):
    """The model calls, we answer with the id that it gave, the model goes on in words."""
    asked = {"model": "greeting", "messages": HELLO, "tools": [WEATHER_TOOL]}
    if stream:
        with openai_client.chat.completions.stream(**asked) as events:
            message = events.get_final_completion().choices[0].message
    else:
        message = openai_client.chat.completions.create(**asked).choices[0].message
    (call,) = message.tool_calls

    answer = openai_client.chat.completions.create(
        model="greeting",
        messages=[
            *HELLO,
            {
                "role": "assistant",
                "tool_calls": [
                    {
                        "id": call.id,
                        "type": "function",
                        "function": {"name": call.function.name, "arguments": call.function.arguments},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": call.id, "content": "sunny"},
        ],
        tools=[WEATHER_TOOL],
    )

    assert call.id
    assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"city": "Paris"})
    assert answer.choices[0].message.content == GREETING.tool_answer


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_a_tool_call_goes_round_with_ollama(ollama_client: Any, stream: bool):
    """ollama-python drops the call's id; it is found again by the function's name."""
    if stream:
        frames = list(ollama_client.chat("greeting", HELLO, tools=[WEATHER_TOOL], stream=True))
        message = next(frame.message for frame in frames if frame.message.tool_calls)
    else:
        message = ollama_client.chat("greeting", HELLO, tools=[WEATHER_TOOL]).message
    (call,) = message.tool_calls

    answer = ollama_client.chat(
        "greeting",
        [*HELLO, message, {"role": "tool", "content": "sunny", "tool_name": call.function.name}],
        tools=[WEATHER_TOOL],
    )

    assert (call.function.name, call.function.arguments) == ("get_weather", {"city": "Paris"})
    assert answer.message.content == GREETING.tool_answer


@pytest.mark.parametrize("model", ["greeting", "double"])
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_several_answers_are_given(openai_client: Any, double: Double, model: str, stream: bool):
    """By either kind of backend; each has its index, and the usage is of all of them."""
    double.scripts["/api/chat"] = answer(200, chat_frame(GREETING.answer, done=True))
    one = openai_client.chat.completions.create(model=model, messages=HELLO)
    asked = {"model": model, "messages": HELLO, "n": 3, "seed": 7}
    if stream:
        double.scripts["/api/chat"] = chat_stream([GREETING.answer])
        with openai_client.chat.completions.stream(**asked, stream_options={"include_usage": True}) as events:
            three = events.get_final_completion()
    else:
        three = openai_client.chat.completions.create(**asked)

    assert [choice.index for choice in three.choices] == [0, 1, 2]
    assert [choice.message.content for choice in three.choices] == [GREETING.answer] * 3
    assert three.usage.total_tokens == 3 * one.usage.total_tokens
    if model == "double":
        assert [sent.json()["options"]["seed"] for sent in double.inference[-3:]] == [7, 8, 9]


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_whoever_offers_functions_gets_a_function_call(openai_client: Any, stream: bool):
    """The elder shape goes round, without any id."""
    asked = {"model": "greeting", "messages": HELLO, "functions": [WEATHER_TOOL["function"]]}
    if stream:
        deltas = [
            chunk.choices[0]
            for chunk in openai_client.chat.completions.create(**asked, stream=True)
            if chunk.choices
        ]
        (called,) = [choice.delta.function_call for choice in deltas if choice.delta.function_call]
        reason = deltas[-1].finish_reason
    else:
        choice = openai_client.chat.completions.create(**asked).choices[0]
        called, reason = choice.message.function_call, choice.finish_reason

    answered = openai_client.chat.completions.create(
        model="greeting",
        messages=[
            *HELLO,
            {"role": "assistant", "content": None, "function_call": called.model_dump()},
            {"role": "function", "name": called.name, "content": "sunny"},
        ],
        functions=[WEATHER_TOOL["function"]],
    )

    assert (called.name, json.loads(called.arguments)) == ("get_weather", {"city": "Paris"})
    assert reason == "function_call"
    assert answered.choices[0].message.content == GREETING.tool_answer


@pytest.mark.parametrize("top", [0, 2])
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_log_probabilities_are_given(openai_client: Any, ollama_client: Any, stream: bool, top: int):
    """On both surfaces; also those of the chosen tokens alone."""
    asked = {"model": "greeting", "messages": HELLO, "logprobs": True, "top_logprobs": top}
    answered = openai_client.chat.completions.create(**asked, max_tokens=2, stream=stream)
    choices = [one.choices[0] for one in (answered if stream else [answered])]
    items = [item for choice in choices if choice.logprobs for item in choice.logprobs.content]
    found = ollama_client.chat(**asked, options={"num_predict": 2}, stream=stream)
    native = [item for one in (found if stream else [found]) for item in one.logprobs or ()]

    assert [item.token for item in items] == [item.token for item in native] == ["Hello!", " I"]
    assert [len(item.top_logprobs) for item in items] == [top, top]
    assert [len(item.top_logprobs or ()) for item in native] == [top, top]


def test_a_token_that_is_biased_away_is_not_said(openai_client: Any, double: Double, engine_greeting: Engine):
    """By the engine, which tells its numbers; Ollama has no word for it, and so the request is refused."""
    told = ask_json(
        engine_greeting, "/v1/chat/completions", {"messages": HELLO, "logprobs": True, "top_logprobs": 1}
    )
    items = told["choices"][0]["logprobs"]["content"]
    (token,) = [item["id"] for item in items if item["token"] == " friendly"]
    # The weights are so sure that the largest bias puts the token just below the end: leave no chance.
    asked = {"messages": HELLO, "logit_bias": {str(token): -100}, "temperature": 0}

    said = openai_client.chat.completions.create(model="greeting", **asked).choices[0].message.content
    with pytest.raises(openai.BadRequestError) as refused:
        openai_client.chat.completions.create(model="double", **asked)

    assert said == GREETING.answer.partition(" friendly")[0]
    assert " friendly" in GREETING.answer
    assert refused.value.param == "logit_bias"


def test_an_ollama_backend_serves_both_surfaces(openai_client: Any, ollama_client: Any, double: Double):
    """The same clients to a backend that speaks native Ollama."""
    double.scripts["/api/chat"] = chat_stream()
    frames = list(ollama_client.chat("double", HELLO, stream=True))
    chunks = list(openai_client.chat.completions.create(model="double", messages=HELLO, stream=True))
    double.scripts["/api/chat"] = answer(200, chat_frame("Hello there!", done=True))
    plain = openai_client.chat.completions.create(model="double", messages=HELLO)
    native = ollama_client.chat("double", HELLO)

    assert "".join(frame.message.content for frame in frames) == "Hello there!"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Hello there!"
    assert plain.choices[0].message.content == native.message.content == "Hello there!"
    assert (plain.usage.prompt_tokens, plain.usage.completion_tokens) == (26, 3)
    assert all(one.headers.get("authorization") is None for one in double.inference), "no key goes upstream"


def test_the_models_are_listed_on_both_surfaces(openai_client: Any, ollama_client: Any):
    assert {"greeting", "endless"} <= {model.id for model in openai_client.models.list()}
    assert {"greeting:latest", "double:latest"} <= {model.model for model in ollama_client.list().models}
    assert openai_client.models.retrieve("double:latest").id == "double:latest"
    assert openai_client.models.retrieve("library/greeting").id == "library/greeting"


def test_errors_reach_the_clients_as_their_own(gateway: Gateway, openai_client: Any, ollama_client):
    with pytest.raises(openai.NotFoundError) as missing:
        openai_client.chat.completions.create(model="nope", messages=HELLO)
    with pytest.raises(ollama.ResponseError) as native:
        ollama_client.chat("nope", HELLO)
    with pytest.raises(openai.AuthenticationError) as stranger:
        openai_client.with_options(api_key="wrong").models.list()
    with pytest.raises(openai.BadRequestError) as bad:
        openai_client.chat.completions.create(model="greeting", messages=HELLO, n=129)

    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    assert str(missing.value.request_id).startswith("req_")
    assert native.value.status_code == 404
    assert native.value.error in str(missing.value.body)
    assert stranger.value.code == "invalid_api_key"
    assert bad.value.param == "n"


def test_a_prompt_that_is_too_long_is_told_so(openai_client: Any):
    """llama.cpp's own error, in OpenAI's words."""
    with pytest.raises(openai.BadRequestError) as caught:
        openai_client.chat.completions.create(
            model="greeting", messages=[{"role": "user", "content": "long " * 20_000}]
        )

    assert caught.value.code == "context_length_exceeded"


LONG: Any = [{"role": "user", "content": "Long ago."}, *HELLO]
TOO_LONG = answer(
    400,
    {
        "error": json.dumps(
            {
                "error": {
                    "code": 400,
                    "message": "request (919 tokens) exceeds the available context size (256 tokens)",
                    "type": "exceed_context_size_error",
                    "n_prompt_tokens": 919,
                    "n_ctx": 256,
                }
            }
        )
    },
)


def as_ollama_does(double: Double, cut: Script) -> Script:
    """Refuse what is too long when asked to; else cut it, and say nothing of it."""

    async def script(reader: StreamReader, writer: StreamWriter) -> None:
        refuses = double.received[-1].json()["truncate"] is False
        await (TOO_LONG if refuses else cut)(reader, writer)

    return script


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_a_history_that_does_not_fit_is_cut_and_told(gateway: Gateway, double: Double, stream: bool):
    """Ollama's clients expect the eldest messages to be left out; here they are told so."""
    cut = chat_stream() if stream else answer(200, chat_frame("Hello there!", done=True))
    double.scripts["/api/chat"] = as_ollama_does(double, cut)
    body = {"model": "double", "messages": LONG, "stream": stream}

    with gateway.client() as client:
        native = client.post("/api/chat", json=body)
        asked = client.post("/v1/chat/completions", json=body | {"truncate": True})
        refused = client.post("/api/chat", json=body | {"truncate": False})

    assert (native.status_code, native.headers["x-gateway-truncated"]) == (200, "messages")
    assert (asked.status_code, asked.headers["x-gateway-truncated"]) == (200, "messages")
    assert "there" in native.text
    assert (refused.status_code, refused.json()["error"]) == (
        400,
        "The prompt is longer than the model's context (919 tokens, and the context has 256); shorten it.",
    )
    row = gateway.row_of(native.headers["x-request-id"])
    assert (row["status"], row["prompt_tokens"], row["completion_tokens"]) == (200, 26, 3)


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/chat/completions", {"messages": LONG}),
        ("/v1/completions", {"prompt": "Long ago."}),
        ("/v1/responses", {"input": "Long ago."}),
        ("/v1/messages", {"messages": LONG, "max_tokens": 5}),
    ],
)
def test_other_clients_are_told_what_does_not_fit(
    gateway: Gateway, double: Double, stream: bool, path: str, fields: dict[str, Any]
):
    """By a status that they know: nothing is cut for whoever did not ask for it."""
    for target, frame in (("/api/chat", chat_frame(done=True)), ("/api/generate", {"done": True})):
        double.scripts[target] = as_ollama_does(double, answer(200, frame))

    with gateway.client() as client:
        refused = client.post(path, json={"model": "double", "stream": stream, **fields})

    assert refused.status_code == 400
    assert "longer than the model's context (919 tokens" in refused.json()["error"]["message"]
    if path != "/v1/messages":
        assert refused.json()["error"]["code"] == "context_length_exceeded"
