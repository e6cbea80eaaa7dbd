"""Answers for OpenAI's clients: events, written as chat.completion.chunk frames or as one chat.completion.

The text of a content chunk is put together by hand: it is written once for every token of every stream.
"""

from collections.abc import Iterable
from hashlib import sha256
from typing import Final

import orjson
from attrs import evolve

from gateway.errors import GatewayError
from gateway.formats import sse
from gateway.formats.chat import (
    AnswerStamp,
    ChatCall,
    Delta,
    Event,
    Failure,
    Finish,
    ToolCall,
    ToolCalls,
)
from gateway.formats.dialects import openai_error
from gateway.formats.joined import Joined, joined
from gateway.formats.logprobs import complete
from gateway.formats.openai.tools import write_call
from gateway.model import JsonObject, Usage

JSON_CONTENT_TYPE: Final = b"application/json"
# Which configuration of a backend answered is not told; clients only look whether it changes.
FINGERPRINT: Final = "fp_neuronetz"
_ID_PREFIX: Final = "chatcmpl-"


class ChatWriter:
    """The answer of /v1/chat/completions, streamed: role first, finish and usage last, then `[DONE]`.

    Where the caller asked for usage, every chunk has the key, and a last one without choices its value.
    With parallel_tool_calls false the first call alone is told.
    """

    content_type = sse.CONTENT_TYPE

    def __init__(self, stamp: AnswerStamp, call: ChatCall) -> None:
        self._calls = _Calls(stamp, call)
        self._top_logprobs = call.top_logprobs
        self._include_usage = call.include_usage
        head = orjson.dumps(
            {
                "id": answer_id(stamp),
                "object": "chat.completion.chunk",
                "created": int(stamp.created),
                "model": stamp.model,
                "system_fingerprint": FINGERPRINT,
            }
        )
        usage = b',"usage":null' if call.include_usage else b""
        self._bare_head = b"data: " + head[:-1] + b',"choices":['
        self._head = self._bare_head + b'{"index":0,"delta":{'
        self._tail = b'},"logprobs":null,"finish_reason":null}]' + usage + b"}\n\n"
        self._end = b'"}]' + usage + b"}\n\n"
        # The first delta, whatever it brings, names the role.
        self._role = b'"role":"assistant",'

    def write(self, events: Iterable[Event]) -> bytes:
        return b"".join([self._frames(event) for event in events])

    def fail(self, error: GatewayError) -> bytes:
        """OpenAI's error object as the last frame: without `[DONE]` the answer never looks complete."""
        return sse.frame(orjson.dumps(openai_error(error)))

    def _frames(self, event: Event) -> bytes:
        match event:
            case Delta():
                return self._delta(event)
            case ToolCalls():
                return self._tool_calls(event.calls)
            case Finish():
                return self._finish(event)
            case Failure():
                return self.fail(event.error)

    def _delta(self, delta: Delta) -> bytes:
        """Thinking and text of one event go in two chunks, in this order."""
        frames = b""
        if delta.thinking:
            text = orjson.dumps(delta.thinking)
            frames = self._chunk(b'"content":"","reasoning":' + text + b',"reasoning_content":' + text)
        if delta.logprobs and self._top_logprobs is not None:
            return frames + self._chunk_with_logprobs(delta)
        if delta.content:
            frames += self._chunk(b'"content":' + orjson.dumps(delta.content))
        return frames

    def _chunk_with_logprobs(self, delta: Delta) -> bytes:
        chunk = self._chunk(b'"content":' + orjson.dumps(delta.content))
        logprobs = orjson.dumps(_logprobs(delta.logprobs, self._top_logprobs))
        # The tail is the same in every chunk, so its place from the end is known.
        start = len(chunk) - len(self._tail)
        return chunk[:start] + self._tail.replace(b'"logprobs":null', b'"logprobs":' + logprobs, 1)

    def _tool_calls(self, calls: tuple[ToolCall, ...]) -> bytes:
        told = self._calls.told(calls)
        return self._chunk(b'"content":"","tool_calls":' + orjson.dumps(told)) if told else b""

    def _finish(self, finish: Finish) -> bytes:
        # An answer without any text still has a role.
        opening = self._chunk(b'"content":""') if self._role else b""
        reason = self._calls.reason(finish.reason).encode()
        frames = opening + self._head + b'},"logprobs":null,"finish_reason":"' + reason + self._end
        if self._include_usage and finish.usage is not None:
            usage = orjson.dumps(_usage(finish.usage))
            frames += self._bare_head + b'],"usage":' + usage + b"}\n\n"
        return frames + sse.DONE

    def _chunk(self, delta: bytes) -> bytes:
        role, self._role = self._role, b""
        return self._head + role + delta + self._tail


def write_chat_answer(events: Iterable[Event], stamp: AnswerStamp, call: ChatCall) -> bytes:
    """The whole chat.completion. Raise the error of a Failure, and BackendFailed without a Finish."""
    answer = joined(events, call)
    calls = _Calls(stamp, call)
    told = calls.told(answer.calls)
    choice = {
        "index": 0,
        "message": _message(answer, told),
        "logprobs": _logprobs(answer.logprobs, call.top_logprobs) if answer.logprobs else None,
        "finish_reason": calls.reason(answer.finish.reason),
    }
    written: JsonObject = {
        "id": answer_id(stamp),
        "object": "chat.completion",
        "created": int(stamp.created),
        "model": stamp.model,
        "system_fingerprint": FINGERPRINT,
        "choices": [choice],
    }
    if answer.finish.usage is not None:
        written["usage"] = _usage(answer.finish.usage)
    return orjson.dumps(written)


def answer_id(stamp: AnswerStamp) -> str:
    return stamp.id if stamp.id.startswith(_ID_PREFIX) else _ID_PREFIX + stamp.id


# ── pieces of an answer ──────────────────────────────────────────────────────────────────


class _Calls:
    """The calls of one answer, numbered through it; each with an id, derived where the backend gave none."""

    def __init__(self, stamp: AnswerStamp, call: ChatCall) -> None:
        self._stamp = stamp
        self._most = 1 if call.parallel_tool_calls is False else None
        self._count = 0

    def told(self, calls: tuple[ToolCall, ...]) -> list[JsonObject]:
        """The calls that the caller is to see, in the shape of a chunk."""
        left = None if self._most is None else self._most - self._count
        written = [self._written(call, index) for index, call in enumerate(calls[:left], self._count)]
        self._count += len(written)
        return written

    def reason(self, reason: str) -> str:
        """Clients look for calls only where the reason says so."""
        return "tool_calls" if self._count and reason == "stop" else reason

    def _written(self, call: ToolCall, index: int) -> JsonObject:
        with_id = call if call.id else evolve(call, id=self._derived_id(index))
        return {"index": index} | write_call(with_id)

    def _derived_id(self, index: int) -> str:
        return "call_" + sha256(f"{self._stamp.id}/{index}".encode()).hexdigest()[:24]


def _logprobs(items: Iterable[JsonObject], top: int | None) -> JsonObject:
    return {"content": [complete(item, top) for item in items], "refusal": None}


def _usage(usage: Usage) -> JsonObject:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
    }


# ── whole answers ────────────────────────────────────────────────────────────────────────


def _message(answer: Joined, told: list[JsonObject]) -> JsonObject:
    """`content` is null where the model only calls; thinking goes by both names that clients know."""
    message: JsonObject = {
        "role": "assistant",
        "content": answer.content if answer.content or not told else None,
        "refusal": None,
    }
    if answer.thinking:
        message |= {"reasoning": answer.thinking, "reasoning_content": answer.thinking}
    if told:
        # Only chunks number their calls.
        message["tool_calls"] = [
            {name: value for name, value in call.items() if name != "index"} for call in told
        ]
    return message
