"""LlamaIndex with the integration that is named on the command line: `openai-like` or `ollama`."""

import asyncio
import gc
import sys
from typing import Any

from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.ollama import OllamaEmbedding
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.ollama import Ollama
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel

from tests.conformance.clients.telling import Models, Report, perform, pieces_of, read_stage, refusal

stage = read_stage()
IS_OPENAI = sys.argv[1] == "openai-like"
ASKED = [ChatMessage(role="user", content=stage.question)]


class Answer(BaseModel):
    says: str
    sure: bool


def get_weather(city: str) -> str:
    """The weather in a city."""
    raise NotImplementedError


def model_of(name: str, key: str = stage.key, below: str = "") -> Any:
    """A chat model; `below` is a path of the gateway to call under."""
    if IS_OPENAI:
        return OpenAILike(
            model=name,
            api_key=key,
            api_base=f"{stage.url}{below or '/v1'}",
            is_chat_model=True,
            is_function_calling_model=True,
            max_retries=0,
            context_window=8192,
        )
    return Ollama(
        model=name,
        base_url=f"{stage.url}{below}",
        headers=headers_of(key),
        request_timeout=60,
        context_window=8192,
    )


def headers_of(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def chat(models: Models) -> Report:
    return {"text": model_of(models.chat).chat(ASKED).message.content}


def stream(models: Models) -> Report:
    return pieces_of([piece.delta or "" for piece in model_of(models.chat).stream_chat(ASKED)])


def stream_in_coroutines(models: Models) -> Report:
    async def read() -> list[str]:
        pieces = await model_of(models.chat).astream_chat(ASKED)
        return [piece.delta or "" async for piece in pieces]

    return pieces_of(asyncio.run(read()))


def completion(models: Models) -> Report:
    return {"text": model_of(models.chat).complete(stage.question).text}


def completion_streamed(models: Models) -> Report:
    return pieces_of([piece.delta for piece in model_of(models.chat).stream_complete(stage.question)])


def tools(models: Models) -> Report:
    model, tool = model_of(models.chat), FunctionTool.from_defaults(get_weather)
    return _go_on(model, tool, model.chat_with_tools([tool], chat_history=ASKED))


def tools_streamed(models: Models) -> Report:
    model, tool = model_of(models.chat), FunctionTool.from_defaults(get_weather)
    *_, last = model.stream_chat_with_tools([tool], chat_history=ASKED)
    return _go_on(model, tool, last)


def _go_on(model: Any, tool: FunctionTool, response: Any) -> Report:
    """Answer the call, and read what is said then."""
    (call,) = model.get_tool_calls_from_response(response)
    told = {"tool_call_id": call.tool_id, "name": call.tool_name}
    result = ChatMessage(role="tool", content="sunny", additional_kwargs=told)
    last = model.chat_with_tools([tool], chat_history=[*ASKED, response.message, result])
    return {"called": [call.tool_name, call.tool_kwargs], "text": last.message.content}


def structured(models: Models) -> Report:
    answer = model_of(models.chat).as_structured_llm(Answer).chat(ASKED).raw
    return dict(answer.model_dump())


def embeddings(models: Models) -> Report:
    embedder: Any
    if IS_OPENAI:
        embedder = OpenAILikeEmbedding(
            model_name=models.embedding, api_key=stage.key, api_base=f"{stage.url}/v1", max_retries=0
        )
    else:
        embedder = OllamaEmbedding(
            models.embedding, base_url=stage.url, client_kwargs={"headers": headers_of(stage.key)}
        )
    return {"vectors": embedder.get_text_embedding_batch(stage.texts)}


def errors(models: Models) -> Report:
    def ask(model: Any) -> object:
        return model.chat(ASKED)

    return {
        "wrong key": refusal(lambda: ask(model_of(models.chat, "wrong"))),
        "unknown model": refusal(lambda: ask(model_of("nope"))),
        "over limit": refusal(lambda: ask(model_of(models.chat, stage.limited_key))),
        # Whatever is called below it: LlamaIndex has no call for what changes models.
        "blocked": refusal(lambda: ask(model_of(models.chat, below="/api/blobs"))),
    }


def leave(models: Models) -> Report:
    pieces = model_of(models.endless).stream_chat(ASKED)
    for _ in range(3):
        next(pieces)
    pieces.close()
    gc.collect()  # the exception that ended it keeps the connection in a cycle, until Python looks for cycles
    return {}


perform(
    stage,
    chat,
    stream,
    stream_in_coroutines,
    completion,
    completion_streamed,
    tools,
    tools_streamed,
    structured,
    embeddings,
    errors,
    leave,
)
