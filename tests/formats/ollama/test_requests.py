"""gateway.formats.ollama.requests: what Ollama's clients ask for, and what Ollama is asked."""

import orjson
import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from ollama._types import ChatRequest, GenerateRequest

from gateway.errors import InvalidRequest, UnsupportedField
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
)
from gateway.formats.ollama.requests import read_chat, read_generate, write_chat, write_generate
from gateway.formats.strict_json import parse_object
from tests.formats.samples import PNG

HELLO = {"role": "user", "content": "Hi"}
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Look.",
        "parameters": {"type": "object", "properties": {}},
    },
}
FULL_CHAT = {
    "model": "Tiny",
    "messages": [
        {"role": "System", "content": "Be brief."},
        {"role": "user", "content": "What is this?", "images": [PNG]},
        {
            "role": "assistant",
            "content": None,
            "thinking": "Hm.",
            "tool_calls": [
                {"id": "call_1", "function": {"index": 0, "name": "weather", "arguments": {"city": "Bern"}}},
                {"function": {"name": "weather", "arguments": None}},
            ],
        },
        {"role": "tool", "content": "Sun.", "tool_name": "weather", "tool_call_id": "call_1"},
    ],
    "stream": False,
    "format": {"type": "object"},
    "keep_alive": "5m",
    "tools": [WEATHER],
    "options": {
        "temperature": 0,
        "num_predict": 8,
        "stop": ["\n"],
        "num_ctx": 4096,
        "seed": 7.0,
        "num_gpu": 99,
    },
    "think": "high",
    "truncate": True,
    "logprobs": True,
    "top_logprobs": 2,
    "_debug_render_only": True,
    "name": "other",
}


def test_a_chat_with_everything_is_read():
    """All that Ollama takes, save what could hurt others; a name of a model stays as it was written."""
    assert read_chat(FULL_CHAT) == ChatCall(
        model="Tiny",
        messages=(
            Message("system", "Be brief."),
            Message("user", "What is this?", images=(Image(PNG, "image/png"),)),
            Message(
                "assistant",
                thinking="Hm.",
                tool_calls=(ToolCall("call_1", "weather", {"city": "Bern"}), ToolCall("", "weather", {})),
            ),
            Message("tool", "Sun.", tool_name="weather", tool_call_id="call_1"),
        ),
        stream=False,
        sampling=Sampling(max_tokens=8, temperature=0, stop=("\n",), num_ctx=4096, seed=7),
        tools=(Tool("weather", "Look.", {"type": "object", "properties": {}}),),
        format=Format({"type": "object"}),
        think="high",
        top_logprobs=2,
        keep_alive=300,
        truncate=True,
        dropped=("num_gpu",),
    )


def test_a_chat_streams_and_may_be_cut_unless_told_otherwise():
    """Ollama's defaults, which are not OpenAI's."""
    assert read_chat({"model": "tiny", "messages": [HELLO]}) == ChatCall(
        "tiny", (Message("user", "Hi"),), stream=True, truncate=True
    )
    assert read_chat({"model": "tiny", "stream": None, "truncate": None}) == ChatCall(
        "tiny", (), stream=True, truncate=True
    )
    assert read_chat({"model": "tiny", "truncate": False}).truncate is False


def test_a_chat_without_messages_is_read():
    """A command to load or unload the model; the endpoint answers it."""
    assert read_chat({"model": "tiny", "keep_alive": 0}) == ChatCall(
        "tiny", (), stream=True, keep_alive=0, truncate=True
    )


def test_shift_is_a_load_time_option():
    """Another value than the last caller's makes Ollama reload the model: dropped, and named as such."""
    call = read_chat({"model": "tiny", "shift": False, "options": {"num_gpu": 1}})

    assert call == ChatCall("tiny", (), stream=True, truncate=True, dropped=("num_gpu", "shift"))


def test_a_completion_with_everything_is_read():
    """As for a chat; an empty string is no system, template or suffix."""
    body = {"model": "tiny", "prompt": "Hi", "system": "Be brief.", "images": [PNG], "context": [1, 2]}

    assert read_generate(body | {"template": "", "suffix": "", "format": "json"}) == GenerateCall(
        "tiny",
        "Hi",
        stream=True,
        system="Be brief.",
        images=(Image(PNG, "image/png"),),
        context=(1, 2),
        format=Format(),
        truncate=True,
    )


def test_what_ollamas_python_client_sends_is_read():
    """It sends `tools: []` and empty strings for what it was not given."""
    chat = ChatRequest(model="tiny", messages=[HELLO], stream=True, options={"seed": 1}, think=False)
    generate = GenerateRequest(model="tiny", prompt="Hi", suffix="", system="", template="", stream=False)

    assert read_chat(chat.model_dump(exclude_none=True)) == ChatCall(
        "tiny", (Message("user", "Hi"),), stream=True, sampling=Sampling(seed=1), think=False, truncate=True
    )
    assert read_generate(generate.model_dump(exclude_none=True)) == GenerateCall(
        "tiny", "Hi", stream=False, truncate=True
    )


WRONG_CHATS = [
    pytest.param({"model": 1}, "model", id="a model that is no string"),
    pytest.param({"model": ""}, "model", id="no model"),
    pytest.param({"messages": {}}, "messages", id="messages that are no array"),
    pytest.param({"messages": ["Hi"]}, "messages[0]", id="a message that is no object"),
    pytest.param({"messages": [HELLO, {"content": "Hi"}]}, "messages[1].role", id="no role"),
    pytest.param({"messages": [{"role": "root"}]}, "messages[0].role", id="an unknown role"),
    pytest.param(
        {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
        "messages[0].content",
        id="content parts",
    ),
    pytest.param(
        {"messages": [{**HELLO, "Content": "x"}]}, "messages[0].Content", id="Content beside content"
    ),
    pytest.param(
        {"messages": [{**HELLO, "images": [1]}]}, "messages[0].images[0]", id="an image that is no string"
    ),
    pytest.param({"messages": [{**HELLO, "images": ["aGk="]}] * 65}, "messages", id="65 images in all"),
    pytest.param(
        {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}]},
        "messages[0].tool_calls[0].function.arguments",
        id="arguments as a string",
    ),
    pytest.param(
        {"messages": [{"role": "assistant", "tool_calls": [{"id": "1"}]}]},
        "messages[0].tool_calls[0].function",
        id="a call of nothing",
    ),
    pytest.param({"MODEL": "other"}, "MODEL", id="MODEL beside model"),
    pytest.param({"ſtream": True}, "ſtream", id="the long s"),
    pytest.param({"\u212aeep_alive": 0}, "\u212aeep_alive", id="the Kelvin sign"),
    pytest.param({"_Debug_Render_Only": True}, "_Debug_Render_Only", id="a look-alike of an ignored field"),
    pytest.param({"options": {"Num_Predict": 5}}, "options.Num_Predict", id="Num_Predict"),
    pytest.param({"options": {"NUM_GPU": 5}}, "options.NUM_GPU", id="a look-alike of a dropped option"),
    pytest.param({"options": []}, "options", id="options that are no object"),
    pytest.param({"options": {"temperature": "0"}}, "options.temperature", id="temperature as a string"),
    pytest.param({"options": {"num_predict": "100"}}, "options.num_predict", id="num_predict as a string"),
    pytest.param({"options": {"num_predict": 1.7}}, "options.num_predict", id="a broken num_predict"),
    pytest.param({"options": {"seed": True}}, "options.seed", id="true for an integer"),
    pytest.param({"options": {"stop": "\n"}}, "options.stop", id="stop as a string"),
    pytest.param({"options": {"stop": ["a"] * 65}}, "options.stop", id="65 stops"),
    pytest.param({"options": {"num_ctx": 0}}, "options.num_ctx", id="no context"),
    pytest.param({"stream": "true"}, "stream", id="stream as a string"),
    pytest.param({"format": "xml"}, "format", id="an unknown format"),
    pytest.param({"format": []}, "format", id="a format that is no object"),
    pytest.param({"think": "very"}, "think", id="an unknown level of thinking"),
    pytest.param({"think": 1}, "think", id="1 for true"),
    pytest.param({"top_logprobs": 21}, "top_logprobs", id="21 log probabilities"),
    pytest.param({"keep_alive": "300"}, "keep_alive", id="a duration without a unit"),
    pytest.param({"keep_alive": True}, "keep_alive", id="keep_alive as a boolean"),
    pytest.param({"tools": [{"type": "web"}]}, "tools[0].type", id="a tool that is no function"),
    pytest.param({"tools": [{}]}, "tools[0].function", id="a tool without a function"),
    pytest.param({"tools": [{"function": {}}]}, "tools[0].function.name", id="a function without a name"),
    pytest.param({"tools": [WEATHER] * 513}, "tools", id="513 tools"),
]


@pytest.mark.parametrize(("change", "path"), WRONG_CHATS)
def test_a_wrong_field_is_named(change, path):
    """400, with the path of the field: nothing is guessed, and nothing passes that Ollama reads otherwise."""
    with pytest.raises(InvalidRequest) as raised:
        read_chat({"model": "tiny", "messages": [HELLO], **change})

    assert raised.value.param == path


@pytest.mark.parametrize("change", [{"system": "x"}, {"context": [1]}])
def test_a_raw_prompt_has_nothing_around_it(change):
    """Ollama refuses the same."""
    with pytest.raises(InvalidRequest, match="does not support system or context"):
        read_generate({"model": "tiny", "prompt": "Hi", "raw": True, **change})


def test_a_template_of_the_callers_own_is_refused():
    """This one would have the model's server write a gigabyte; what it is for, 'raw' can do."""
    with pytest.raises(UnsupportedField, match="'raw'") as raised:
        read_generate({"model": "tiny", "prompt": "Hi", "template": '{{ printf "%999999999d" 1 }}'})

    assert raised.value.param == "template"


@pytest.mark.parametrize("context", [["1"], [True], [1.5], {}])
def test_a_context_is_integers(context):
    """As a former answer gave it."""
    with pytest.raises(InvalidRequest) as raised:
        read_generate({"model": "tiny", "prompt": "Hi", "context": context})

    assert raised.value.param == "context"


# ── to Ollama ────────────────────────────────────────────────────────────────────────────


def test_a_chat_with_everything_is_written():
    """Built from known fields only: nothing of the received body is forwarded.

    Nor is it said at once that the prompt may be cut: Ollama would do so without a word.
    """
    assert write_chat(read_chat(FULL_CHAT), "library/tiny:1b") == UpstreamRequest(
        "/api/chat",
        {
            "model": "library/tiny:1b",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "What is this?", "images": [PNG]},
                {
                    "role": "assistant",
                    "content": "",
                    "thinking": "Hm.",
                    "tool_calls": [
                        {
                            "id": "call_1",
                            "function": {"index": 0, "name": "weather", "arguments": {"city": "Bern"}},
                        },
                        {"function": {"index": 1, "name": "weather", "arguments": {}}},
                    ],
                },
                {"role": "tool", "content": "Sun.", "tool_name": "weather", "tool_call_id": "call_1"},
            ],
            "stream": False,
            "format": {"type": "object"},
            "options": {"temperature": 0, "seed": 7, "num_ctx": 4096, "num_predict": 8, "stop": ["\n"]},
            "think": "high",
            "logprobs": True,
            "top_logprobs": 2,
            "keep_alive": 300,
            "truncate": False,
            "tools": [WEATHER],
        },
    )


def test_what_ollama_would_not_read_of_a_tool_is_said_in_its_words():
    """Of a property with a reference it would keep nothing."""
    parameters = {
        "type": "object",
        "properties": {"where": {"$ref": "#/$defs/City"}},
        "$defs": {"City": {"type": "string", "description": "A city."}},
    }
    call = ChatCall("tiny", (Message("user", "Hi"),), stream=False, tools=(Tool("f", parameters=parameters),))

    (tool,) = write_chat(call, "tiny").body["tools"]

    assert tool["function"]["parameters"] == {
        "type": "object",
        "properties": {"where": {"type": "string", "description": "A city."}},
    }


def test_a_plain_chat_says_little():
    """What was not given is left to the backend, save what it does by default: stream, and cut prompts."""
    call = ChatCall("tiny", (Message("user", "Hi"),), stream=False)

    assert write_chat(call, "tiny").body == {
        "model": "tiny",
        "messages": [{"role": "user", "content": "Hi"}],
        "stream": False,
        "truncate": False,
    }


def test_a_completion_is_written():
    """As for a chat; empty fields are left out."""
    call = GenerateCall(
        "x", "Hi", stream=True, suffix="!", raw=True, format=Format(), think=False, top_logprobs=0
    )

    assert write_generate(call, "tiny") == UpstreamRequest(
        "/api/generate",
        {
            "model": "tiny",
            "prompt": "Hi",
            "stream": True,
            "truncate": False,
            "suffix": "!",
            "raw": True,
            "format": "json",
            "think": False,
            "logprobs": True,
        },
    )


def test_an_answer_of_a_tool_gets_the_functions_name():
    """OpenAI's clients send the id of the call only, and Ollama's templates want the name."""
    asked = Message("assistant", tool_calls=(ToolCall("call_1", "weather", {}),))
    call = ChatCall("tiny", (asked, Message("tool", "Sun.", tool_call_id="call_1")), stream=False)

    assert write_chat(call, "tiny").body["messages"][1] == {
        "role": "tool",
        "content": "Sun.",
        "tool_name": "weather",
        "tool_call_id": "call_1",
    }


ONE, TWO = Tool("one"), Tool("two")
CHOICES = [
    pytest.param((ONE, TWO), None, ["one", "two"], id="no choice"),
    pytest.param((ONE, TWO), ToolChoice("auto"), ["one", "two"], id="auto"),
    pytest.param((ONE, TWO), ToolChoice("none"), [], id="none"),
    pytest.param((ONE, TWO), ToolChoice("required", "two"), ["two"], id="a named function"),
    pytest.param((ONE,), ToolChoice("required"), ["one"], id="required, of one"),
]


@pytest.mark.parametrize(("tools", "choice", "offered"), CHOICES)
def test_a_tool_choice_is_made_by_what_is_offered(tools, choice, offered):
    """Ollama ignores `tool_choice`: a model can't call what it is not told of."""
    call = ChatCall("tiny", (), stream=False, tools=tools, tool_choice=choice)

    written = write_chat(call, "tiny").body.get("tools", [])

    assert [tool["function"]["name"] for tool in written] == offered


def test_a_choice_among_several_tools_that_must_be_made_is_refused():
    """It would change the answer and can't be honoured: a clear 400, not silence."""
    call = ChatCall("tiny", (), stream=False, tools=(ONE, TWO), tool_choice=ToolChoice("required"))

    with pytest.raises(UnsupportedField) as raised:
        write_chat(call, "tiny")

    assert raised.value.param == "tool_choice"


def test_a_bias_of_tokens_is_refused():
    """Ollama has no word for it, and would ignore it."""
    sampling = Sampling(logit_bias=((5, 1),))

    with pytest.raises(UnsupportedField) as of_chat:
        write_chat(ChatCall("m", (), stream=False, sampling=sampling), "m")
    with pytest.raises(UnsupportedField) as of_generate:
        write_generate(GenerateCall("m", "Hi", stream=False, sampling=sampling), "m")

    assert of_chat.value.param == of_generate.value.param == "logit_bias"


def test_a_choice_of_an_unknown_tool_is_refused():
    """Nothing would be left to call."""
    call = ChatCall("tiny", (), stream=False, tools=(ONE,), tool_choice=ToolChoice("required", "two"))

    with pytest.raises(InvalidRequest) as raised:
        write_chat(call, "tiny")

    assert raised.value.param == "tool_choice"


# ── round trips ──────────────────────────────────────────────────────────────────────────

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
names = st.text("abc_", min_size=1, max_size=4)
maybe = st.none()
objects = st.dictionaries(texts, st.none() | st.booleans() | st.integers(-9, 9) | texts, max_size=2)
images = st.just(Image(PNG, "image/png"))
numbers = st.floats(-2, 2)
samplings = st.builds(
    Sampling,
    max_tokens=maybe | st.integers(0, 9_999),
    temperature=maybe | numbers,
    top_p=maybe | numbers,
    top_k=maybe | st.integers(-1, 99),
    min_p=maybe | numbers,
    typical_p=maybe | numbers,
    seed=maybe | st.integers(-(2**53), 2**53),
    stop=st.lists(texts, max_size=2).map(tuple),
    presence_penalty=maybe | numbers,
    frequency_penalty=maybe | numbers,
    repeat_penalty=maybe | numbers,
    repeat_last_n=maybe | st.integers(-1, 99),
    num_keep=maybe | st.integers(-1, 99),
    num_ctx=maybe | st.integers(1, 9_999),
)
calls = st.builds(ToolCall, id=texts, name=names, arguments=objects)
messages = st.builds(
    Message,
    role=st.sampled_from(["system", "user", "assistant"]),
    content=texts,
    images=st.lists(images, max_size=2).map(tuple),
    thinking=texts,
    tool_calls=st.lists(calls, max_size=2).map(tuple),
) | st.builds(Message, role=st.just("tool"), content=texts, tool_call_id=texts, tool_name=names)
common = {
    "model": names,
    "stream": st.booleans(),
    "sampling": samplings,
    "format": maybe | st.builds(Format, schema=maybe | objects),
    "think": maybe | st.booleans() | st.sampled_from(["low", "medium", "high", "max"]),
    "top_logprobs": maybe | st.integers(0, 20),
    "keep_alive": maybe | st.integers(-1, 600) | st.floats(0, 600),
}
chat_calls = st.builds(
    ChatCall,
    messages=st.lists(messages, max_size=4).map(tuple),
    tools=st.lists(st.builds(Tool, name=names, description=texts, parameters=objects), max_size=2).map(tuple),
    **common,
)
generate_calls = st.builds(
    GenerateCall,
    prompt=texts,
    system=maybe | names,
    suffix=texts,
    images=st.lists(images, max_size=2).map(tuple),
    context=st.lists(st.integers(0, 99_999), max_size=4).map(tuple),
    **common,
)


@given(chat_calls)
def test_a_chat_comes_back_from_ollamas_wire(call):
    """The wire loses nothing that it can say: what one gateway writes another one reads."""
    body = parse_object(orjson.dumps(write_chat(call, call.model).body))

    assert read_chat(body) == call


@given(generate_calls)
def test_a_completion_comes_back_from_ollamas_wire(call):
    """The same for /api/generate."""
    body = parse_object(orjson.dumps(write_generate(call, call.model).body))

    assert read_generate(body) == call


@given(chat_calls)
def test_ollamas_own_types_take_what_is_written(call):
    """The pydantic models of ollama-python validate what a server is sent."""
    ChatRequest.model_validate(write_chat(evolve(call, top_logprobs=None), call.model).body)
