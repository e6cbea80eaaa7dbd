"""LiteLLM with the provider that is named on the command line: `openai`, `ollama_chat` or `anthropic`."""

import asyncio
import json
import sys
from typing import Any

import litellm
from pydantic import BaseModel

from tests.conformance.clients.telling import Models, Report, perform, pieces_of, read_stage, refusal

stage = read_stage()
PROVIDER = sys.argv[1]
# Where each provider's routes begin.
BASE = f"{stage.url}/v1" if PROVIDER == "openai" else stage.url


class Answer(BaseModel):
    says: str
    sure: bool


def asked_of(model: str, key: str = stage.key, below: str = "") -> Any:
    """What a call takes; `below` is a path of the gateway to call under."""
    return {
        "model": f"{PROVIDER}/{model}",
        "messages": stage.messages,
        "api_key": key,
        "api_base": f"{stage.url}{below}" if below else BASE,
        "max_retries": 0,
        "num_retries": 0,
    }


def chat(models: Models) -> Report:
    return {"text": litellm.completion(**asked_of(models.chat)).choices[0].message.content}


def stream(models: Models) -> Report:
    chunks = litellm.completion(**asked_of(models.chat), stream=True)
    return pieces_of([chunk.choices[0].delta.content or "" for chunk in chunks])


def stream_in_coroutines(models: Models) -> Report:
    async def read() -> list[str]:
        chunks = await litellm.acompletion(**asked_of(models.chat), stream=True)
        return [chunk.choices[0].delta.content or "" async for chunk in chunks]

    return pieces_of(asyncio.run(read()))


def tools(models: Models) -> Report:
    asked = asked_of(models.chat) | {"tools": [stage.tool]}
    return _go_on(asked, litellm.completion(**asked).choices[0].message)


def tools_streamed(models: Models) -> Report:
    asked = asked_of(models.chat) | {"tools": [stage.tool]}
    chunks = list(litellm.completion(**asked, stream=True))
    whole: Any = litellm.stream_chunk_builder(chunks, messages=stage.messages)
    return _go_on(asked, whole.choices[0].message)


def _go_on(asked: Any, message: Any) -> Report:
    """Answer the call, and read what is said then."""
    (call,) = message.tool_calls
    result = {"role": "tool", "tool_call_id": call.id, "name": call.function.name, "content": "sunny"}
    last = litellm.completion(**asked | {"messages": [*stage.messages, message, result]})
    called = [call.function.name, json.loads(call.function.arguments)]
    return {"called": called, "text": last.choices[0].message.content}


def structured(models: Models) -> Report:
    answer = litellm.completion(**asked_of(models.chat), response_format=Answer)
    return Answer.model_validate_json(answer.choices[0].message.content).model_dump()


def embeddings(models: Models) -> Report:
    provider = "openai" if PROVIDER == "openai" else "ollama"
    found = litellm.embedding(
        model=f"{provider}/{models.embedding}", input=stage.texts, api_key=stage.key, api_base=BASE
    )
    return {"vectors": [item["embedding"] for item in found.data]}


def errors(models: Models) -> Report:
    def ask(asked: Any) -> object:
        return litellm.completion(**asked)

    return {
        "wrong key": refusal(lambda: ask(asked_of(models.chat, "wrong"))),
        "unknown model": refusal(lambda: ask(asked_of("nope"))),
        "over limit": refusal(lambda: ask(asked_of(models.chat, stage.limited_key))),
        # Whatever is called below it: LiteLLM has no call for what changes models.
        "blocked": refusal(lambda: ask(asked_of(models.chat, below="/api/blobs"))),
    }


def leave(models: Models) -> Report:
    chunks: Any = litellm.completion(**asked_of(models.endless), stream=True)
    for _ in range(3):
        next(chunks)
    chunks.completion_stream.close()
    return {}


perform(
    stage,
    chat,
    stream,
    stream_in_coroutines,
    tools,
    tools_streamed,
    structured,
    errors,
    leave,
    *([] if PROVIDER == "anthropic" else [embeddings]),
)
