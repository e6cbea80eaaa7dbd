"""Ollama's client for Python."""

import asyncio
from typing import Any

import ollama
from pydantic import BaseModel

from tests.conformance.clients.telling import Models, Report, perform, pieces_of, read_stage, refusal

stage = read_stage()


def client_with(key: str) -> ollama.Client:
    return ollama.Client(stage.url, headers={"Authorization": f"Bearer {key}"})


client = client_with(stage.key)


class Answer(BaseModel):
    says: str
    sure: bool


def chat(models: Models) -> Report:
    return {"text": client.chat(models.chat, stage.messages).message.content}


def stream(models: Models) -> Report:
    frames = client.chat(models.chat, stage.messages, stream=True)
    return pieces_of([frame.message.content or "" for frame in frames])


def stream_in_coroutines(models: Models) -> Report:
    async def read() -> list[str]:
        other = ollama.AsyncClient(stage.url, headers={"Authorization": f"Bearer {stage.key}"})
        frames: Any = await other.chat(models.chat, stage.messages, stream=True)
        return [frame.message.content async for frame in frames]

    return pieces_of(asyncio.run(read()))


def tools(models: Models) -> Report:
    return _go_on(models, client.chat(models.chat, stage.messages, tools=[stage.tool]).message)


def tools_streamed(models: Models) -> Report:
    frames = client.chat(models.chat, stage.messages, tools=[stage.tool], stream=True)
    (message,) = [frame.message for frame in frames if frame.message.tool_calls]
    return _go_on(models, message)


def _go_on(models: Models, message: Any) -> Report:
    """Answer the call, and read what is said then. This client drops a call's id."""
    (call,) = message.tool_calls
    result = {"role": "tool", "content": "sunny", "tool_name": call.function.name}
    last = client.chat(models.chat, [*stage.messages, message, result], tools=[stage.tool])
    return {"called": [call.function.name, call.function.arguments], "text": last.message.content}


def structured(models: Models) -> Report:
    answer = client.chat(models.chat, stage.messages, format=Answer.model_json_schema())
    return Answer.model_validate_json(answer.message.content or "").model_dump()


def embeddings(models: Models) -> Report:
    return {"vectors": client.embed(models.embedding, stage.texts).embeddings}


def embeddings_one_by_one(models: Models) -> Report:
    return {"vectors": [client.embeddings(models.embedding, text).embedding for text in stage.texts]}


def completion(models: Models) -> Report:
    return {"text": client.generate(models.chat, stage.question).response}


def completion_streamed(models: Models) -> Report:
    frames = client.generate(models.chat, stage.question, stream=True)
    return pieces_of([frame.response or "" for frame in frames])


def listed(models: Models) -> Report:
    client.ps()
    return {
        "listed": f"{models.chat}:latest" in {model.model for model in client.list().models},
        "retrieved": bool(client.show(models.chat).modelinfo),
    }


def errors(models: Models) -> Report:
    def ask(other: ollama.Client, model: str = models.chat) -> object:
        return other.chat(model, stage.messages)

    return {
        "wrong key": refusal(lambda: ask(client_with("wrong"))),
        "unknown model": refusal(lambda: ask(client, "nope")),
        "over limit": refusal(lambda: ask(client_with(stage.limited_key))),
        "blocked": refusal(lambda: client.pull(models.chat)),
    }


def leave(models: Models) -> Report:
    frames: Any = client.chat(models.endless, stage.messages, stream=True)
    for _ in range(3):
        next(frames)
    frames.close()
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
    embeddings_one_by_one,
    completion,
    completion_streamed,
    listed,
    errors,
    leave,
)
