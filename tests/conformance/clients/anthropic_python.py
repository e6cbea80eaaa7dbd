"""Anthropic's client for Python."""

import asyncio
from typing import Any

import anthropic
from pydantic import BaseModel

from tests.conformance.clients.telling import Models, Report, perform, pieces_of, read_stage, refusal

stage = read_stage()
client = anthropic.Anthropic(base_url=stage.url, api_key=stage.key, max_retries=0)
TOOL: Any = {
    "name": stage.tool["function"]["name"],
    "description": stage.tool["function"]["description"],
    "input_schema": stage.tool["function"]["parameters"],
}


class Answer(BaseModel):
    says: str
    sure: bool


def asked_of(model: str) -> Any:
    return {"model": model, "max_tokens": 500, "messages": stage.messages}


def chat(models: Models) -> Report:
    (block,) = client.messages.create(**asked_of(models.chat)).content
    return {"text": block.text}


def stream(models: Models) -> Report:
    with client.messages.stream(**asked_of(models.chat)) as events:
        return pieces_of(list(events.text_stream))


def stream_in_coroutines(models: Models) -> Report:
    async def read() -> list[str]:
        async with (
            anthropic.AsyncAnthropic(base_url=stage.url, auth_token=stage.key) as other,
            other.messages.stream(**asked_of(models.chat)) as events,
        ):
            return [text async for text in events.text_stream]

    return pieces_of(asyncio.run(read()))


def tools(models: Models) -> Report:
    asked = asked_of(models.chat) | {"tools": [TOOL]}
    return _go_on(asked, client.messages.create(**asked))


def tools_streamed(models: Models) -> Report:
    asked = asked_of(models.chat) | {"tools": [TOOL]}
    with client.messages.stream(**asked) as events:
        return _go_on(asked, events.get_final_message())


def _go_on(asked: Any, message: Any) -> Report:
    """Answer the call, and read what is said then."""
    (call,) = [block for block in message.content if block.type == "tool_use"]
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "sunny"}
    told = [
        *stage.messages,
        {"role": "assistant", "content": message.content},
        {"role": "user", "content": [result]},
    ]
    last = client.messages.create(**asked | {"messages": told})
    return {"called": [call.name, call.input], "text": last.content[0].text}


def structured(models: Models) -> Report:
    message = client.messages.parse(**asked_of(models.chat), output_format=Answer)
    assert message.parsed_output is not None
    return message.parsed_output.model_dump()


def counted(models: Models) -> Report:
    count = client.messages.count_tokens(model=models.chat, messages=stage.messages)
    return {"tokens": count.input_tokens > 0}


def errors(models: Models) -> Report:
    def ask(other: anthropic.Anthropic, model: str = models.chat) -> object:
        return other.messages.create(**asked_of(model))

    return {
        "wrong key": refusal(lambda: ask(client.with_options(api_key="wrong"))),
        "unknown model": refusal(lambda: ask(client, "nope")),
        "over limit": refusal(lambda: ask(client.with_options(api_key=stage.limited_key))),
        "blocked": refusal(lambda: client.post("/api/pull", cast_to=object, body={})),
    }


def leave(models: Models) -> Report:
    events = client.messages.create(**asked_of(models.endless) | {"max_tokens": 9000}, stream=True)
    for _ in range(5):
        next(events)
    events.close()
    return {}


perform(
    stage,
    chat,
    stream,
    stream_in_coroutines,
    tools,
    tools_streamed,
    structured,
    counted,
    errors,
    leave,
)
