"""Answers of vLLM, llama.cpp and their like: SSE chunks, read as events.

A finish reason is held back until the usage has come, or `[DONE]`: both come after it. A stream that
ends before either was cut, and never looks complete.
"""

from typing import Any, Final

import orjson
from attrs import define

from gateway.errors import BackendFailed, GatewayError
from gateway.formats.chat import Delta, Event, Failure, Finish, ToolCall, ToolCalls
from gateway.formats.fields import MAX_INTEGER
from gateway.formats.logprobs import chat_items
from gateway.formats.openai.alike import Alike, Kind
from gateway.formats.openai.errors import read_failure
from gateway.formats.openai.tools import arguments_of
from gateway.formats.sse import DONE_DATA, MIB, EventSplitter
from gateway.model import JsonObject, Timings, Usage

# Calls are kept until they are complete; no model writes as much.
MAX_CALLS: Final = 128
MAX_CALL_BYTES: Final = 8 * MIB

_REASONS: Final = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}
# All that the delta of a plain text has; Ollama names the role in each.
_PLAIN: Final = frozenset({"role", "content"})
# vLLM's words for an answer that it gave up.
_GIVEN_UP: Final = frozenset({"abort", "error"})
_NS_PER_MS: Final = 1_000_000
_UNTIMED: Final = Timings()


# ── chunks that bring one text alone, as nearly all do ───────────────────────────────────


def _content_alone(chunk: JsonObject) -> str:
    delta = _delta_alone(chunk)
    return "" if _thinking_in(delta) else _text(delta.get("content"))


def _thinking_alone(chunk: JsonObject) -> str:
    delta = _delta_alone(chunk)
    return "" if delta.get("content") else _thinking_in(delta)


def _thought(text: str) -> Delta:
    return Delta(thinking=text)


def _text_alone(chunk: JsonObject) -> str:
    return _text(_choice_alone(chunk).get("text"))


def _delta_alone(chunk: JsonObject) -> JsonObject:
    """The delta of such a choice that brings no calls."""
    delta: JsonObject | None = _choice_alone(chunk).get("delta")
    return delta if type(delta) is dict and not delta.get("tool_calls") else {}


def _choice_alone(chunk: JsonObject) -> JsonObject:
    """The choice of a chunk that brings nothing else, and neither an end nor log probabilities; else none."""
    choices = chunk.get("choices")
    if type(choices) is not list or len(choices) != 1 or "timings" in chunk or chunk.get("usage"):
        return {}
    choice: JsonObject | None = choices[0]
    if type(choice) is not dict or choice.get("index", 0) != 0 or choice.get("logprobs"):
        return {}
    is_end = choice.get("finish_reason") is not None or chunk.get("error") or chunk.get("object") == "error"
    return {} if is_end else choice


# ── answers ──────────────────────────────────────────────────────────────────────────────


class _Reader:
    """Chunks in, events out. `_read_piece` takes what one kind of answer has in its choice.

    `_kinds` are of its usual chunks.
    """

    _kinds: tuple[Kind, ...] = ()

    def __init__(self) -> None:
        self.held = 0
        self._splitter = EventSplitter()
        self._alike = Alike()
        self._reason: str | None = None
        self._stop_sequence = ""
        self._usage: Usage | None = None
        self._timings = _UNTIMED
        self._is_over = False

    def feed(self, data: bytes) -> list[Event]:
        """A Failure for bytes that are no chunks, behind what was read before. The rest is left unread."""
        events: list[Event] = []
        try:
            for payload in self._splitter.feed(data):
                self._read(payload, events)
        except BackendFailed as error:
            self._fail_with(error, events)
        return events

    def end(self) -> list[Event]:
        """Raise BackendFailed when the answer broke off."""
        events: list[Event] = []
        for payload in self._splitter.end():
            self._read(payload, events)
        if not self._is_over:
            raise _broken_off()
        return events

    def _read(self, payload: bytes, events: list[Event]) -> None:
        if self._is_over:
            return
        if delta := self._alike.delta_in(payload):
            events.append(delta)
        elif payload == DONE_DATA:
            self._finish(events)
        else:
            chunk = _object_of(payload)
            self._read_chunk(chunk, events)
            if self._reason is None:
                # Text is still to come.
                self._alike.learn(payload, chunk, self._kinds)

    def _read_chunk(self, chunk: JsonObject, events: list[Event]) -> None:
        # Elder vLLM servers send the error as the whole object.
        if error := chunk.get("error") or (chunk.get("object") == "error" and chunk):
            self._fail(error, events)
            return
        for value in _list_of(chunk.get("choices")):
            choice = _dict_of(value)
            # One answer is asked for; some servers number none.
            if choice.get("index", 0) == 0:
                self._read_choice(choice, events)
        if "timings" in chunk:
            self._timings = _timings_of(chunk["timings"])
        if usage := chunk.get("usage"):
            self._usage = _usage_of(usage)
            if self._reason is not None and not self._is_over:
                self._finish(events)

    def _read_choice(self, choice: JsonObject, events: list[Event]) -> None:
        self._read_piece(choice, events)
        reason = choice.get("finish_reason")
        if reason is None:
            return
        reason = _text(reason)
        if reason in _GIVEN_UP:
            self._fail(None, events)
        elif reason:
            self._reason = _REASONS.get(reason, "stop")
            # vLLM's: the text that matched, the number of a token, or null.
            self._stop_sequence = _text(choice.get("stop_reason"))

    def _read_piece(self, choice: JsonObject, events: list[Event]) -> None:
        raise NotImplementedError

    def _calls(self) -> tuple[ToolCall, ...]:
        """The calls that have been collected: complete now that the answer is."""
        return ()

    def _fail(self, error: Any, events: list[Event]) -> None:
        self._fail_with(read_failure(error), events)

    def _fail_with(self, error: GatewayError, events: list[Event]) -> None:
        self._is_over = True
        events.append(Failure(error))

    def _finish(self, events: list[Event]) -> None:
        if self._reason is None:
            raise _broken_off()
        self._is_over = True
        if calls := self._calls():
            events.append(ToolCalls(calls))
            self.held = 0
        reason = _reason(self._reason, bool(calls))
        events.append(Finish(reason, self._usage, self._timings, stop_sequence=self._stop_sequence))


class ChatReader(_Reader):
    """The answer of /v1/chat/completions, streamed."""

    _kinds = Kind(_content_alone, Delta), Kind(_thinking_alone, _thought)
    _pieces: "_CallPieces | None" = None

    def _read_piece(self, choice: JsonObject, events: list[Event]) -> None:
        delta, logprobs = _dict_of(choice.get("delta")), choice.get("logprobs")
        content = _text(delta.get("content"))
        if not logprobs and delta.keys() <= _PLAIN:
            if content:
                events.append(Delta(content))
            return
        thinking = _thinking_in(delta)
        items = chat_items(logprobs) if logprobs else ()
        if content or thinking or items:
            events.append(Delta(content, thinking, items))
        if pieces := _list_of(delta.get("tool_calls")):
            self._pieces = self._pieces or _CallPieces()
            self._pieces.add(pieces)
            self.held += len(pieces)

    def _calls(self) -> tuple[ToolCall, ...]:
        return self._pieces.joined() if self._pieces else ()


class CompletionReader(_Reader):
    """The answer of /v1/completions, streamed."""

    _kinds = (Kind(_text_alone, Delta),)

    def _read_piece(self, choice: JsonObject, events: list[Event]) -> None:
        text = _text(choice.get("text"))
        logprobs = choice.get("logprobs")
        items = chat_items(logprobs) if logprobs else ()
        if text or items:
            events.append(Delta(text, logprobs=items))


# ── tool calls, which come in pieces ─────────────────────────────────────────────────────


@define
class _PartialCall:
    id: str
    name: str
    arguments: list[str]


class _CallPieces:
    """Collect calls: id and name come first, then the arguments in bits, each with the call's index."""

    def __init__(self) -> None:
        self._by_index: dict[int, _PartialCall] = {}
        self._calls: list[_PartialCall] = []
        self._bytes = 0

    def add(self, pieces: list[Any]) -> None:
        for piece in pieces:
            self._add(_dict_of(piece))

    def joined(self) -> tuple[ToolCall, ...]:
        if not all(call.name for call in self._calls):
            raise BackendFailed("The model's server sent a tool call without a name.")
        return tuple(
            ToolCall(call.id, call.name, arguments_of("".join(call.arguments))) for call in self._calls
        )

    def _add(self, piece: JsonObject) -> None:
        function = _dict_of(piece.get("function"))
        call_id, name, arguments = (
            _text(piece.get("id")),
            _text(function.get("name")),
            function.get("arguments"),
        )
        call = self._call_of(piece.get("index"), call_id, name)
        call.id = call.id or call_id
        call.name = call.name or name
        # Some servers send the arguments as the object that they are.
        text = _object_text(arguments) if isinstance(arguments, dict) else _text(arguments)
        call.arguments.append(text)
        self._bytes += len(text)
        if self._bytes > MAX_CALL_BYTES or len(self._calls) > MAX_CALLS:
            raise BackendFailed("The model's server sent tool calls without end.")

    def _call_of(self, index: Any, call_id: str, name: str) -> _PartialCall:
        """The call that a piece belongs to: a new one for a new index, or for another id under an old one."""
        if type(index) is not int:
            # Whole messages do not number their calls: each brings its name.
            index = len(self._calls) if name else len(self._calls) - 1
        call = self._by_index.get(index)
        if call is None or (name and call_id and call.id and call_id != call.id):
            call = _PartialCall("", "", [])
            self._by_index[index] = call
            self._calls.append(call)
        return call


# ── pieces of a chunk ────────────────────────────────────────────────────────────────────


def _object_of(payload: bytes) -> JsonObject:
    try:
        return _dict_of(orjson.loads(payload))
    except orjson.JSONDecodeError:
        raise _unreadable() from None


def _object_text(value: JsonObject) -> str:
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:
        # Nested deeper than can be written.
        raise _unreadable() from None


def _dict_of(value: Any) -> JsonObject:
    if value is None:
        return {}
    if type(value) is not dict:
        raise _unreadable()
    return value


def _list_of(value: Any) -> list[Any]:
    if value is None:
        return []
    if type(value) is not list:
        raise _unreadable()
    return value


def _text(value: Any) -> str:
    return value if type(value) is str else ""


def _thinking_in(delta: JsonObject) -> str:
    # vLLM's name and llama.cpp's; a server that sends both sends the same twice.
    return _text(delta.get("reasoning")) or _text(delta.get("reasoning_content"))


def _reason(reason: str, has_calls: bool) -> str:
    """OpenAI's word for an answer with calls, which some servers leave at stop; what was cut stays cut."""
    if reason in ("length", "content_filter"):
        return reason
    return "tool_calls" if has_calls else "stop"


def _usage_of(usage: Any) -> Usage | None:
    """How much of the prompt came out of a cache is left: the cache is shared, and would tell one tenant what
    another has asked."""
    counts = _dict_of(usage)
    prompt, completion = count_of(counts.get("prompt_tokens")), count_of(counts.get("completion_tokens"))
    if prompt is None or completion is None:
        return None
    details = counts.get("completion_tokens_details")
    reasoning = count_of(details.get("reasoning_tokens")) if isinstance(details, dict) else None
    return Usage(prompt, completion, reasoning_tokens=reasoning)


def count_of(value: Any) -> int | None:
    """A count beyond 2^53 counts nothing: whoever reads it would round it, or fail."""
    return value if type(value) is int and 0 <= value <= MAX_INTEGER else None


def _timings_of(timings: Any) -> Timings:
    """llama.cpp's, in milliseconds. It loads its model when it starts, so never for a request."""
    given = _dict_of(timings)
    return Timings(prompt_ns=_ns(given.get("prompt_ms")), generation_ns=_ns(given.get("predicted_ms")))


def _ns(milliseconds: Any) -> int | None:
    if not isinstance(milliseconds, int | float) or not 0 <= milliseconds <= MAX_INTEGER / _NS_PER_MS:
        return None
    return round(milliseconds * _NS_PER_MS)


def _broken_off() -> BackendFailed:
    return BackendFailed("The model's server broke off its answer.")


def _unreadable() -> BackendFailed:
    return BackendFailed("The model's server sent what is no answer.")
