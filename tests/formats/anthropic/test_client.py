"""Anthropic's own Python client, fed with what is written here: no server, no socket."""

from collections.abc import Sequence

import anthropic
import httpx2
import orjson
import pytest
from anthropic.types import MessageParam, TextBlock, ThinkingBlock, ToolUseBlock

from gateway.errors import BackendFailed, GatewayError, Overloaded, RateLimited
from gateway.formats.anthropic import PING, ChatWriter, read_chat, write_chat_answer
from gateway.formats.chat import AnswerStamp, ChatCall, Delta, Event, Finish, Message, ToolCall, ToolCalls
from gateway.formats.dialects import render
from gateway.formats.sse import CONTENT_TYPE
from gateway.model import Surface, Usage

STAMP = AnswerStamp("req_01J", "llama3", 1_700_000_000, lambda: 1_700_000_001.0)
CALL = ChatCall(model="llama3", messages=(Message("user", "Hi"),), stream=True)
HI: list[MessageParam] = [{"role": "user", "content": "Hi"}]
EVENTS: Sequence[Event] = (
    Delta("", "2+2"),
    Delta("Hel"),
    Delta("lo"),
    ToolCalls((ToolCall("a", "add", {"x": 1}), ToolCall("", "sub", {}))),
    Finish("tool_calls", Usage(30, 20)),
)


def client(
    body: bytes, content_type: bytes = b"application/json", status: int = 200, seen: list[bytes] | None = None
) -> anthropic.Anthropic:
    """The official client; every request of it gets this answer, and its body is `seen`."""

    def answered(request: httpx2.Request) -> httpx2.Response:
        if seen is not None:
            seen.append(request.content)
        headers = [(b"content-type", content_type), (b"request-id", b"req_01J")]
        return httpx2.Response(status, content=body, headers=headers)

    return anthropic.Anthropic(
        api_key="nz_x",
        base_url="http://gateway",
        max_retries=0,
        http_client=httpx2.Client(transport=httpx2.MockTransport(answered)),
        _strict_response_validation=True,
    )


def check(message: anthropic.types.Message) -> None:
    """What all of EVENTS come to, streamed or not."""
    thinking, text, add, sub = message.content
    assert isinstance(thinking, ThinkingBlock)
    assert isinstance(text, TextBlock)
    assert isinstance(add, ToolUseBlock)
    assert isinstance(sub, ToolUseBlock)
    assert (thinking.thinking, thinking.signature, text.text) == ("2+2", "unsigned", "Hello")
    assert [(call.id[:6], call.name, call.input) for call in (add, sub)] == [
        ("a", "add", {"x": 1}),
        ("toolu_", "sub", {}),
    ]
    assert (message.id, message.model, message.stop_reason) == ("msg_req_01J", "llama3", "tool_use")
    assert (message.usage.input_tokens, message.usage.output_tokens) == (30, 20)


def test_the_client_reads_a_stream() -> None:
    """Pings are skipped, wherever they stand; the true count of the prompt replaces the estimate."""
    writer = ChatWriter(STAMP, CALL)
    frames = PING + PING.join(writer.write([event]) for event in EVENTS)

    with client(frames, CONTENT_TYPE).messages.stream(model="llama3", max_tokens=9, messages=HI) as stream:
        assert list(stream.text_stream) == ["Hel", "lo"]
        check(stream.get_final_message())


def test_the_client_reads_a_whole_answer() -> None:
    """With strict validation: every required key is there."""
    body = write_chat_answer(EVENTS, STAMP, CALL)

    check(client(body).messages.create(model="llama3", max_tokens=9, messages=HI))


def test_the_client_sends_an_answer_back() -> None:
    """As its documentation shows it: the content as it came, and the results of the calls."""
    body, seen = write_chat_answer(EVENTS, STAMP, CALL), list[bytes]()
    with client(body, seen=seen) as official:
        message = official.messages.create(model="llama3", max_tokens=9, messages=HI)
        results: MessageParam = {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "a", "content": "3", "is_error": True}],
        }
        official.messages.create(model="llama3", max_tokens=9, messages=[*HI, message.to_param(), results])

    _, said, result = read_chat(orjson.loads(seen[1])).messages
    assert (said.content, said.thinking, said.tool_calls[0]) == (
        "Hello",
        "2+2",
        ToolCall("a", "add", {"x": 1}),
    )
    assert result == Message("tool", "Error: 3", tool_call_id="a")


def test_the_client_raises_at_a_broken_stream() -> None:
    """Our sentence, after the text that came before it."""
    writer = ChatWriter(STAMP, CALL)
    frames = writer.write([Delta("Hel")]) + writer.fail(BackendFailed("The model's server broke off."))
    stream = client(frames, CONTENT_TYPE).messages.create(
        model="llama3", max_tokens=9, messages=HI, stream=True
    )

    with pytest.raises(anthropic.APIStatusError) as caught:
        list(stream)

    assert (caught.value.type, caught.value.api_message) == ("api_error", "The model's server broke off.")


@pytest.mark.parametrize(
    ("error", "raised", "kind"),
    [
        (RateLimited("Slow down.", retry_after_s=9), anthropic.RateLimitError, "rate_limit_error"),
        (Overloaded("Too much."), anthropic.InternalServerError, "overloaded_error"),
        (BackendFailed("It broke."), anthropic.InternalServerError, "api_error"),
    ],
    ids=["429", "503", "502"],
)
def test_the_client_knows_our_errors(
    error: GatewayError, raised: type[anthropic.APIStatusError], kind: str
) -> None:
    with (
        client(render(error, Surface.ANTHROPIC, "req_01J"), status=error.status) as official,
        pytest.raises(raised) as caught,
    ):
        official.messages.create(model="llama3", max_tokens=9, messages=HI)

    assert (caught.value.type, caught.value.request_id) == (kind, "req_01J")
    assert caught.value.api_message == error.sentence
