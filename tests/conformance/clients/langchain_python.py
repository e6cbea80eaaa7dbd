"""LangChain with the integration that is named on the command line: `openai` or `ollama`."""

import asyncio
import sys
from typing import Any

from langchain_core.messages import HumanMessage, ToolMessage
from langchain_ollama import ChatOllama, OllamaEmbeddings
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel

from tests.conformance.clients.telling import Models, Report, perform, pieces_of, read_stage, refusal

stage = read_stage()
IS_OPENAI = sys.argv[1] == "openai"
ASKED = [HumanMessage(stage.question)]


class Answer(BaseModel):
    says: str
    sure: bool


def model_of(name: str, key: str = stage.key, below: str = "") -> Any:
    """A chat model; `below` is a path of the gateway to call under."""
    if IS_OPENAI:
        return ChatOpenAI(
            model=name, api_key=key, base_url=f"{stage.url}{below or '/v1'}", max_retries=0, timeout=60
        )
    return ChatOllama(model=name, base_url=f"{stage.url}{below}", client_kwargs=headers_of(key))


def headers_of(key: str) -> Any:
    return {"headers": {"Authorization": f"Bearer {key}"}}


def chat(models: Models) -> Report:
    return {"text": model_of(models.chat).invoke(ASKED).content}


def stream(models: Models) -> Report:
    return pieces_of([piece.content for piece in model_of(models.chat).stream(ASKED)])


def stream_in_coroutines(models: Models) -> Report:
    async def read() -> list[str]:
        return [piece.content async for piece in model_of(models.chat).astream(ASKED)]

    return pieces_of(asyncio.run(read()))


def tools(models: Models) -> Report:
    bound = model_of(models.chat).bind_tools([stage.tool])
    return _go_on(bound, bound.invoke(ASKED))


def tools_streamed(models: Models) -> Report:
    bound = model_of(models.chat).bind_tools([stage.tool])
    first, *others = bound.stream(ASKED)
    return _go_on(bound, sum(others, first))


def _go_on(bound: Any, message: Any) -> Report:
    """Answer the call, and read what is said then."""
    (call,) = message.tool_calls
    result = ToolMessage("sunny", tool_call_id=call["id"], name=call["name"])
    return {"called": [call["name"], call["args"]], "text": bound.invoke([*ASKED, message, result]).content}


def structured(models: Models) -> Report:
    """By a schema of the answer, which both integrations do unless told otherwise."""
    answer: Any = model_of(models.chat).with_structured_output(Answer).invoke(ASKED)
    return dict(answer.model_dump())


def structured_by_a_tool(models: Models) -> Report:
    """By a tool that has to be called."""
    answerer = model_of(models.chat).with_structured_output(Answer, method="function_calling")
    return dict(answerer.invoke(ASKED).model_dump())


def embeddings(models: Models) -> Report:
    """As texts: by default, langchain-openai sends tokens of OpenAI's, by a vocabulary that it downloads."""
    embedder: Any
    if IS_OPENAI:
        embedder = OpenAIEmbeddings(
            model=models.embedding,
            api_key=stage.key,
            base_url=f"{stage.url}/v1",
            check_embedding_ctx_length=False,
        )
    else:
        embedder = OllamaEmbeddings(
            model=models.embedding, base_url=stage.url, client_kwargs=headers_of(stage.key)
        )
    return {"vectors": embedder.embed_documents(stage.texts)}


def errors(models: Models) -> Report:
    def ask(model: Any) -> object:
        return model.invoke(ASKED)

    return {
        "wrong key": refusal(lambda: ask(model_of(models.chat, "wrong"))),
        "unknown model": refusal(lambda: ask(model_of("nope"))),
        "over limit": refusal(lambda: ask(model_of(models.chat, stage.limited_key))),
        # Whatever is called below it: LangChain has no call for what changes models.
        "blocked": refusal(lambda: ask(model_of(models.chat, below="/api/blobs"))),
    }


def leave(models: Models) -> Report:
    pieces = model_of(models.endless).stream(ASKED)
    for _ in range(3):
        next(pieces)
    pieces.close()
    return {}


perform(
    stage,
    chat,
    stream,
    stream_in_coroutines,
    tools,
    tools_streamed,
    structured,
    structured_by_a_tool,
    embeddings,
    errors,
    leave,
)
