"""Answers for Anthropic's clients: events, written as a stream of named events or as one message.

The text of a delta is put together by hand: it is written once for every token of every stream.
"""

from collections.abc import Iterable
from typing import Any, Final

import orjson

from gateway.errors import GatewayError
from gateway.formats import sse
from gateway.formats.chat import AnswerStamp, ChatCall, Delta, Event, Failure, Finish, ToolCall, ToolCalls
from gateway.formats.dialects import anthropic_error
from gateway.formats.joined import Joined, joined
from gateway.formats.sizes import likely_tokens
from gateway.formats.told_calls import ToldCalls
from gateway.model import JsonObject, Usage

# What Anthropic sends while a stream is silent; its clients skip it.
PING: Final = sse.named("ping", b'{"type":"ping"}')

_ID_PREFIX: Final = "msg_"
_CALL_PREFIX: Final = "toolu_"
# Anthropic signs what its models think, and clients send that back. Nobody here checks it, so nobody signs.
_SIGNATURE: Final = "unsigned"
_REASONS: Final = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}

# How blocks begin, how their deltas do, and what is in these.
_TEXT: Final = {"type": "text", "text": ""}
_THINKING: Final = {"type": "thinking", "thinking": "", "signature": ""}
_DELTA_HEAD: Final = (
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":{"type":"%b","%b":'
)
_DELTAS: Final = {
    "text": (b"text_delta", b"text"),
    "thinking": (b"thinking_delta", b"thinking"),
    "tool_use": (b"input_json_delta", b"partial_json"),
}


class ChatWriter:
    """The answer of /v1/messages, streamed: blocks one after another, each begun, filled and ended.

    `message_start` tells an estimate of the prompt's tokens, for it goes out with the first word; the true
    count comes with `message_delta`, and there clients take it from. Where the caller wants no parallel
    calls, the first alone is told.
    """

    content_type = sse.CONTENT_TYPE

    def __init__(self, stamp: AnswerStamp, call: ChatCall) -> None:
        self._stamp = stamp
        self._call = call
        self._calls = ToldCalls(stamp, call, _CALL_PREFIX)
        self._has_begun = False
        # The block that is open: its type ("" for none), its number, and how its deltas begin.
        self._open = ""
        self._index = 0
        self._delta_head = b""

    def write(self, events: Iterable[Event]) -> bytes:
        return b"".join([self._frames(event) for event in events])

    def fail(self, error: GatewayError) -> bytes:
        """Anthropic's error as the last event: without `message_stop` the answer never looks complete."""
        return sse.named("error", orjson.dumps(anthropic_error(error, self._stamp.id)))

    def _frames(self, event: Event) -> bytes:
        match event:
            case Delta():
                return self._filled(_THINKING, event.thinking) + self._filled(_TEXT, event.content)
            case ToolCalls():
                return b"".join([self._tool_use(call) for call in self._calls.told(event.calls)])
            case Finish():
                return self._finish(event)
            case Failure():
                return self.fail(event.error)

    def _filled(self, block: JsonObject, text: str) -> bytes:
        """More text for the open block, or for a new one like this."""
        if not text:
            return b""
        begun = b"" if self._open == block["type"] else self._begin(block)
        is_shown = block is not _THINKING or not self._call.omit_thinking
        return begun + self._delta(text) if is_shown else begun

    def _tool_use(self, call: ToolCall) -> bytes:
        begun = self._begin({"type": "tool_use", "id": call.id, "name": call.name, "input": {}})
        return begun + self._delta(orjson.dumps(call.arguments).decode()) + self._end()

    def _finish(self, finish: Finish) -> bytes:
        reason, stop_sequence = _ending(finish, self._calls, self._call)
        delta = {"stop_reason": reason, "stop_sequence": stop_sequence}
        last = _event("message_delta", delta=delta, usage=_usage(finish.usage)) + _event("message_stop")
        return self._message_start() + self._end() + last

    def _message_start(self) -> bytes:
        if self._has_begun:
            return b""
        self._has_begun = True
        usage = Usage(likely_tokens(self._call), 0)
        return _event("message_start", message=_message(self._stamp, [], (None, None), usage))

    def _begin(self, block: JsonObject) -> bytes:
        before = self._message_start() + self._end()
        self._open = block["type"]
        self._delta_head = _DELTA_HEAD % (self._index, *_DELTAS[self._open])
        return before + _event("content_block_start", index=self._index, content_block=block)

    def _delta(self, text: str) -> bytes:
        return self._delta_head + orjson.dumps(text) + b"}}\n\n"

    def _end(self) -> bytes:
        if not self._open:
            return b""
        index, signed = self._index, b""
        if self._open == "thinking":
            delta = {"type": "signature_delta", "signature": _SIGNATURE}
            signed = _event("content_block_delta", index=index, delta=delta)
        self._open = ""
        self._index += 1
        return signed + _event("content_block_stop", index=index)


def write_chat_answer(events: Iterable[Event], stamp: AnswerStamp, call: ChatCall) -> bytes:
    """The whole message. Raise the error of a Failure, and BackendFailed without a Finish."""
    answer = joined(events, call)
    calls = ToldCalls(stamp, call, _CALL_PREFIX)
    content = _content(answer, calls.told(answer.calls), call)
    ending = _ending(answer.finish, calls, call)
    return orjson.dumps(_message(stamp, content, ending, answer.finish.usage))


def write_count(tokens: int) -> bytes:
    """The answer of /v1/messages/count_tokens."""
    return orjson.dumps({"input_tokens": tokens})


# ── pieces of an answer ──────────────────────────────────────────────────────────────────


def _event(name: str, **fields: Any) -> bytes:
    return sse.named(name, orjson.dumps({"type": name} | fields))


def _message(
    stamp: AnswerStamp,
    content: list[JsonObject],
    ending: tuple[str | None, str | None],
    usage: Usage | None,
) -> JsonObject:
    stop_reason, stop_sequence = ending
    return {
        "id": _ID_PREFIX + stamp.id,
        "type": "message",
        "role": "assistant",
        "model": stamp.model,
        "content": content,
        "stop_reason": stop_reason,
        "stop_sequence": stop_sequence,
        "usage": _usage(usage),
    }


def _content(answer: Joined, told: tuple[ToolCall, ...], call: ChatCall) -> list[JsonObject]:
    """Thinking, text and calls, in this order; none of what there is not."""
    content: list[JsonObject] = []
    if answer.thinking:
        thinking = "" if call.omit_thinking else answer.thinking
        content.append(_THINKING | {"thinking": thinking, "signature": _SIGNATURE})
    if answer.content:
        content.append(_TEXT | {"text": answer.content})
    content += ({"type": "tool_use", "id": one.id, "name": one.name, "input": one.arguments} for one in told)
    return content


def _ending(finish: Finish, calls: ToldCalls, call: ChatCall) -> tuple[str, str | None]:
    """`stop_reason` and `stop_sequence`. Most backends don't say that one of the caller's ended it."""
    if finish.reason == "stop" and finish.stop_sequence in call.sampling.stop:
        return "stop_sequence", finish.stop_sequence
    return _REASONS[calls.reason(finish.reason)], None


def _usage(usage: Usage | None) -> JsonObject:
    """Clients demand both counts. The relay leaves none out: what nobody counted is estimated."""
    counted = usage or Usage(0, 0)
    return {"input_tokens": counted.prompt_tokens, "output_tokens": counted.completion_tokens}
