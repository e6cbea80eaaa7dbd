"""Ollama's answers: frames of NDJSON, or one whole object, read as events.

Every optional field is optional here, as versions differ; but an answer that does not say `done` never
looks complete, and what is no frame at all is a failure of the backend.
"""

from collections.abc import Callable
from typing import Any, Final

import orjson

from gateway.errors import BackendFailed
from gateway.formats.chat import Delta, Event, Failure, Finish, ToolCalls
from gateway.formats.fields import MAX_INTEGER
from gateway.formats.logprobs import native_items
from gateway.formats.ndjson import LineSplitter
from gateway.formats.ollama.errors import read_failure
from gateway.formats.ollama.messages import received_calls
from gateway.model import JsonObject, Timings, Usage

# What answers a command to load or unload a model: it counts nothing, for nothing was computed.
_NOTHING_COMPUTED: Final = ("load", "unload")


class _Reader:
    """Frames in, events out. `_piece_of` takes text, thinking and calls out of a frame."""

    def __init__(self, piece_of: Callable[[JsonObject], tuple[str, str, Any]]) -> None:
        self._piece_of = piece_of
        self._lines = LineSplitter()
        self._is_over = False
        self._has_text = False
        self._has_calls = False
        self.held = 0  # its calls come whole

    def feed(self, data: bytes) -> list[Event]:
        """A Failure for bytes that are no frames, behind what was read before. The rest is left unread."""
        events: list[Event] = []
        try:
            for line in self._lines.feed(data):
                self._read(line, events)
        except BackendFailed as error:
            self._is_over = True
            events.append(Failure(error))
        return events

    def end(self) -> list[Event]:
        """Raise BackendFailed when the answer broke off. The last line may lack its end."""
        events: list[Event] = []
        for line in self._lines.end():
            self._read(line, events)
        if not self._is_over:
            raise BackendFailed("The model's server broke off its answer.")
        return events

    def _read(self, line: bytes, events: list[Event]) -> None:
        if self._is_over:
            return
        frame = frame_of(line)
        if frame.get("error"):
            self._is_over = True
            events.append(Failure(read_failure(frame["error"])))
            return
        content, thinking, calls = self._piece_of(frame)
        logprobs = native_items(frame["logprobs"]) if "logprobs" in frame else ()
        if content or thinking or logprobs:
            self._has_text = True
            events.append(Delta(content, thinking, logprobs))
        if calls:
            self._has_calls = True
            events.append(ToolCalls(received_calls(calls)))
        if frame.get("done") is True:
            self._is_over = True
            events.append(self._finish(frame))

    def _finish(self, frame: JsonObject) -> Finish:
        return Finish(
            reason=self._reason(frame.get("done_reason")),
            usage=self._usage(frame),
            timings=Timings(
                total_ns=count_in(frame, "total_duration"),
                load_ns=count_in(frame, "load_duration"),
                prompt_ns=count_in(frame, "prompt_eval_duration"),
                generation_ns=count_in(frame, "eval_duration"),
            ),
            context=_integers(frame.get("context")),
        )

    def _reason(self, done_reason: Any) -> str:
        if done_reason == "length":
            return "length"
        return "tool_calls" if self._has_calls else "stop"

    def _usage(self, frame: JsonObject) -> Usage | None:
        """Counts are left out when they are 0, and when they are unknown: those cases are told apart here."""
        if frame.get("done_reason") in _NOTHING_COMPUTED:
            return Usage(0, 0)
        prompt, completion = count_in(frame, "prompt_eval_count"), count_in(frame, "eval_count")
        if completion is None and not self._has_text and not self._has_calls:
            completion = 0
        # No prompt is empty: old servers leave its count out when they had it in their cache.
        return None if prompt is None or completion is None else Usage(prompt, completion)


class ChatReader(_Reader):
    """The answer of /api/chat, streamed."""

    def __init__(self) -> None:
        super().__init__(_piece_of_chat)


class GenerateReader(_Reader):
    """The answer of /api/generate, streamed."""

    def __init__(self) -> None:
        super().__init__(_piece_of_generate)


def read_chat_answer(body: bytes) -> list[Event]:
    """The whole answer of /api/chat. Raise BackendFailed for one that can't be read or is not done."""
    return _read_whole(ChatReader(), body)


def read_generate_answer(body: bytes) -> list[Event]:
    """The whole answer of /api/generate. Raise BackendFailed for one that can't be read or is not done."""
    return _read_whole(GenerateReader(), body)


def _read_whole(reader: _Reader, body: bytes) -> list[Event]:
    # One object, which another writer may have spread over lines.
    events: list[Event] = []
    reader._read(body, events)
    return events + reader.end()


def frame_of(line: bytes) -> JsonObject:
    try:
        frame = orjson.loads(line)
    except orjson.JSONDecodeError:
        frame = None
    if type(frame) is not dict:
        raise BackendFailed("The model's server sent what is no part of an answer.")
    return frame


def _piece_of_chat(frame: JsonObject) -> tuple[str, str, Any]:
    message = frame.get("message")
    if type(message) is not dict:
        return "", "", None
    thinking = _text(message, "thinking") if "thinking" in message else ""
    return _text(message, "content"), thinking, message.get("tool_calls")


def _piece_of_generate(frame: JsonObject) -> tuple[str, str, Any]:
    return _text(frame, "response"), _text(frame, "thinking"), frame.get("tool_calls")


def _text(frame: JsonObject, name: str) -> str:
    value = frame.get(name)
    return value if type(value) is str else ""


def count_in(frame: JsonObject, name: str) -> int | None:
    """A count beyond 2^53 counts nothing: whoever reads it would round it, or fail."""
    value = frame.get(name)
    return value if type(value) is int and 0 <= value <= MAX_INTEGER else None


def _integers(value: Any) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, list) and all(type(item) is int for item in value) else ()
