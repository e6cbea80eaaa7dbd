"""The demo model, asked over the real engine's HTTP."""

import json
from typing import Any

import pytest

from gateway.demo.engine import Engine
from gateway.demo.scripts import GREETING
from tests.engines import WEATHER_TOOL, ask, ask_json

CHAT = "/v1/chat/completions"
QUESTION = {"role": "user", "content": "What is the weather in Paris, please?"}


def message(engine: Engine, *messages: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """The assistant's message in answer to `messages`."""
    answer = ask_json(engine, CHAT, {"messages": messages, **fields})
    found: dict[str, Any] = answer["choices"][0]["message"]
    return found


def events(body: bytes) -> list[Any]:
    """The JSON objects of a whole event stream, which has to end with [DONE]."""
    *lines, done = [line.removeprefix(b"data: ") for line in body.splitlines() if line.startswith(b"data: ")]
    assert done == b"[DONE]"
    return [json.loads(line) for line in lines]


def test_it_streams_its_greeting_word_by_word(engine_greeting: Engine):
    """Each scripted word is one token, and each token one chunk, at the default temperature."""
    status, body = ask(engine_greeting, CHAT, {"messages": [QUESTION], "stream": True})

    words = [event["choices"][0]["delta"].get("content") for event in events(body)]
    spoken = [word for word in words if word]
    assert status == 200
    assert "".join(spoken) == GREETING.answer
    assert len(spoken) == len(GREETING.answer.split())


@pytest.mark.parametrize("temperature", [0.0, 0.8, 2.0])
def test_every_temperature_gives_the_same_words(engine_greeting: Engine, temperature: float):
    """The scripted word leads by a logit of 100, so sampling finds no other."""
    answer = message(engine_greeting, QUESTION, temperature=temperature, top_p=1.0, min_p=0.0, top_k=0)

    assert answer["content"] == GREETING.answer


def test_the_prompt_is_counted_by_a_real_tokenizer(engine_greeting: Engine):
    """English text takes two to five bytes per token, and a longer prompt takes more tokens."""
    text = (
        "Please explain the answer in about three words, and write down where the system has its files. " * 10
    )

    tokens = ask_json(engine_greeting, "/tokenize", {"content": text})["tokens"]

    assert 2 < len(text) / len(tokens) < 5
    assert ask_json(engine_greeting, "/detokenize", {"tokens": tokens})["content"] == text


@pytest.mark.parametrize("text", ["", " ", "naïve 東京 🦙", "<|answer|></s>", "a\r\n\tb\x00"])
def test_any_text_is_answered(engine_greeting: Engine, text: str):
    """What no piece covers is spelled in bytes."""
    assert message(engine_greeting, {"role": "user", "content": text})["content"] == GREETING.answer


@pytest.mark.parametrize("choice", ["auto", "required"])
def test_an_offered_tool_is_called_and_its_result_answered(engine_greeting: Engine, choice: str):
    """The whole round trip of a tool call ends in words."""
    asked: dict[str, Any] = {"tools": [WEATHER_TOOL], "tool_choice": choice}

    call = message(engine_greeting, QUESTION, **asked)
    result = {"role": "tool", "tool_call_id": call["tool_calls"][0]["id"], "content": "18 °C"}
    reply = message(engine_greeting, QUESTION, call, result, tools=[WEATHER_TOOL])

    function = call["tool_calls"][0]["function"]
    assert (function["name"], json.loads(function["arguments"])) == ("get_weather", {"city": "Paris"})
    assert reply == {"role": "assistant", "content": GREETING.tool_answer}


def test_a_tool_that_the_script_does_not_know_is_called_too(engine_greeting: Engine):
    """The engine's grammar leads the model through any other tool."""
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    tool = {"type": "function", "function": {"name": "count", "parameters": schema}}

    (call,) = message(engine_greeting, QUESTION, tools=[tool])["tool_calls"]

    assert (call["function"]["name"], json.loads(call["function"]["arguments"])) == ("count", {"n": 0})


def test_structured_output_follows_its_schema(engine_greeting: Engine):
    """A forbidden word gives way to the shortest way to a complete document."""
    schema = {
        "type": "object",
        "properties": {"says": {"type": "string"}, "sure": {"type": "boolean"}, "age": {"type": "integer"}},
        "required": ["says", "sure", "age"],
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}

    content = message(engine_greeting, QUESTION, response_format=wanted)["content"]

    assert json.loads(content) == {"says": GREETING.answer, "sure": False, "age": 0}


def test_the_model_has_its_public_name(engine_greeting: Engine):
    """Callers see the alias, never the path of the file."""
    (model,) = ask_json(engine_greeting, "/v1/models")["data"]

    assert (model["id"], model["meta"]["n_ctx"]) == ("greeting", GREETING.context)
