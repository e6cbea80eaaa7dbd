"""OpenAI's client for Python: chat, completions, embeddings, responses."""

import asyncio
import json
from typing import Any

import openai
from pydantic import BaseModel

from tests.conformance.clients.telling import Models, Report, perform, pieces_of, read_stage, refusal

stage = read_stage()
client = openai.OpenAI(base_url=f"{stage.url}/v1", api_key=stage.key, max_retries=0)
FLAT_TOOL: Any = {"type": "function", **stage.tool["function"]}


class Answer(BaseModel):
    says: str
    sure: bool


def chat(models: Models) -> Report:
    answer = client.chat.completions.create(model=models.chat, messages=stage.messages)
    return {"text": answer.choices[0].message.content}


def stream(models: Models) -> Report:
    chunks = client.chat.completions.create(model=models.chat, messages=stage.messages, stream=True)
    return pieces_of([chunk.choices[0].delta.content or "" for chunk in chunks])


def stream_in_coroutines(models: Models) -> Report:
    async def read() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{stage.url}/v1", api_key=stage.key) as other:
            chunks = await other.chat.completions.create(
                model=models.chat, messages=stage.messages, stream=True
            )
            return [chunk.choices[0].delta.content or "" async for chunk in chunks]

    return pieces_of(asyncio.run(read()))


def tools(models: Models) -> Report:
    asked: Any = {"model": models.chat, "messages": stage.messages, "tools": [stage.tool]}
    return _go_on(asked, client.chat.completions.create(**asked).choices[0].message)


def tools_streamed(models: Models) -> Report:
    asked: Any = {"model": models.chat, "messages": stage.messages, "tools": [stage.tool]}
    with client.chat.completions.stream(**asked) as events:
        return _go_on(asked, events.get_final_completion().choices[0].message)


def _go_on(asked: Any, message: Any) -> Report:
    """Answer the call, and read what is said then."""
    (call,) = message.tool_calls
    result = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
    told = message.to_dict(exclude_none=True, mode="json")
    for one in told["tool_calls"]:  # as the client's own helper parses them
        one["function"].pop("parsed_arguments", None)
    last = client.chat.completions.create(**asked | {"messages": [*stage.messages, told, result]})
    called = [call.function.name, json.loads(call.function.arguments)]
    return {"called": called, "text": last.choices[0].message.content}


def structured(models: Models) -> Report:
    answer = client.chat.completions.parse(
        model=models.chat, messages=stage.messages, response_format=Answer
    ).choices[0]
    assert answer.message.parsed is not None
    return answer.message.parsed.model_dump()


def embeddings(models: Models) -> Report:
    """In base64, which the client asks for unless told otherwise."""
    found = client.embeddings.create(model=models.embedding, input=stage.texts)
    return {"vectors": [item.embedding for item in found.data]}


def completion(models: Models) -> Report:
    answer = client.completions.create(model=models.chat, prompt=stage.question)
    return {"text": answer.choices[0].text}


def completion_streamed(models: Models) -> Report:
    chunks = client.completions.create(model=models.chat, prompt=stage.question, stream=True)
    return pieces_of([chunk.choices[0].text for chunk in chunks])


def responses(models: Models) -> Report:
    return {"text": client.responses.create(model=models.chat, input=stage.question).output_text}


def responses_streamed(models: Models) -> Report:
    events = client.responses.create(model=models.chat, input=stage.question, stream=True)
    return pieces_of([event.delta for event in events if event.type == "response.output_text.delta"])


def responses_tools(models: Models) -> Report:
    response = client.responses.create(model=models.chat, input=stage.question, tools=[FLAT_TOOL])
    (call,) = [item for item in response.output if item.type == "function_call"]
    told: Any = [
        *stage.messages,
        *(item.to_dict() for item in response.output),
        {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"},
    ]
    last = client.responses.create(model=models.chat, input=told, tools=[FLAT_TOOL])
    return {"called": [call.name, json.loads(call.arguments)], "text": last.output_text}


def responses_structured(models: Models) -> Report:
    response = client.responses.parse(model=models.chat, input=stage.question, text_format=Answer)
    assert response.output_parsed is not None
    return response.output_parsed.model_dump()


def listed(models: Models) -> Report:
    found = {model.id for model in client.models.list()}
    return {
        "listed": f"{models.chat}:latest" in found or models.chat in found,
        "retrieved": client.models.retrieve(f"library/{models.chat}").id == f"library/{models.chat}",
    }


def errors(models: Models) -> Report:
    def ask(other: openai.OpenAI, model: str = models.chat) -> object:
        return other.chat.completions.create(model=model, messages=stage.messages)

    return {
        "wrong key": refusal(lambda: ask(client.with_options(api_key="wrong"))),
        "unknown model": refusal(lambda: ask(client, "nope")),
        "over limit": refusal(lambda: ask(client.with_options(api_key=stage.limited_key))),
        "blocked": refusal(
            lambda: client.with_options(base_url=stage.url).post("/api/pull", cast_to=object, body={})
        ),
    }


def leave(models: Models) -> Report:
    chunks = client.chat.completions.create(model=models.endless, messages=stage.messages, stream=True)
    for _ in range(3):
        next(chunks)
    chunks.close()
    return {}


perform(
    stage,
    chat,
    stream,
    stream_in_coroutines,
    tools,
    tools_streamed,
    structured,
    embeddings,
    completion,
    completion_streamed,
    responses,
    responses_streamed,
    responses_tools,
    responses_structured,
    listed,
    errors,
    leave,
)
