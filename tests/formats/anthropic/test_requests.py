"""gateway.formats.anthropic.requests: whole bodies, and what they ask of the answer."""

from typing import Any

import pytest
from attrs import evolve

from gateway.errors import GatewayError, InvalidRequest, UnsupportedField
from gateway.formats.anthropic.requests import HARMLESS, read_chat, read_counted
from gateway.formats.chat import ChatCall, Format, Message, Sampling

HI: dict[str, Any] = {"model": "llama3", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
CALL = ChatCall("llama3", (Message("user", "Hi"),), stream=False, sampling=Sampling(max_tokens=9))
SCHEMA = {"type": "object"}
FORMAT = {"type": "json_schema", "schema": SCHEMA}


def thinks(think: bool | str | None, *dropped: str) -> ChatCall:
    """The call that thinks so, if the model is able to."""
    return evolve(CALL, think=think, think_if_able=think not in (None, False), dropped=dropped)


@pytest.mark.parametrize(
    ("fields", "call"),
    [
        pytest.param({}, CALL, id="the least"),
        pytest.param({"stream": None, "thinking": None, "mcp_servers": None}, CALL, id="null is absent"),
        pytest.param({"stream": True}, evolve(CALL, stream=True), id="stream"),
        pytest.param(
            {"temperature": 0.5, "top_p": 0.9, "top_k": 5, "stop_sequences": ["END", "\n"], "num_ctx": 4096},
            evolve(
                CALL,
                sampling=Sampling(
                    max_tokens=9, temperature=0.5, top_p=0.9, top_k=5, stop=("END", "\n"), num_ctx=4096
                ),
            ),
            id="sampling",
        ),
        pytest.param(
            {"messages": [*HI["messages"], {"role": "assistant", "content": "{"}]},
            evolve(CALL, messages=(*CALL.messages, Message("assistant", "{")), continues=True),
            id="an answer that is begun",
        ),
        pytest.param({"keep_alive": "5m"}, evolve(CALL, keep_alive=300), id="Ollama's keep_alive"),
        pytest.param(
            {"output_config": {"format": FORMAT}}, evolve(CALL, format=Format(SCHEMA)), id="a format"
        ),
        pytest.param(
            {"output_format": FORMAT}, evolve(CALL, format=Format(SCHEMA)), id="a format of the betas"
        ),
        pytest.param(
            {"thinking": {"type": "enabled", "budget_tokens": 2048}},
            thinks(True, "budget_tokens"),
            id="enabled",
        ),
        pytest.param({"thinking": {"type": "disabled"}}, thinks(False), id="disabled"),
        pytest.param(
            {"thinking": {"type": "adaptive", "display": "summarized"}}, thinks(None), id="adaptive"
        ),
        pytest.param(
            {"thinking": {"type": "adaptive", "display": "omitted"}},
            evolve(CALL, omit_thinking=True),
            id="not to be shown",
        ),
        pytest.param({"output_config": {"effort": "low"}}, thinks("low"), id="an effort"),
        pytest.param(
            {"thinking": {"type": "enabled"}, "output_config": {"effort": "xhigh"}},
            thinks("max"),
            id="a great one",
        ),
        pytest.param(
            {"thinking": {"type": "disabled"}, "output_config": {"effort": "max"}},
            thinks(False, "effort"),
            id="an effort without thinking",
        ),
        pytest.param(
            {"think": "high", "thinking": {"type": "disabled"}},
            evolve(CALL, think="high"),
            id="Ollama's think",
        ),
        pytest.param(
            {"context_management": {"edits": []}},
            evolve(CALL, dropped=("context_management",)),
            id="what to forget",
        ),
    ],
)
def test_a_chat_is_read(fields: dict[str, Any], call: ChatCall) -> None:
    """What the caller asked for, and no more."""
    assert read_chat(HI | fields) == call


@pytest.mark.parametrize("name", sorted(HARMLESS))
def test_harmless_fields_are_ignored(name: str) -> None:
    """They change no answer; naming them as dropped would only worry callers."""
    assert read_chat({**HI, name: {"any": "thing"}}) == CALL


@pytest.mark.parametrize(
    ("fields", "error", "param"),
    [
        pytest.param({"max_tokens": None}, InvalidRequest, "max_tokens", id="no max_tokens"),
        pytest.param({"max_tokens": 0}, InvalidRequest, "max_tokens", id="no tokens at all"),
        pytest.param({"model": ""}, InvalidRequest, "model", id="no model"),
        pytest.param({"messages": None}, InvalidRequest, "messages", id="no messages"),
        pytest.param({"messages": {}}, InvalidRequest, "messages", id="messages are no array"),
        pytest.param({"system": 1}, InvalidRequest, "system", id="a system prompt that is no text"),
        pytest.param({"MODEL": "other"}, InvalidRequest, "MODEL", id="a look-alike"),
        pytest.param({"ſtream": True}, InvalidRequest, "ſtream", id="a look-alike by folding"),
        pytest.param({"stream": "yes"}, InvalidRequest, "stream", id="stream is no boolean"),
        pytest.param({"temperature": 2.5}, InvalidRequest, "temperature", id="too hot"),
        pytest.param({"top_k": -1}, InvalidRequest, "top_k", id="fewer than none"),
        pytest.param({"stop_sequences": [""]}, InvalidRequest, "stop_sequences", id="stop at nothing"),
        pytest.param({"stop_sequences": ["x"] * 65}, InvalidRequest, "stop_sequences", id="too many stops"),
        pytest.param({"frobnicate": 1}, UnsupportedField, "frobnicate", id="an unknown field"),
        pytest.param({"mcp_servers": [{}]}, UnsupportedField, "mcp_servers", id="servers of tools"),
        pytest.param({"container": "x"}, UnsupportedField, "container", id="a container"),
        pytest.param({"inference_geo": "eu"}, UnsupportedField, "inference_geo", id="a promise of where"),
        pytest.param({"seed": 1}, UnsupportedField, "seed", id="OpenAI's field"),
        pytest.param({"thinking": {"type": "on"}}, InvalidRequest, "thinking.type", id="an unknown mode"),
        pytest.param({"thinking": {}}, InvalidRequest, "thinking.type", id="no mode"),
        pytest.param(
            {"thinking": {"type": "enabled", "budget_tokens": 0}},
            InvalidRequest,
            "thinking.budget_tokens",
            id="no budget",
        ),
        pytest.param(
            {"thinking": {"type": "enabled", "effort": "low"}},
            UnsupportedField,
            "thinking.effort",
            id="elsewhere",
        ),
        pytest.param({"think": "hard"}, InvalidRequest, "think", id="an unknown level"),
        pytest.param(
            {"output_config": {"effort": "huge"}},
            InvalidRequest,
            "output_config.effort",
            id="an unknown effort",
        ),
        pytest.param(
            {"output_config": {"task_budget": {}}},
            UnsupportedField,
            "output_config.task_budget",
            id="an unknown part of the output",
        ),
        pytest.param(
            {"output_config": {"format": {"type": "grammar"}}},
            InvalidRequest,
            "output_config.format.type",
            id="an unknown format",
        ),
        pytest.param(
            {"output_config": {"format": {"type": "json_schema"}}},
            InvalidRequest,
            "output_config.format.schema",
            id="no schema",
        ),
        pytest.param(
            {"output_config": {"format": FORMAT}, "output_format": FORMAT},
            InvalidRequest,
            "output_format",
            id="two formats",
        ),
        pytest.param({"keep_alive": "long"}, InvalidRequest, "keep_alive", id="no duration"),
    ],
)
def test_a_chat_that_cannot_be_is_refused(
    fields: dict[str, Any], error: type[GatewayError], param: str
) -> None:
    """The error names the field."""
    with pytest.raises(error) as refused:
        read_chat(HI | fields)

    assert (type(refused.value), refused.value.param) == (error, param)


def test_what_is_counted_needs_no_bound_and_is_no_stream() -> None:
    """And anything that it has beside is held to the same rules."""
    body = {name: value for name, value in HI.items() if name != "max_tokens"}

    assert read_counted(body | {"stream": True}) == evolve(CALL, sampling=Sampling())
    with pytest.raises(UnsupportedField):
        read_counted(body | {"frobnicate": 1})
