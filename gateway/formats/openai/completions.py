"""The surface of POST /v1/completions: prompts and their answers; how backends are asked is in `requests`."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import orjson
from attrs import define

from gateway.errors import GatewayError, UnsupportedField
from gateway.formats import sse
from gateway.formats.chat import AnswerStamp, CompletionCall, Delta, Event, Failure, Finish, ToolCalls
from gateway.formats.dialects import openai_error
from gateway.formats.durations import read_keep_alive
from gateway.formats.fields import Fields
from gateway.formats.joined import joined_answers
from gateway.formats.logprobs import complete
from gateway.formats.openai.other_fields import HARMLESS, dropped, refuse_unsupported
from gateway.formats.openai.parameters import (
    MAX_TOP_LOGPROBS,
    SAMPLING_FIELDS,
    THINK_FIELDS,
    read_format,
    read_sampling,
    read_thinking,
)
from gateway.formats.openai.requests import MAX_ANSWERS, read_include_usage
from gateway.formats.openai.requests import UNSUPPORTED as UNSUPPORTED_IN_CHATS
from gateway.formats.openai.texts import read_texts
from gateway.formats.openai.writing import FINGERPRINT, usage_fields
from gateway.model import JsonObject, Usage

READ: Final = (
    SAMPLING_FIELDS
    | THINK_FIELDS
    | frozenset({"model", "prompt", "suffix", "echo", "n", "best_of", "logprobs", "response_format"})
    | frozenset({"stream", "stream_options", "keep_alive", "truncate", "raw"})
)
# As in a chat; and what only a chat has.
UNSUPPORTED: Final[dict[str, tuple[Any, ...]]] = {
    **{name: values for name, values in UNSUPPORTED_IN_CHATS.items() if name not in READ},
    "messages": (),
    "tools": ([],),
}
KNOWN: Final = READ | HARMLESS | frozenset(UNSUPPORTED)

# ── from callers ─────────────────────────────────────────────────────────────────────────


def read_completion(body: JsonObject) -> CompletionCall:
    """A call from the body of POST /v1/completions. An empty prompt is none: to Ollama it would be a load.

    Raises InvalidRequest for what is malformed or out of range, UnsupportedField for what would change the
    answer and can't be honoured. Beyond OpenAI's fields num_ctx, keep_alive, truncate, think,
    response_format and raw are read.
    """
    fields = Fields(body)
    fields.refuse_look_alikes(KNOWN)
    refuse_unsupported(fields, UNSUPPORTED)
    prompts = read_texts(fields, "prompt")
    stream = fields.boolean("stream") or False
    return CompletionCall(
        model=fields.required_string("model"),
        prompts=prompts,
        stream=stream,
        n=_read_n(fields, len(prompts)),
        echo=_read_echo(fields, prompts),
        raw=fields.boolean("raw"),
        suffix=fields.text("suffix"),
        sampling=read_sampling(fields),
        format=read_format(fields),
        think=read_thinking(fields),
        top_logprobs=fields.integer("logprobs", 0, MAX_TOP_LOGPROBS),
        keep_alive=read_keep_alive(fields),
        truncate=fields.boolean("truncate") or False,
        include_usage=read_include_usage(fields, stream),
        dropped=dropped(fields, KNOWN),
    )


def _read_n(fields: Fields, prompts: int) -> int:
    n = fields.integer("n", 1, MAX_ANSWERS) or 1
    if prompts * n > MAX_ANSWERS:
        raise fields.refuse("prompt", f"so few prompts that with 'n' there are {MAX_ANSWERS} answers at most")
    if fields.integer("best_of", 1, MAX_ANSWERS) not in (None, n):
        raise UnsupportedField(
            "'best_of' can't be honoured here: every answer is given, none is picked. Use 'n'.",
            param="best_of",
        )
    return n


def _read_echo(fields: Fields, prompts: Sequence[str | tuple[int, ...]]) -> bool:
    if not fields.boolean("echo"):
        return False
    if fields.has("logprobs"):
        raise UnsupportedField(
            "'echo' can't be honoured with 'logprobs': those of a prompt are not known here.", param="echo"
        )
    if not all(isinstance(prompt, str) for prompt in prompts):
        raise UnsupportedField(
            "'echo' can't be honoured for tokens: their text is not known here.", param="echo"
        )
    return True


# ── to callers ───────────────────────────────────────────────────────────────────────────


class CompletionWriter:
    """The answers of /v1/completions, streamed one after another, each with its index; then `[DONE]`.

    Thinking is left out: a completion has no place for it.
    """

    content_type = sse.CONTENT_TYPE

    def __init__(self, stamp: AnswerStamp, call: CompletionCall) -> None:
        self._call = call
        self._left = len(call.prompts) * call.n
        self._index = 0
        self._is_begun = False
        self._usage = Usage(0, 0)
        self._logprobs = _Logprobs(call.top_logprobs)
        self._head = b"data: " + orjson.dumps(_head(stamp))[:-1] + b',"choices":['
        self._tail = b'],"usage":null}\n\n' if call.include_usage else b"]}\n\n"

    def write(self, events: Iterable[Event]) -> bytes:
        return b"".join([self._frames(event) for event in events])

    def fail(self, error: GatewayError) -> bytes:
        """OpenAI's error object as the last frame: without `[DONE]` the answer never looks complete."""
        return sse.frame(orjson.dumps(openai_error(error)))

    def _frames(self, event: Event) -> bytes:
        match event:
            case Delta():
                return self._begun() + self._delta(event)
            case ToolCalls():
                return b""
            case Finish():
                return self._begun() + self._finish(event)
            case Failure():
                return self.fail(event.error)

    def _begun(self) -> bytes:
        if self._is_begun:
            return b""
        self._is_begun = True
        prompt = _echoed(self._call, self._index)
        return self._chunk(prompt, None) if prompt else b""

    def _delta(self, delta: Delta) -> bytes:
        logprobs = self._logprobs.of(delta.logprobs)
        return self._chunk(delta.content, logprobs) if delta.content or logprobs else b""

    def _finish(self, finish: Finish) -> bytes:
        frames = self._chunk("", None, finish.reason)
        self._usage += finish.usage or Usage(0, 0)
        self._index += 1
        self._left -= 1
        self._is_begun = False
        self._logprobs = _Logprobs(self._call.top_logprobs)
        return frames if self._left else frames + self._end()

    def _end(self) -> bytes:
        usage = orjson.dumps(usage_fields(self._usage))
        return (self._head + b'],"usage":' + usage + b"}\n\n" if self._call.include_usage else b"") + sse.DONE

    def _chunk(self, text: str, logprobs: JsonObject | None, reason: str | None = None) -> bytes:
        return self._head + orjson.dumps(_choice(self._index, text, logprobs, reason)) + self._tail


def write_completion_answer(events: Iterable[Event], stamp: AnswerStamp, call: CompletionCall) -> bytes:
    """All answers. Raise the error of a Failure, and BackendFailed where one has no Finish."""
    answers = joined_answers(events, call, len(call.prompts) * call.n)
    choices = [
        _choice(
            index,
            _echoed(call, index) + answer.content,
            _Logprobs(call.top_logprobs).of(answer.logprobs),
            answer.finish.reason,
        )
        for index, answer in enumerate(answers)
    ]
    usage = sum((answer.finish.usage for answer in answers if answer.finish.usage), Usage(0, 0))
    return orjson.dumps(_head(stamp) | {"choices": choices, "usage": usage_fields(usage)})


def _head(stamp: AnswerStamp) -> JsonObject:
    return {
        "id": f"cmpl-{stamp.id}",
        "object": "text_completion",
        "created": int(stamp.created),
        "model": stamp.model,
        "system_fingerprint": FINGERPRINT,
    }


def _choice(index: int, text: str, logprobs: JsonObject | None, reason: str | None) -> JsonObject:
    # A completion calls no tools, whatever a server says of its end.
    finish_reason = "stop" if reason == "tool_calls" else reason
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}


def _echoed(call: CompletionCall, index: int) -> str:
    prompt = call.prompts[index // call.n]
    return prompt if call.echo and isinstance(prompt, str) else ""


@define
class _Logprobs:
    """Log probabilities in the elder shape, whose offsets count through the whole text of an answer."""

    top: int | None
    offset: int = 0

    def of(self, items: Sequence[JsonObject]) -> JsonObject | None:
        if self.top is None or not items:
            return None
        listed = [complete(item, self.top) for item in items]
        offsets: list[int] = []
        for item in listed:
            offsets.append(self.offset)
            self.offset += len(item["token"])
        tops = [{top["token"]: top["logprob"] for top in item["top_logprobs"]} for item in listed]
        return {
            "tokens": [item["token"] for item in listed],
            "token_logprobs": [item["logprob"] for item in listed],
            "top_logprobs": tops if self.top else None,
            "text_offset": offsets,
        }
