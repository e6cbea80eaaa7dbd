"""Requests arrive as they were meant: what a surface and a kind of backend can both say is never lost.

Where a protocol is spoken on both sides, our own reader or writer plays the side that isn't ours.
"""

from collections.abc import Callable

import orjson
import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from gateway.formats import ollama, openai
from gateway.formats.chat import (
    ChatCall,
    Format,
    Image,
    Message,
    Sampling,
    Tool,
    ToolCall,
    with_tool_ids,
)
from gateway.formats.parts import parts_of
from gateway.formats.translation import READERS, upstream_of
from gateway.model import JsonObject, Operation
from tests.formats.samples import PNG

maybe = st.none()
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
said = texts.filter(bool)
names = st.text("abc_", min_size=1, max_size=8)
objects = st.dictionaries(names, st.integers(-5, 5) | texts | st.lists(st.booleans(), max_size=2), max_size=3)
SCHEMA: JsonObject = {"type": "object", "properties": {"x": {"type": "string"}}, "required": ["x"]}
IMAGE = Image(PNG, "image/png")


@st.composite
def conversations(draw: st.DrawFn) -> tuple[Message, ...]:
    """Turns as every protocol has them: one after the other, each call with its id, and answered by it."""
    messages: list[Message] = []
    if draw(st.booleans()):
        messages.append(Message("system", draw(said)))
    for turn in range(draw(st.integers(0, 2))):
        messages.append(Message("user", draw(said), images=(IMAGE,) * draw(st.integers(0, 2))))
        calls = tuple(
            ToolCall(f"c{turn}{number}", draw(names), draw(objects))
            for number in range(draw(st.integers(0, 2)))
        )
        thinking = draw(st.just("") | said)
        messages.append(Message("assistant", draw(said), thinking=thinking, tool_calls=calls))
        messages += (Message("tool", draw(said), tool_call_id=call.id, tool_name=call.name) for call in calls)
    return (*messages, Message("user", draw(said)))


samplings = st.builds(
    Sampling,
    max_tokens=st.integers(1, 999),
    temperature=maybe | st.floats(0, 2),
    top_p=maybe | st.floats(0, 1),
    top_k=maybe | st.integers(0, 99),
    stop=st.lists(said, max_size=4).map(tuple),
)
tools = st.builds(Tool, names, texts, st.just(SCHEMA))
chats = st.builds(
    ChatCall,
    model=names,
    messages=conversations(),
    stream=st.booleans(),
    sampling=samplings,
    tools=st.lists(tools, max_size=2, unique_by=lambda tool: tool.name).map(tuple),
    format=maybe | st.just(Format(SCHEMA)),
    think=st.sampled_from([None, True, False, "low", "medium", "high", "max"]),
)


def anthropic_body(call: ChatCall) -> JsonObject:
    """The call as Anthropic's clients write it."""
    first = call.messages[0]
    system = first.content if first.role == "system" else None
    body: JsonObject = {
        "model": call.model,
        "max_tokens": call.sampling.max_tokens,
        "messages": [_anthropic_turn(one) for one in call.messages if one.role != "system"],
        "stream": call.stream,
        "system": system,
        "temperature": call.sampling.temperature,
        "top_p": call.sampling.top_p,
        "top_k": call.sampling.top_k,
        "stop_sequences": list(call.sampling.stop),
        "tools": [
            {"name": tool.name, "description": tool.description, "input_schema": tool.parameters}
            for tool in call.tools
        ],
        "think": call.think,
    }
    form = {"type": "json_schema", "schema": call.format.schema} if call.format else None
    return body | {"output_config": {"format": form} if form else None}


def _anthropic_turn(message: Message) -> JsonObject:
    if message.role == "tool":
        block: JsonObject = {"type": "tool_result", "tool_use_id": message.tool_call_id}
        return {"role": "user", "content": [block | {"content": message.content}]}
    blocks: list[JsonObject] = []
    if message.thinking:
        blocks.append({"type": "thinking", "thinking": message.thinking, "signature": ""})
    blocks.append({"type": "text", "text": message.content})
    blocks += (
        {"type": "image", "source": {"type": "base64", "media_type": image.media_type, "data": image.base64}}
        for image in message.images
    )
    blocks += (
        {"type": "tool_use", "id": call.id, "name": call.name, "input": call.arguments}
        for call in message.tool_calls
    )
    return {"role": message.role, "content": blocks}


def responses_body(call: ChatCall) -> JsonObject:
    """The call as clients of the Responses API write it."""
    first = call.messages[0]
    form = (
        {"type": "json_schema", "name": "n", "schema": call.format.schema}
        if call.format
        else {"type": "text"}
    )
    return {
        "model": call.model,
        "instructions": first.content if first.role == "system" else None,
        "input": [item for one in call.messages if one.role != "system" for item in _items(one)],
        "stream": call.stream,
        "max_output_tokens": call.sampling.max_tokens,
        "temperature": call.sampling.temperature,
        "top_p": call.sampling.top_p,
        "top_k": call.sampling.top_k,
        "stop": list(call.sampling.stop),
        "tools": [
            {
                "type": "function",
                "name": tool.name,
                "description": tool.description,
                "parameters": tool.parameters,
            }
            for tool in call.tools
        ],
        "text": {"format": form},
        "think": call.think,
        "store": False,
    }


def _items(message: Message) -> list[JsonObject]:
    if message.role == "tool":
        item = {"type": "function_call_output", "call_id": message.tool_call_id, "output": message.content}
        return [item]
    kind = "output_text" if message.role == "assistant" else "input_text"
    parts: list[JsonObject] = [{"type": kind, "text": message.content}]
    parts += (
        {"type": "input_image", "image_url": f"data:{image.media_type};base64,{image.base64}"}
        for image in message.images
    )
    items: list[JsonObject] = []
    if message.thinking:
        summary = [{"type": "summary_text", "text": message.thinking}]
        items.append({"type": "reasoning", "summary": summary})
    items.append({"role": message.role, "content": parts})
    items += (
        {
            "type": "function_call",
            "call_id": call.id,
            "name": call.name,
            "arguments": orjson.dumps(call.arguments).decode(),
        }
        for call in message.tool_calls
    )
    return items


# How callers of each surface write the call, and what a backend of each kind reads of what it is sent.
CALLERS: dict[Operation, Callable[[ChatCall], JsonObject]] = {
    Operation.CHAT: lambda call: ollama.write_chat(call, call.model).body,
    Operation.CHAT_COMPLETIONS: lambda call: openai.write_chat(call, call.model).body,
    Operation.MESSAGES: anthropic_body,
    Operation.RESPONSES: responses_body,
}
BACKENDS = {"ollama": ollama.read_chat, "openai": openai.read_chat}


def meant(call: ChatCall) -> ChatCall:
    """The call without what only one of the sides has a word for."""
    return ChatCall(
        model=call.model,
        messages=call.messages,
        stream=call.stream,
        sampling=call.sampling,
        tools=call.tools,
        format=call.format and Format(call.format.schema),
        think=call.think,
    )


@pytest.mark.parametrize("kind", BACKENDS)
@pytest.mark.parametrize("surface", CALLERS, ids=lambda operation: operation.value)
@given(call=chats)
def test_a_request_arrives_as_it_was_meant(surface: Operation, kind: str, call: ChatCall):
    """Turns, images, thinking, calls and their answers, tools, schema, sampling, streamed or not."""
    read = READERS[surface](orjson.loads(orjson.dumps(CALLERS[surface](call))))
    (part,) = parts_of(read)
    sent = upstream_of(kind, part, "m").request.body
    arrived = BACKENDS[kind](orjson.loads(orjson.dumps(sent)))

    # llama.cpp and vLLM are always asked for a stream.
    stream = True if kind == "openai" else call.stream
    assert meant(arrived) == evolve(meant(call), model="m", stream=stream)


@pytest.mark.parametrize("kind", BACKENDS)
@given(call=chats)
def test_answers_find_their_calls_where_a_client_drops_the_ids(kind: str, call: ChatCall):
    """As Ollama's Python client does, also with several calls in a turn."""
    bare = tuple(
        evolve(
            message,
            tool_calls=tuple(evolve(one, id="") for one in message.tool_calls),
            tool_call_id="",
        )
        for message in call.messages
    )
    body = ollama.write_chat(evolve(call, messages=bare), "m").body

    sent = upstream_of(kind, ollama.read_chat(orjson.loads(orjson.dumps(body))), "m").request.body
    arrived = with_tool_ids(BACKENDS[kind](sent).messages)

    asked = [(one.id, one.name) for message in arrived for one in message.tool_calls]
    answered = [(one.tool_call_id, one.tool_name) for one in arrived if one.role == "tool"]
    assert asked == answered
    assert len({call_id for call_id, _ in asked}) == len(asked), "no id is given twice"


@given(call=chats)
def test_a_call_is_answered_by_its_name_where_a_client_sends_the_id_alone(call: ChatCall):
    """As OpenAI's clients do: Ollama's templates want the name."""
    nameless = tuple(evolve(message, tool_name="") for message in call.messages)
    body = openai.write_chat(evolve(call, messages=nameless), "m").body

    sent = upstream_of("ollama", openai.read_chat(orjson.loads(orjson.dumps(body))), "m").request.body

    assert ollama.read_chat(sent).messages == call.messages
