"""Answers for OpenAI's clients: events, written as chat.completion.chunk frames or as one chat.completion.

The text of a content chunk is put together by hand: it is written once for every token of every stream.
"""

from collections.abc import Iterable
from functools import reduce
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
from gateway.formats.joined import Joined, joined_answers
from gateway.formats.logprobs import complete
from gateway.formats.openai.tools import write_call
from gateway.formats.told_calls import ToldCalls
from gateway.model import JsonObject, Usage, plus

JSON_CONTENT_TYPE: Final = b"application/json"
# Which configuration of a backend answered is not told; clients only look whether it changes.
FINGERPRINT: Final = "fp_neuronetz"
_ID_PREFIX: Final = "chatcmpl-"
_CALL_PREFIX: Final = "call_"


class ChatWriter:
    """The answer of /v1/chat/completions, streamed: role first, finish and usage last, then `[DONE]`.

    Several answers follow each other, each with its index. Where the caller asked for usage, every chunk has
    the key, and a last one without choices its value, of all answers. With parallel_tool_calls false the
    first call alone is told.
    """

    content_type = sse.CONTENT_TYPE

    def __init__(self, stamp: AnswerStamp, call: ChatCall) -> None:
        self._stamp = stamp
        self._call = call
        self._usage: Usage | None = None
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
        self._tail = b'},"logprobs":null,"finish_reason":null}]' + usage + b"}\n\n"
        self._end = b'"}]' + usage + b"}\n\n"
        self._begin(0)

    def _begin(self, index: int) -> None:
        self._index = index
        self._calls = _told_calls(self._stamp, self._call, index)
        self._head = self._bare_head + b'{"index":%d,"delta":{' % index
        self._text_head = self._head + b'"content":'
        # The first delta, whatever it brings, names the role.
        self._role = b'"role":"assistant",'

    def write(self, events: Iterable[Event]) -> bytes:
        frames = []
        for event in events:
            if type(event) is not Delta or self._role or event.thinking or event.logprobs:
                frames.append(self._frames(event))
            elif event.content:
                # Nothing but text, as nearly all bring.
                frames.append(self._text_head + orjson.dumps(event.content) + self._tail)
        return b"".join(frames)

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
        if delta.logprobs and self._call.top_logprobs is not None:
            return frames + self._chunk_with_logprobs(delta)
        if delta.content:
            frames += self._chunk(b'"content":' + orjson.dumps(delta.content))
        return frames

    def _chunk_with_logprobs(self, delta: Delta) -> bytes:
        chunk = self._chunk(b'"content":' + orjson.dumps(delta.content))
        logprobs = orjson.dumps(_logprobs(delta.logprobs, self._call.top_logprobs))
        # The tail is the same in every chunk, so its place from the end is known.
        start = len(chunk) - len(self._tail)
        return chunk[:start] + self._tail.replace(b'"logprobs":null', b'"logprobs":' + logprobs, 1)

    def _tool_calls(self, calls: tuple[ToolCall, ...]) -> bytes:
        first = self._calls.count
        told = self._calls.told(calls)
        if not told:
            return b""
        if self._call.as_functions:
            return self._chunk(b'"content":null,"function_call":' + orjson.dumps(_function_call(told[0])))
        written = [{"index": index} | write_call(call) for index, call in enumerate(told, first)]
        return self._chunk(b'"content":"","tool_calls":' + orjson.dumps(written))

    def _finish(self, finish: Finish) -> bytes:
        # An answer without any text still has a role.
        opening = self._chunk(b'"content":""') if self._role else b""
        reason = _reason(self._calls.reason(finish.reason), self._call).encode()
        frames = opening + self._head + b'},"logprobs":null,"finish_reason":"' + reason + self._end
        self._usage = plus(self._usage, finish.usage)
        if self._index + 1 < self._call.n:
            self._begin(self._index + 1)
            return frames
        if self._call.include_usage and self._usage is not None:
            usage = orjson.dumps(usage_fields(self._usage))
            frames += self._bare_head + b'],"usage":' + usage + b"}\n\n"
        return frames + sse.DONE

    def _chunk(self, delta: bytes) -> bytes:
        role, self._role = self._role, b""
        return self._head + role + delta + self._tail


def write_chat_answer(events: Iterable[Event], stamp: AnswerStamp, call: ChatCall) -> bytes:
    """The whole chat.completion. Raise the error of a Failure, and BackendFailed without a Finish."""
    answers = joined_answers(events, call, call.n)
    written: JsonObject = {
        "id": answer_id(stamp),
        "object": "chat.completion",
        "created": int(stamp.created),
        "model": stamp.model,
        "system_fingerprint": FINGERPRINT,
        "choices": [_choice(index, answer, stamp, call) for index, answer in enumerate(answers)],
    }
    usage = reduce(plus, [answer.finish.usage for answer in answers])
    if usage is not None:
        written["usage"] = usage_fields(usage)
    return orjson.dumps(written)


def answer_id(stamp: AnswerStamp) -> str:
    return stamp.id if stamp.id.startswith(_ID_PREFIX) else _ID_PREFIX + stamp.id


# ── pieces of an answer ──────────────────────────────────────────────────────────────────


def _told_calls(stamp: AnswerStamp, call: ChatCall, index: int) -> ToldCalls:
    """Those of one answer; the ids that are derived are of that one."""
    return ToldCalls(evolve(stamp, id=f"{stamp.id}/{index}") if index else stamp, call, _CALL_PREFIX)


def _reason(reason: str, call: ChatCall) -> str:
    return "function_call" if call.as_functions and reason == "tool_calls" else reason


def _function_call(call: ToolCall) -> JsonObject:
    """The elder shape of a call, which has no id."""
    function: JsonObject = write_call(call)["function"]
    return function


def _logprobs(items: Iterable[JsonObject], top: int | None) -> JsonObject:
    return {"content": [complete(item, top) for item in items], "refusal": None}


def usage_fields(usage: Usage) -> JsonObject:
    fields: JsonObject = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
    }
    if usage.reasoning_tokens is not None:
        fields["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning_tokens}
    return fields


# ── whole answers ────────────────────────────────────────────────────────────────────────


def _choice(index: int, answer: Joined, stamp: AnswerStamp, call: ChatCall) -> JsonObject:
    told, reason = _told(answer, stamp, call, index) if answer.calls else ((), answer.finish.reason)
    return {
        "index": index,
        "message": _message(answer, told, call),
        "logprobs": _logprobs(answer.logprobs, call.top_logprobs) if answer.logprobs else None,
        "finish_reason": _reason(reason, call),
    }


def _told(answer: Joined, stamp: AnswerStamp, call: ChatCall, index: int) -> tuple[tuple[ToolCall, ...], str]:
    """The calls of an answer that its caller is told, and then the reason of its end."""
    calls = _told_calls(stamp, call, index)
    return calls.told(answer.calls), calls.reason(answer.finish.reason)


def _message(answer: Joined, told: tuple[ToolCall, ...], call: ChatCall) -> JsonObject:
    """`content` is null where the model only calls; thinking goes by both names that clients know."""
    message: JsonObject = {
        "role": "assistant",
        "content": answer.content if answer.content or not told else None,
        "refusal": None,
    }
    if answer.thinking:
        message |= {"reasoning": answer.thinking, "reasoning_content": answer.thinking}
    if told and call.as_functions:
        message["function_call"] = _function_call(told[0])
    elif told:
        message["tool_calls"] = [write_call(call) for call in told]
    return message
