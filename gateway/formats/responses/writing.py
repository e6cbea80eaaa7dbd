"""Answers for callers of /v1/responses: events, written as the response's own events or as one response.

The text of a delta is put together by hand: it is written once for every token of every stream.
"""

from collections.abc import Iterable
from typing import Any, Final

import orjson

from gateway.errors import GatewayError
from gateway.formats import sse
from gateway.formats.chat import AnswerStamp, Delta, Event, Failure, Finish, ToolCall, ToolCalls
from gateway.formats.joined import Joined, joined
from gateway.formats.logprobs import complete
from gateway.formats.openai.tools import arguments_text
from gateway.formats.responses.requests import ResponseCall
from gateway.formats.told_calls import ToldCalls
from gateway.model import JsonObject, Usage

_ID_PREFIX: Final = "resp_"
_CALL_PREFIX: Final = "call_"
# Of the codes that a response knows, by status.
_CODES: Final = {400: "invalid_prompt", 429: "rate_limit_exceeded"}
_INCOMPLETE: Final = {"length": "max_output_tokens", "content_filter": "content_filter"}


class ResponseWriter:
    """The response, streamed: its items one after another, each added, filled and done; the whole at the end.

    Every event has its number. A response that broke ends with `response.failed`, and never looks complete.
    """

    content_type = sse.CONTENT_TYPE

    def __init__(self, stamp: AnswerStamp, call: ResponseCall) -> None:
        self._stamp = stamp
        self._call = call
        self._calls = ToldCalls(stamp, call, _CALL_PREFIX)
        self._number = 0
        self._has_begun = False
        self._output: list[JsonObject] = []
        self._open: _OpenItem | None = None

    def write(self, events: Iterable[Event]) -> bytes:
        return b"".join([self._frames(event) for event in events])

    def fail(self, error: GatewayError) -> bytes:
        told = {"code": _CODES.get(error.status, "server_error"), "message": error.sentence}
        failed = _response(self._stamp, self._call, self._output, status="failed", error=told)
        return self._begin() + self._event("response.failed", response=failed)

    def _frames(self, event: Event) -> bytes:
        match event:
            case Delta():
                return self._thinking(event) + self._text(event)
            case ToolCalls():
                return b"".join([self._function_call(call) for call in self._calls.told(event.calls)])
            case Finish():
                return self._finish(event)
            case Failure():
                return self.fail(event.error)

    def _event(self, name: str, /, **fields: Any) -> bytes:
        event = {"type": name, "sequence_number": self._next()} | fields
        return sse.named(name, orjson.dumps(event))

    def _next(self) -> int:
        number, self._number = self._number, self._number + 1
        return number

    # ── begin and end ────────────────────────────────────────────────────────────────────

    def _begin(self) -> bytes:
        if self._has_begun:
            return b""
        self._has_begun = True
        response = _response(self._stamp, self._call, [], status="in_progress")
        return b"".join(
            self._event(name, response=response) for name in ("response.created", "response.in_progress")
        )

    def _finish(self, finish: Finish) -> bytes:
        last = self._begin() + self._end_item(_status(finish))
        response = _response(
            self._stamp, self._call, self._output, status=_status(finish), finish=finish, completed=True
        )
        return last + self._event(f"response.{response['status']}", response=response)

    # ── items ────────────────────────────────────────────────────────────────────────────

    def _thinking(self, delta: Delta) -> bytes:
        return self._filled(_Reasoning, delta.thinking) if delta.thinking else b""

    def _text(self, delta: Delta) -> bytes:
        if not delta.content and not delta.logprobs:
            return b""
        logprobs = _logprobs(delta.logprobs, self._call) if delta.logprobs else []
        return self._filled(_Message, delta.content, logprobs)

    def _filled(self, kind: "type[_OpenItem]", text: str, logprobs: list[JsonObject] | None = None) -> bytes:
        """More text for the open item, or for a new one of this kind."""
        begun = b"" if type(self._open) is kind else self._add(kind)
        item = self._open
        assert item is not None  # noqa: S101 - says it to mypy
        item.texts.append(text)
        end = b"}\n\n"
        if kind is _Message:
            item.logprobs += logprobs or []
            end = b',"logprobs":' + orjson.dumps(logprobs or []) + end
        head = item.delta_head + b'%d,"delta":' % self._next()
        return begun + head + orjson.dumps(text) + end

    def _add(self, kind: "type[_OpenItem]") -> bytes:
        before = self._begin() + self._end_item("completed")
        item = self._open = kind(self._stamp, self._call, len(self._output))
        added = self._event("response.output_item.added", output_index=item.index, item=item.begun())
        return (
            before + added + self._event(f"response.{item.part}.added", **item.place(), part=item.part_of(""))
        )

    def _end_item(self, status: str) -> bytes:
        item, self._open = self._open, None
        if item is None:
            return b""
        text = "".join(item.texts)
        extra = {"logprobs": item.logprobs} if isinstance(item, _Message) else {}
        self._output.append(item.ended(status))
        return b"".join(
            (
                self._event(f"response.{item.text}.done", **item.place(), text=text, **extra),
                self._event(f"response.{item.part}.done", **item.place(), part=item.part_of(text)),
                self._event("response.output_item.done", output_index=item.index, item=self._output[-1]),
            )
        )

    def _function_call(self, call: ToolCall) -> bytes:
        before = self._begin() + self._end_item("completed")
        index = len(self._output)
        item = _function_call(self._stamp, index, call)
        self._output.append(item)
        place = {"item_id": item["id"], "output_index": index}
        arguments = item["arguments"]
        begun = item | {"arguments": "", "status": "in_progress"}
        name = "response.function_call_arguments"
        return b"".join(
            (
                before,
                self._event("response.output_item.added", output_index=index, item=begun),
                self._event(f"{name}.delta", **place, delta=arguments),
                self._event(f"{name}.done", **place, name=call.name, arguments=arguments),
                self._event("response.output_item.done", output_index=index, item=item),
            )
        )


# ── items that are filled piece by piece ─────────────────────────────────────────────────


class _OpenItem:
    """An item of the output, while it grows. `part` and `text` are what its events are called."""

    prefix: str
    part: str
    text: str
    numbered: str
    """What the number of its one part is called."""

    def __init__(self, stamp: AnswerStamp, call: ResponseCall, index: int) -> None:
        self.id = _item_id(self.prefix, stamp, index)
        self.call = call
        self.index = index
        self.texts: list[str] = []
        self.logprobs: list[JsonObject] = []
        name = f"response.{self.text}.delta"
        place = orjson.dumps({"type": name} | self.place())[:-1]
        self.delta_head = b"event: " + name.encode() + b"\ndata: " + place + b',"sequence_number":'

    def place(self) -> JsonObject:
        return {"item_id": self.id, "output_index": self.index, self.numbered: 0}

    def begun(self) -> JsonObject:
        raise NotImplementedError

    def part_of(self, text: str) -> JsonObject:
        raise NotImplementedError

    def ended(self, status: str) -> JsonObject:
        raise NotImplementedError


class _Message(_OpenItem):
    prefix, part, text, numbered = "msg_", "content_part", "output_text", "content_index"

    def begun(self) -> JsonObject:
        return _message(self.id, "in_progress", [])

    def part_of(self, text: str) -> JsonObject:
        return _output_text(text, self.logprobs)

    def ended(self, status: str) -> JsonObject:
        return _message(self.id, status, [self.part_of("".join(self.texts))])


class _Reasoning(_OpenItem):
    prefix, part, text = "rs_", "reasoning_summary_part", "reasoning_summary_text"
    numbered = "summary_index"

    def begun(self) -> JsonObject:
        return _reasoning(self.id, "", self.call)

    def part_of(self, text: str) -> JsonObject:
        return {"type": "summary_text", "text": text}

    def ended(self, status: str) -> JsonObject:  # noqa: ARG002 - thinking that was cut is thinking all the same
        return _reasoning(self.id, "".join(self.texts), self.call)


# ── whole answers ────────────────────────────────────────────────────────────────────────


def write_response(events: Iterable[Event], stamp: AnswerStamp, call: ResponseCall) -> bytes:
    """The whole response. Raise the error of a Failure, and BackendFailed without a Finish."""
    answer = joined(events, call)
    output = _output(answer, stamp, call)
    finish = answer.finish
    return orjson.dumps(_response(stamp, call, output, status=_status(finish), finish=finish, completed=True))


def _output(answer: Joined, stamp: AnswerStamp, call: ResponseCall) -> list[JsonObject]:
    """Reasoning, message and calls, in this order; none of what there is not."""
    output: list[JsonObject] = []
    if answer.thinking:
        output.append(_reasoning(_item_id("rs_", stamp, 0), answer.thinking, call))
    if answer.content:
        logprobs = _logprobs(answer.logprobs, call)
        part = _output_text(answer.content, logprobs)
        output.append(_message(_item_id("msg_", stamp, len(output)), _status(answer.finish), [part]))
    for one in ToldCalls(stamp, call, _CALL_PREFIX).told(answer.calls):
        output.append(_function_call(stamp, len(output), one))
    return output


# ── pieces ───────────────────────────────────────────────────────────────────────────────


def _response(
    stamp: AnswerStamp,
    call: ResponseCall,
    output: list[JsonObject],
    *,
    status: str,
    finish: Finish | None = None,
    error: JsonObject | None = None,
    completed: bool = False,
) -> JsonObject:
    reason = _INCOMPLETE.get(finish.reason) if finish else None
    return call.echo | {
        "id": _ID_PREFIX + stamp.id,
        "object": "response",
        "created_at": int(stamp.created),
        "completed_at": int(stamp.now()) if completed else None,
        "status": status,
        "error": error,
        "incomplete_details": {"reason": reason} if reason else None,
        "model": stamp.model,
        "output": output,
        "usage": _usage(finish.usage) if finish and finish.usage else None,
        # What is asked of servers that keep conversations, and answered by one that does not.
        "background": False,
        "previous_response_id": None,
        "service_tier": "default",
        "store": False,
    }


def _status(finish: Finish) -> str:
    return "incomplete" if finish.reason in _INCOMPLETE else "completed"


def _usage(usage: Usage) -> JsonObject:
    """Clients demand the details. What came from a cache that all share is nobody's to know."""
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens or 0},
        "total_tokens": usage.total_tokens,
    }


def _item_id(prefix: str, stamp: AnswerStamp, index: int) -> str:
    return f"{prefix}{stamp.id}_{index}"


def _message(item_id: str, status: str, content: list[JsonObject]) -> JsonObject:
    return {"id": item_id, "type": "message", "role": "assistant", "status": status, "content": content}


def _output_text(text: str, logprobs: list[JsonObject]) -> JsonObject:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}


def _reasoning(item_id: str, thinking: str, call: ResponseCall) -> JsonObject:
    """The whole thinking as its summary. What callers send back of it is that text: nothing is encrypted."""
    summary = [{"type": "summary_text", "text": thinking}] if thinking else []
    item: JsonObject = {"id": item_id, "type": "reasoning", "summary": summary}
    return item | {"encrypted_content": thinking} if call.wants_encrypted_reasoning else item


def _function_call(stamp: AnswerStamp, index: int, call: ToolCall) -> JsonObject:
    return {
        "id": _item_id("fc_", stamp, index),
        "type": "function_call",
        "status": "completed",
        "call_id": call.id,
        "name": call.name,
        "arguments": arguments_text(call.arguments),
    }


def _logprobs(items: Iterable[JsonObject], call: ResponseCall) -> list[JsonObject]:
    if call.top_logprobs is None:
        return []
    return [complete(item, call.top_logprobs) for item in items]
