"""gateway.formats.openai.requests: whole bodies, from callers and to backends."""

from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import GatewayError, InvalidRequest, UnsupportedField
from gateway.formats.chat import (
    ChatCall,
    Format,
    GenerateCall,
    Image,
    Message,
    Sampling,
    Tool,
    ToolCall,
    ToolChoice,
    UpstreamRequest,
    as_chat,
)
from gateway.formats.openai.other_fields import HARMLESS
from gateway.formats.openai.requests import (
    KNOWN,
    UNSUPPORTED,
    is_completion,
    read_chat,
    write_chat,
    write_completion,
)

HI: dict[str, Any] = {"model": "llama3", "messages": [{"role": "user", "content": "Hi"}]}
CALL = ChatCall(model="llama3", messages=(Message("user", "Hi"),), stream=False)
SCHEMA = {"type": "object"}

# ── from callers ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("fields", "call"),
    [
        pytest.param({}, CALL, id="the least"),
        pytest.param({"stream": None, "n": None, "logit_bias": None}, CALL, id="null is absent"),
        pytest.param({"stream": True}, evolve(CALL, stream=True), id="stream"),
        pytest.param(
            {"stream": True, "stream_options": {"include_usage": True, "include_obfuscation": False}},
            evolve(CALL, stream=True, include_usage=True),
            id="stream with usage",
        ),
        pytest.param({"logprobs": True, "top_logprobs": 2}, evolve(CALL, top_logprobs=2), id="logprobs"),
        pytest.param(
            {"keep_alive": "5m", "think": False}, evolve(CALL, keep_alive=300, think=False), id="Ollama's"
        ),
        pytest.param(
            {"parallel_tool_calls": False}, evolve(CALL, parallel_tool_calls=False), id="one call at a time"
        ),
        pytest.param({"n": 3}, evolve(CALL, n=3), id="several answers"),
        pytest.param(
            {"reasoning_effort": "high"}, evolve(CALL, think="high", think_if_able=True), id="an effort"
        ),
        pytest.param(
            {"functions": [{"name": "add"}], "parallel_tool_calls": True},
            evolve(CALL, tools=(Tool("add"),), parallel_tool_calls=False, as_functions=True),
            id="functions: one call at a time",
        ),
        pytest.param({"max_tokens": 5}, evolve(CALL, sampling=Sampling(max_tokens=5)), id="sampling"),
        pytest.param(
            {"response_format": {"type": "json_object"}},
            evolve(CALL, format=Format()),
            id="structured output",
        ),
        pytest.param(
            {"priority": 1, "vllm_xargs": {}},
            evolve(CALL, dropped=("priority", "vllm_xargs")),
            id="unknown fields",
        ),
        pytest.param(
            {"x\r\nset-cookie: a": 1, "ü": 1, "y" * 65: 1}, CALL, id="unknown names that fit no header"
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


@pytest.mark.parametrize("name", sorted(UNSUPPORTED))
def test_fields_that_change_the_answer_are_refused(name: str) -> None:
    """Silence would be a lie: the caller would take the answer for what it asked for."""
    with pytest.raises(UnsupportedField) as refused:
        read_chat({**HI, name: {"any": "thing"}})

    assert refused.value.param == name


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in UNSUPPORTED.items() for value in values]
)
def test_values_that_ask_for_nothing_are_accepted(name: str, value: Any) -> None:
    """Many clients write out every default."""
    assert read_chat({**HI, name: value}) == CALL


@pytest.mark.parametrize(
    ("fields", "error", "param"),
    [
        pytest.param({"model": None}, InvalidRequest, "model", id="no model"),
        pytest.param({"model": ""}, InvalidRequest, "model", id="an empty model"),
        pytest.param({"messages": None}, InvalidRequest, "messages", id="no messages"),
        pytest.param({"messages": {}}, InvalidRequest, "messages", id="messages are no array"),
        pytest.param({"MODEL": "other"}, InvalidRequest, "MODEL", id="a look-alike"),
        pytest.param({"ſtream": True}, InvalidRequest, "ſtream", id="a look-alike by folding"),
        pytest.param({"Store": True}, InvalidRequest, "Store", id="a look-alike of what is not read"),
        pytest.param({"stream": "yes"}, InvalidRequest, "stream", id="stream is no boolean"),
        pytest.param({"stream_options": {}}, InvalidRequest, "stream_options", id="options without a stream"),
        pytest.param({"n": 129}, InvalidRequest, "n", id="too many answers"),
        pytest.param({"n": 0}, InvalidRequest, "n", id="no answer"),
        pytest.param({"n": True}, InvalidRequest, "n", id="n is no number"),
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


def test_the_names_of_dropped_fields_are_bounded() -> None:
    """They are told in a header, and headers are short."""
    call = read_chat(HI | {f"x{number}": 1 for number in range(1000)})

    assert call.dropped == tuple(f"x{number}" for number in range(32))


# ── to backends ──────────────────────────────────────────────────────────────────────────


def test_a_chat_is_written_for_a_backend() -> None:
    """All that can be said; num_ctx, keep_alive and truncate can't."""
    call = ChatCall(
        model="llama3",
        messages=(Message("system", "Be brief."), Message("user", "Hi")),
        stream=True,
        sampling=Sampling(max_tokens=5, temperature=0, num_ctx=4096),
        tools=(Tool("add", "Adds.", SCHEMA),),
        tool_choice=ToolChoice("auto"),
        format=Format(),
        think="low",
        top_logprobs=2,
        keep_alive=300,
        truncate=True,
        dropped=("x",),
    )

    assert write_chat(call, "meta/Llama-3-8B") == UpstreamRequest(
        "/v1/chat/completions",
        {
            "model": "meta/Llama-3-8B",
            "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": 5,
            "temperature": 0,
            "tools": [
                {
                    "type": "function",
                    "function": {"name": "add", "description": "Adds.", "parameters": SCHEMA},
                }
            ],
            "tool_choice": "auto",
            "response_format": {"type": "json_object"},
            "reasoning_effort": "low",
            "chat_template_kwargs": {"enable_thinking": True},
            "logprobs": True,
            "top_logprobs": 2,
        },
    )


def test_log_probabilities_without_alternatives_ask_for_one() -> None:
    """llama.cpp would send none at all; the caller is shown what it asked for."""
    chat = write_chat(evolve(CALL, top_logprobs=0), "m").body
    completion = write_completion(evolve(GENERATE, raw=True, top_logprobs=0), "m").body

    assert (chat["logprobs"], chat["top_logprobs"], completion["logprobs"]) == (True, 1, 1)


def test_an_answer_that_is_begun_is_gone_on_with() -> None:
    """vLLM would begin another one, behind the caller's."""
    call = evolve(CALL, messages=(*CALL.messages, Message("assistant", "{")), continues=True)

    assert write_chat(call, "m").body == {
        "model": "m",
        "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "{"}],
        "stream": False,
        "add_generation_prompt": False,
        "continue_final_message": True,
    }


def test_the_least_is_written_where_the_least_was_asked() -> None:
    """vLLM refuses stream_options without a stream, and top_logprobs without logprobs."""
    assert write_chat(CALL, "m").body == {
        "model": "m",
        "messages": [{"role": "user", "content": "Hi"}],
        "stream": False,
    }


names = st.text(alphabet="abc_", min_size=1, max_size=8)
texts = st.text(max_size=20)
objects = st.dictionaries(names, st.integers(-5, 5) | texts | st.booleans(), max_size=3)
calls = st.builds(ToolCall, id=names, name=names, arguments=objects)
images = st.sampled_from([Image("iVBORw0KGgo=", "image/png"), Image("/9j/4AAQ", "image/jpeg")])
messages = st.one_of(
    st.builds(Message, st.just("system"), texts),
    st.builds(
        Message,
        st.just("user"),
        texts,
        images=st.lists(images, max_size=2).map(tuple),
        name=st.just("") | names,
    ),
    st.builds(
        Message,
        st.just("assistant"),
        texts,
        thinking=texts,
        tool_calls=st.lists(calls, max_size=2).map(tuple),
    ),
    st.builds(Message, st.just("tool"), texts, tool_call_id=st.just("given"), tool_name=names),
)
tools = st.lists(st.builds(Tool, names, texts, st.just(SCHEMA), st.none() | st.booleans()), max_size=3).map(
    tuple
)
samplings = st.builds(
    Sampling,
    max_tokens=st.none() | st.integers(1, 9999),
    temperature=st.none() | st.floats(0, 2),
    top_p=st.none() | st.floats(0, 1),
    top_k=st.none() | st.integers(-1, 100),
    min_p=st.none() | st.floats(0, 1),
    typical_p=st.none() | st.floats(0, 1),
    seed=st.none() | st.integers(-(2**63), 2**63 - 1),
    stop=st.lists(st.text(min_size=1), max_size=4).map(tuple),
    presence_penalty=st.none() | st.floats(-2, 2),
    frequency_penalty=st.none() | st.floats(-2, 2),
    repeat_penalty=st.none() | st.floats(0, 10),
    repeat_last_n=st.none() | st.integers(-1, 100),
    logit_bias=st.dictionaries(st.integers(0, 99_999), st.floats(-100, 100), max_size=3).map(
        lambda biases: tuple(biases.items())
    ),
)
formats = (
    st.none()
    | st.just(Format())
    | st.builds(Format, st.just(SCHEMA), names, st.none() | st.booleans(), st.just("") | names)
)
thinking = st.sampled_from([None, True, False, "low", "medium", "high", "max"])


@st.composite
def chats(draw: st.DrawFn) -> ChatCall:
    """Any chat that OpenAI's wire can say without loss."""
    stream = draw(st.booleans())
    some_tools = draw(tools)
    choice = st.none() | st.sampled_from([ToolChoice("none"), ToolChoice("auto"), ToolChoice("required")])
    return ChatCall(
        model="llama3",
        messages=tuple(draw(st.lists(messages, min_size=1, max_size=5))),
        stream=stream,
        sampling=draw(samplings),
        tools=some_tools,
        tool_choice=draw(choice) if some_tools else None,
        parallel_tool_calls=draw(st.none() | st.booleans()) if some_tools else None,
        format=draw(formats),
        think=draw(thinking),
        top_logprobs=draw(st.none() | st.integers(1, 20)),
        # Always asked of a backend, whether or not the caller wants it.
        include_usage=stream,
    )


@given(call=chats())
def test_nothing_that_the_wire_can_say_is_lost(call: ChatCall) -> None:
    """A caller's chat that goes to an OpenAI-compatible backend arrives there as it was meant."""
    written = write_chat(call, call.model)

    # That a model may go without thinking was settled before it was written.
    assert evolve(read_chat(written.body), think_if_able=False) == call


def test_no_field_is_both_read_and_refused() -> None:
    """Three tables, one fate for each field."""
    assert len(KNOWN) == len(KNOWN - HARMLESS - UNSUPPORTED.keys()) + len(HARMLESS) + len(UNSUPPORTED)


# ── Ollama's generate, to backends ───────────────────────────────────────────────────────

GENERATE = GenerateCall(model="llama3", prompt="Once", stream=False)


def test_a_raw_completion_is_written() -> None:
    """Without template, so /v1/completions; llama.cpp knows the format there as json_schema."""
    call = evolve(
        GENERATE,
        raw=True,
        stream=True,
        sampling=Sampling(max_tokens=5, stop=("x",)),
        format=Format(SCHEMA),
        top_logprobs=2,
        context=(1, 2),
    )

    assert is_completion(call)
    assert write_completion(call, "m") == UpstreamRequest(
        "/v1/completions",
        {
            "model": "m",
            "prompt": "Once",
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": 5,
            "stop": ["x"],
            "response_format": {"type": "json_schema", "json_schema": {"name": "schema", "schema": SCHEMA}},
            "json_schema": SCHEMA,
            "logprobs": 2,
        },
    )


def test_a_templated_completion_is_written_as_a_chat() -> None:
    """These servers apply the model's template to chats alone."""
    call = evolve(GENERATE, system="Be brief.", images=(Image("/9j/4AAQ", "image/jpeg"),))

    assert not is_completion(call)
    assert write_chat(as_chat(call), "m") == UpstreamRequest(
        "/v1/chat/completions",
        {
            "model": "m",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "Once"},
                        {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,/9j/4AAQ"}},
                    ],
                },
            ],
            "stream": False,
        },
    )


def test_tokens_are_sent_as_they_are() -> None:
    """These servers take the numbers of the model's vocabulary; they have no template around them."""
    call = evolve(GENERATE, prompt="", tokens=(1, 2), raw=None)

    assert is_completion(call)
    assert write_completion(call, "m").body["prompt"] == [1, 2]


@pytest.mark.parametrize(
    ("call", "param"),
    [
        pytest.param(evolve(GENERATE, raw=True, suffix="end."), "suffix", id="a text to fill in"),
        pytest.param(
            evolve(GENERATE, raw=True, images=(Image("/9j/", "image/jpeg"),)), "images", id="images"
        ),
    ],
)
def test_a_raw_completion_that_these_servers_cannot_do_is_refused(call: GenerateCall, param: str) -> None:
    """llama.cpp would ignore the suffix without a word, and no one could tell where an image stands."""
    with pytest.raises(UnsupportedField) as refused:
        write_completion(call, "m")

    assert refused.value.param == param
