"""Answers for Ollama's clients: events, written as frames of NDJSON or as one whole object.

The text of a frame is put together by hand: it is written once for every token of every stream.
"""

from collections.abc import Iterable
from hashlib import sha256
from json.encoder import encode_basestring_ascii as quoted
from typing import Final

from attrs import evolve

from gateway.errors import GatewayError
from gateway.formats import ndjson
from gateway.formats.chat import (
    AnswerStamp,
    ChatCall,
    Delta,
    Event,
    Failure,
    Finish,
    GenerateCall,
    ToolCall,
    ToolCalls,
)
from gateway.formats.dialects import ollama_error
from gateway.formats.joined import Joined, joined
from gateway.formats.logprobs import complete
from gateway.formats.ndjson import ascii_json
from gateway.formats.ollama.messages import write_calls
from gateway.formats.times import rfc3339
from gateway.model import JsonObject, Timings

JSON_CONTENT_TYPE: Final = b"application/json; charset=utf-8"
_NS: Final = 1_000_000_000


class _Writer:
    """Events in, frames out. In each the text stands between `_before` and `_behind`; what more there is, as
    thinking or calls, stands behind the text.
    """

    content_type = ndjson.CONTENT_TYPE
    _before: str
    _behind: str

    def __init__(self, stamp: AnswerStamp, call: ChatCall | GenerateCall) -> None:
        self._stamp = stamp
        self._top_logprobs = call.top_logprobs
        self._head = f'{{"model":{quoted(stamp.model)},"created_at":"'
        self._first_event: float | None = None
        self._calls = 0

    def write(self, events: Iterable[Event]) -> bytes:
        """The frames for these events. All that come at once carry one time."""
        now = self._stamp.now()
        head, tail = f'{self._head}{rfc3339(now)}",{self._before}', f'{self._behind},"done":false}}\n'
        lines = []
        for event in events:
            if self._first_event is None:
                self._first_event = now
            if type(event) is Delta and not event.thinking and not event.logprobs:
                # Nothing but text, as nearly all bring.
                lines.append(f"{head}{quoted(event.content)}{tail}")
            else:
                lines.append(self._line(event, head, now))
        return "".join(lines).encode("ascii")

    def fail(self, error: GatewayError) -> bytes:
        """The last frame of a stream that broke; never followed by one that says done."""
        return ascii_json(ollama_error(error)) + b"\n"

    def _line(self, event: Event, head: str, now: float) -> str:
        match event:
            case Delta():
                return head + self._delta(event)
            case ToolCalls():
                return f'{head}"","tool_calls":{self._written(event.calls)}{self._behind},"done":false}}\n'
            case Finish():
                return f'{head}""{self._behind},"done":true,{self._end(event, now)}}}\n'
            case Failure():
                return self.fail(event.error).decode("ascii")

    def _delta(self, delta: Delta) -> str:
        thinking = f',"thinking":{quoted(delta.thinking)}' if delta.thinking else ""
        logprobs = self._logprobs(delta.logprobs) if delta.logprobs and self._top_logprobs is not None else ""
        return f'{quoted(delta.content)}{thinking}{self._behind},"done":false{logprobs}}}\n'

    def _end(self, finish: Finish, now: float) -> str:
        first = now if self._first_event is None else self._first_event
        return _inner(final_fields(finish, measured(finish.timings, self._stamp.created, first, now)))

    def _written(self, calls: tuple[ToolCall, ...]) -> str:
        numbered = with_ids(calls, self._stamp, self._calls)
        written = write_calls(numbered, self._calls)
        self._calls += len(calls)
        return ascii_json(written).decode("ascii")

    def _logprobs(self, items: tuple[JsonObject, ...]) -> str:
        written = [native_logprob(item, self._top_logprobs) for item in items]
        return f',"logprobs":{ascii_json(written).decode("ascii")}'


class ChatWriter(_Writer):
    """The answer of /api/chat, streamed."""

    _before, _behind = '"message":{"role":"assistant","content":', "}"


class GenerateWriter(_Writer):
    """The answer of /api/generate, streamed."""

    _before, _behind = '"response":', ""


def write_chat_answer(events: Iterable[Event], stamp: AnswerStamp, call: ChatCall) -> bytes:
    """The whole answer of /api/chat. Raise the error of a Failure, and BackendFailed without a Finish."""
    answer = joined(events, call)
    message = {"role": "assistant", "content": answer.content} | _extra_fields(answer, stamp)
    return _whole(answer, stamp, call, {"message": message})


def write_generate_answer(events: Iterable[Event], stamp: AnswerStamp, call: GenerateCall) -> bytes:
    """The whole answer of /api/generate. Raise the error of a Failure, and BackendFailed without a Finish."""
    answer = joined(events, call)
    return _whole(answer, stamp, call, {"response": answer.content} | _extra_fields(answer, stamp))


def write_load_answer(stamp: AnswerStamp, call: ChatCall | GenerateCall) -> bytes:
    """What Ollama says to a call without messages or prompt: a command to load the model, or to unload it."""
    is_chat = isinstance(call, ChatCall)
    piece = {"message": {"role": "assistant", "content": ""}} if is_chat else {"response": ""}
    written = {"model": stamp.model, "created_at": rfc3339(stamp.now()), **piece, "done": True}
    return ascii_json(written | {"done_reason": "unload" if call.keep_alive == 0 else "load"})


# ── pieces of an answer ──────────────────────────────────────────────────────────────────


def with_ids(calls: tuple[ToolCall, ...], stamp: AnswerStamp, first_index: int) -> tuple[ToolCall, ...]:
    """The same calls; where a backend gave no id, one derived from the answer's: the same each time."""
    return tuple(
        call if call.id else evolve(call, id=f"call_{sha256(f'{stamp.id}/{index}'.encode()).hexdigest()[:8]}")
        for index, call in enumerate(calls, first_index)
    )


def native_logprob(item: JsonObject, top: int | None) -> JsonObject:
    """With so many alternatives; Ollama leaves the key out where none were asked for."""
    return {name: value for name, value in complete(item, top).items() if name != "top_logprobs" or value}


def measured(timings: Timings, started: float, first: float, ended: float) -> Timings:
    """What the backend says, and what we measured in seconds where it says nothing.

    The time to the first event counts for the prompt, the rest for the answer, and loading for 0.
    """
    total, load, prompt = timings.total_ns, timings.load_ns or 0, timings.prompt_ns
    if total is None:
        total = _span_ns(started, ended)
    if prompt is None:
        prompt = _span_ns(started, first)
    generation = timings.generation_ns
    if generation is None:
        generation = max(0, total - load - prompt)
    return Timings(total_ns=total, load_ns=load, prompt_ns=prompt, generation_ns=generation)


def final_fields(finish: Finish, timings: Timings) -> JsonObject:
    """What only the final frame has. Counts that nobody knows are left out, as Ollama does."""
    fields: JsonObject = {
        # Ollama's clients know no reason of its own for tool calls.
        "done_reason": "length" if finish.reason == "length" else "stop",
        "total_duration": timings.total_ns,
        "load_duration": timings.load_ns,
        "prompt_eval_duration": timings.prompt_ns,
        "eval_duration": timings.generation_ns,
    }
    if finish.usage is not None:
        fields["prompt_eval_count"] = finish.usage.prompt_tokens
        fields["eval_count"] = finish.usage.completion_tokens
    if finish.context:
        fields["context"] = list(finish.context)
    return fields


def _inner(fields: JsonObject) -> str:
    """An object's text without its braces."""
    return ascii_json(fields).decode("ascii")[1:-1]


def _span_ns(start: float, stop: float) -> int:
    # A wall clock may be set back in between.
    return max(0, round((stop - start) * _NS))


# ── whole answers ────────────────────────────────────────────────────────────────────────


def _extra_fields(answer: Joined, stamp: AnswerStamp) -> JsonObject:
    """Thinking and calls, where there are any."""
    fields: JsonObject = {}
    if answer.thinking:
        fields["thinking"] = answer.thinking
    if answer.calls:
        fields["tool_calls"] = write_calls(with_ids(answer.calls, stamp, 0))
    return fields


def _whole(answer: Joined, stamp: AnswerStamp, call: ChatCall | GenerateCall, piece: JsonObject) -> bytes:
    now = stamp.now()
    # A whole answer comes at once: without the backend's word, all of its time counts for the answer.
    timings = measured(answer.finish.timings, stamp.created, stamp.created, now)
    written = {"model": stamp.model, "created_at": rfc3339(now), **piece, "done": True}
    written |= final_fields(answer.finish, timings)
    if answer.logprobs:
        written["logprobs"] = [native_logprob(item, call.top_logprobs) for item in answer.logprobs]
    return ascii_json(written)
