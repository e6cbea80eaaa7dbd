"""OpenAI's own Python client, fed with what is written here: no server, no socket."""

from collections.abc import Sequence

import httpx2
import openai
import pytest
from attrs import evolve

from gateway.errors import BackendFailed
from gateway.formats.chat import AnswerStamp, ChatCall, Delta, Event, Finish, ToolCall, ToolCalls
from gateway.formats.openai.models import write_models
from gateway.formats.openai.writing import ChatWriter, write_chat_answer
from gateway.formats.sse import COMMENT, CONTENT_TYPE
from gateway.model import ModelCard, Usage

STAMP = AnswerStamp("01J", "llama3", 1_700_000_000, lambda: 1_700_000_001.0)
CALL = ChatCall(model="llama3", messages=(), stream=True, include_usage=True)
HI: list[openai.types.chat.ChatCompletionMessageParam] = [{"role": "user", "content": "Hi"}]
EVENTS: Sequence[Event] = (
    Delta("", "2+2"),
    Delta("Hel"),
    Delta("lo"),
    ToolCalls((ToolCall("a", "add", {"x": 1}), ToolCall("", "sub", {}))),
    Finish("tool_calls", Usage(3, 2)),
)


def client(body: bytes, content_type: bytes = b"application/json") -> openai.OpenAI:
    """The official client; every request of it gets this answer."""
    answer = httpx2.Response(200, content=body, headers=[(b"content-type", content_type)])
    transport = httpx2.MockTransport(lambda request: answer)
    return openai.OpenAI(
        api_key="nz_x",
        base_url="http://gateway/v1",
        http_client=httpx2.Client(transport=transport),
        _strict_response_validation=True,
    )


def test_the_client_reads_a_stream() -> None:
    """Heartbeats are skipped; the chunks are put together as by OpenAI's helper for streams."""
    frames = COMMENT + ChatWriter(STAMP, CALL).write(EVENTS)

    with client(frames, CONTENT_TYPE).chat.completions.stream(model="llama3", messages=HI) as stream:
        answer = stream.get_final_completion()

    choice = answer.choices[0]
    assert (answer.id, choice.message.content, choice.finish_reason) == (
        "chatcmpl-01J",
        "Hello",
        "tool_calls",
    )
    assert [(call.function.name, call.function.arguments) for call in choice.message.tool_calls or ()] == [
        ("add", '{"x":1}'),
        ("sub", "{}"),
    ]
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (3, 2)


def test_the_client_raises_at_a_broken_stream() -> None:
    """An APIError with our sentence, after the text that came before it."""
    writer = ChatWriter(STAMP, CALL)
    frames = writer.write([Delta("Hel")]) + writer.fail(
        BackendFailed("The model's server broke off its answer.")
    )
    stream = client(frames, CONTENT_TYPE).chat.completions.create(model="llama3", messages=HI, stream=True)

    assert next(stream).choices[0].delta.content == "Hel"
    with pytest.raises(openai.APIError, match=r"The model's server broke off its answer\."):
        next(stream)


def test_the_client_reads_a_whole_answer() -> None:
    """With strict validation: every required key is there."""
    body = write_chat_answer(EVENTS, STAMP, evolve(CALL, stream=False))
    answer = client(body).chat.completions.create(model="llama3", messages=HI)

    assert answer.choices[0].message.content == "Hello"
    assert answer.choices[0].message.model_extra == {"reasoning": "2+2", "reasoning_content": "2+2"}


def test_the_client_reads_the_list_of_models() -> None:
    """An empty list included."""
    assert [model.id for model in client(write_models([ModelCard("tiny:latest")])).models.list()] == [
        "tiny:latest"
    ]
    assert list(client(write_models([])).models.list()) == []
