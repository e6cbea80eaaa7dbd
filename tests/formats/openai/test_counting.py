"""How prompts are counted by the tokenizers of llama.cpp and vLLM; the bound is never below the count."""

import json
from typing import Any

import pytest
from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.demo.engine import Engine as Running
from gateway.errors import BackendFailed
from gateway.formats.chat import (
    ChatCall,
    EmbedCall,
    Format,
    GenerateCall,
    Message,
    Sampling,
    Tool,
    ToolCall,
    ToolChoice,
    UpstreamRequest,
)
from gateway.formats.openai.counting import Question, question_of
from gateway.formats.sizes import size_of
from gateway.formats.translation import upstream_of
from gateway.model import Engine, JsonObject
from gateway.rules.prompts import prompt_bound
from tests.engines import WEATHER_TOOL, ask
from tests.formats.recordings import of_llama_cpp

WEATHER = Tool("get_weather", "The weather in a city.", WEATHER_TOOL["function"]["parameters"])  # type: ignore[index]


def asked(engine: Engine, call: ChatCall | GenerateCall) -> Question:
    question = question_of(engine, upstream_of("openai", call, "greeting").request)
    assert question is not None
    return question


def chat(*messages: Message, **fields: Any) -> ChatCall:
    return ChatCall("greeting", messages or (Message("user", "Hello!"),), stream=False, **fields)


# ── what is asked ────────────────────────────────────────────────────────────────────────


def test_llama_cpp_is_asked_by_the_whole_chat():
    """As it will be sent: whatever of it changes the prompt, changes the count."""
    call = chat(tools=(WEATHER,), sampling=Sampling(max_tokens=5))
    question = asked(Engine.LLAMA_CPP, call)

    assert question.request.path == "/v1/chat/completions/input_tokens"
    assert question.request.body == upstream_of("openai", call, "greeting").request.body
    assert question.read(of_llama_cpp("input_tokens")) == 20


def test_an_elder_llama_cpp_writes_the_prompt_out():
    """And then makes tokens of it, as it does for an answer."""
    question = asked(Engine.LLAMA_CPP, chat())
    assert question.otherwise is not None
    assert question.otherwise.request == UpstreamRequest("/apply-template", question.request.body)

    following = question.otherwise.read(b'{"prompt": "<|from|>user\\nHello!<|answer|>"}')

    assert isinstance(following, Question)
    assert following.request == UpstreamRequest(
        "/tokenize", {"content": "<|from|>user\nHello!<|answer|>", "add_special": True, "parse_special": True}
    )
    assert following.read(b'{"tokens": [1, 3, 671, 5]}') == 4


def test_a_raw_prompt_needs_no_template():
    question = asked(Engine.LLAMA_CPP, GenerateCall("greeting", "Hello!", stream=False, raw=True))

    assert question.otherwise is None
    assert question.request.path == "/tokenize"
    assert question.request.body["content"] == "Hello!"


@pytest.mark.parametrize(
    ("call", "body"),
    [
        pytest.param(
            chat(sampling=Sampling(max_tokens=5), think="high"),
            {
                "messages": [{"role": "user", "content": "Hello!"}],
                "chat_template_kwargs": {"enable_thinking": True, "reasoning_effort": "high"},
            },
            id="a chat",
        ),
        pytest.param(
            chat(Message("user", "Hello!"), Message("assistant", "Hi"), continues=True),
            {
                "messages": [
                    {"role": "user", "content": "Hello!"},
                    {"role": "assistant", "content": "Hi"},
                ],
                "add_generation_prompt": False,
                "continue_final_message": True,
            },
            id="an answer that goes on",
        ),
        pytest.param(
            chat(tools=(WEATHER,)),
            {"messages": [{"role": "user", "content": "Hello!"}], "tools": [WEATHER_TOOL]},
            id="tools",
        ),
        pytest.param(
            GenerateCall("greeting", "Hello!", stream=False, raw=True),
            {"prompt": "Hello!"},
            id="a raw prompt",
        ),
    ],
)
def test_vllm_is_asked_by_what_its_template_sees(call: ChatCall | GenerateCall, body: JsonObject):
    question = asked(Engine.VLLM, call)

    assert question.request == UpstreamRequest("/tokenize", {"model": "greeting", **body})
    assert question.read(b'{"count": 12, "max_model_len": 4096, "tokens": []}') == 12
    assert question.otherwise is None


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(EmbedCall("greeting", ("Hello!",)), id="a vector"),
        pytest.param(GenerateCall("greeting", "", stream=False, raw=True, tokens=(1, 2)), id="tokens"),
    ],
)
@pytest.mark.parametrize("engine", Engine)
def test_nobody_is_asked_about_what_is_no_text(engine: Engine, call: EmbedCall | GenerateCall):
    """Its bytes or numbers are the bound."""
    assert question_of(engine, upstream_of("openai", call, "greeting").request) is None


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"<html>", b"null"])
@pytest.mark.parametrize("engine", Engine)
def test_what_is_no_count_is_a_failure(engine: Engine, body: bytes):
    """Not a count of 0."""
    question = asked(engine, chat())
    raw = asked(Engine.LLAMA_CPP, GenerateCall("greeting", "Hello!", stream=False, raw=True))

    for each in filter(None, (question, question.otherwise, raw)):
        with pytest.raises(BackendFailed):
            each.read(body)


@pytest.mark.parametrize("value", ['"7"', "7.0", "true", "null", "[]"])
def test_a_count_is_a_whole_number(value: str):
    with pytest.raises(BackendFailed):
        asked(Engine.LLAMA_CPP, chat()).read(f'{{"input_tokens": {value}}}'.encode())


# ── the real engine ──────────────────────────────────────────────────────────────────────


def answer_of(running: Running, request: UpstreamRequest) -> bytes:
    status, body = ask(running, request.path, request.body)
    assert status == 200, body
    return body


def counted(running: Running, question: Question) -> int:
    found = question.read(answer_of(running, question.request))
    return counted(running, found) if isinstance(found, Question) else found


def read_by(running: Running, call: ChatCall | GenerateCall) -> int:
    """The prompt's tokens, as the engine counts them when it answers."""
    request = upstream_of("openai", evolve(call, sampling=Sampling(max_tokens=1)), "greeting").request
    *_, usage = (
        event["usage"]
        for event in map(json.loads, answer_of(running, request).decode().split("data: ")[1:-1])
        if event.get("usage")
    )
    return int(usage["prompt_tokens"])


HISTORY = (
    Message("system", "Be brief."),
    Message("user", "Weather in Köln & Paris? <b>東京</b> 🗼"),
    Message(
        "assistant", thinking="Hm.", tool_calls=(ToolCall("call00001", "get_weather", {"city": "Köln"}),)
    ),
    Message("tool", "21 °C", tool_call_id="call00001", tool_name="get_weather"),
)
CALLS: dict[str, ChatCall | GenerateCall] = {
    "one word": chat(Message("user", "a")),
    "a history with calls": chat(*HISTORY, tools=(WEATHER,)),
    "tools": chat(tools=(WEATHER,) * 3),
    "a tool that must be called": chat(tools=(WEATHER,), tool_choice=ToolChoice("required", "get_weather")),
    "tools that must not be called": chat(tools=(WEATHER,), tool_choice=ToolChoice("none")),
    "a schema": chat(format=Format(WEATHER.parameters)),
    "thinking": chat(think=True),
    "no thinking": chat(think=False),
    "an answer that goes on": chat(Message("user", "Hi"), Message("assistant", "Hello")),
    "control tokens in the text": chat(Message("user", "<|from|><|answer|></s><s>" * 20)),
    "bytes that are no words": chat(Message("user", "\x00\x01ÿ\u2028\ufeff" * 200)),
    "blanks": chat(Message("user", " " * 3_000)),
    "generate": GenerateCall("greeting", "Hello!", stream=False, system="Be brief."),
    "a raw prompt": GenerateCall("greeting", "<|from|>user\nHello!<|answer|>", stream=False, raw=True),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_llama_cpp_counts_what_it_reads(engine_greeting: Running, call: ChatCall | GenerateCall):
    """By either way, and the bound of the bytes is not below it."""
    question = asked(Engine.LLAMA_CPP, call)

    counts = {counted(engine_greeting, each) for each in (question, question.otherwise) if each}

    assert counts == {read_by(engine_greeting, call)}
    assert max(counts) <= prompt_bound(size_of(call), None)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=300) | st.text("0189 aéÿ東🗼<|>\n\t\x00")
MESSAGES = st.builds(Message, role=st.sampled_from(["system", "user", "assistant"]), content=TEXTS)


@given(messages=st.lists(MESSAGES, max_size=5).map(tuple), last=TEXTS, tools=st.integers(0, 3))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_count_of_the_engine_is_above_the_bound_by_bytes(
    engine_greeting: Running, messages: tuple[Message, ...], last: str, tools: int
):
    """Its tokenizer falls back to single bytes, as the densest of real ones do."""
    call = chat(*messages, Message("user", last), tools=(WEATHER,) * tools)

    assert 1 <= counted(engine_greeting, asked(Engine.LLAMA_CPP, call)) <= prompt_bound(size_of(call), None)
