"""What a caller said and was answered, in one shape for every surface, bounded: what a prompt log keeps.

Text only. An image or a sound is told by its type and size, a vector not at all. What is longer than the
bounds is cut, and says where and by how much. Of a long conversation the last turns are kept: they are what
is new.
"""

import sys
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, Final

import orjson
from attrs import evolve, fields, has

from gateway.formats.chat import (
    Call,
    ChatCall,
    CompletionCall,
    Delta,
    EmbedCall,
    Event,
    Failure,
    Finish,
    GenerateCall,
    Image,
    Message,
    ToolCall,
    ToolCalls,
)
from gateway.model import JsonObject

# Some 64,000 and 32,000 tokens of English: a full context of most models, and a longer answer than most give.
MAX_PROMPT_CHARACTERS: Final = 256 * 1024
MAX_ANSWER_CHARACTERS: Final = 128 * 1024
# What a turn takes beside its text: a caller may send a hundred thousand empty ones.
_TURN_CHARACTERS: Final = 64
# More turns than that have no room, however short they are.
_MAX_TURNS: Final = MAX_PROMPT_CHARACTERS // _TURN_CHARACTERS
# A string for each token of an answer takes ten times its text.
_MAX_PIECES: Final = 1024
# An empty transcript, and each answer without its texts.
_OWN_BYTES: Final = 2048
_ANSWER_BYTES: Final = 1024
_CALL_BYTES: Final = 240
# A whole number above 256, and its place in a tuple.
_TOKEN_BYTES: Final = 36
# Some 10 ms. Only arguments of calls can have more values.
_MAX_LOOKED_AT: Final = 30_000
# What JSON takes, at most, when it is read: `{},` becomes 72 bytes, `{"a":1},` becomes 192.
_READ_JSON_FACTOR: Final = 24


class Transcript:
    """One request's. `hear` what its backend says, then `written`: not while it still hears.

    It holds what it needs of the call until then. `written` takes as long as the call is large: not for the
    event loop.
    """

    def __init__(self, call: Call, operation: str) -> None:
        self._call, self._left_out = _needed_of(call)
        self._tools = [tool.name for tool in call.tools[:_MAX_TURNS]] if isinstance(call, ChatCall) else []
        self._operation = operation
        self._room = _Room(MAX_ANSWER_CHARACTERS)
        self._answers: list[_Answer] = []

    def hear(self, events: Iterable[Event]) -> None:
        """Take down the next events, in their order. Of several answers each ends with its Finish."""
        for event in events:
            if not self._answers or self._answers[-1].finish:
                self._answers.append(_Answer(self._room))
            self._answers[-1].hear(event)

    def held_bytes(self, bytes_in: int) -> int:
        """About how much memory it takes, of a request that had `bytes_in`. Takes 10 ms at most."""
        answers = sum(answer.held_bytes() for answer in self._answers)
        asked = _bytes_of(self._call, self._tools)
        return _OWN_BYTES + answers + (_READ_JSON_FACTOR * bytes_in if asked is None else asked)

    def written(self) -> JsonObject:
        """All of it: `operation`, `model`, `prompt` (turns), `answers`, and whether any of it was `cut`."""
        room = _Room(MAX_PROMPT_CHARACTERS)
        turns: list[JsonObject] = []
        all_turns = _turns_of(self._call)
        for turn in reversed(all_turns):
            if not room.left:
                break
            turns.append(_turn(turn, room))
        left_out = self._left_out + len(all_turns) - len(turns)
        return {
            "operation": self._operation,
            "model": self._call.model,
            "prompt": turns[::-1],
            "turns_left_out": left_out,
            "tools": [room.kept(name) for name in self._tools if room.left],
            "answers": [answer.written() for answer in self._answers],
            "cut": bool(left_out or room.is_cut or self._room.is_cut),
        }


class _Room:
    """How many characters may still be kept."""

    def __init__(self, characters: int) -> None:
        self.left = characters
        self.is_cut = False

    def take(self, text: str) -> str:
        """As much of a text as there is room for."""
        kept = text[: self.left]
        self.is_cut = self.is_cut or len(kept) < len(text)
        self.left -= len(kept)
        return kept

    def kept(self, text: str) -> str:
        """The same, with a mark where it is cut."""
        kept = self.take(text)
        return kept if len(kept) == len(text) else kept + _mark(len(text) - len(kept))


def _mark(characters: int) -> str:
    return f"[… {characters:,} characters cut]"


class _Text:
    """A text that comes in pieces."""

    def __init__(self, room: _Room) -> None:
        self._room = room
        self._pieces: list[str] = []
        self._cut = 0

    def add(self, piece: str) -> None:
        kept = self._room.take(piece)
        self._cut += len(piece) - len(kept)
        if kept:
            self._pieces.append(kept)
        if len(self._pieces) > _MAX_PIECES:
            self._pieces = ["".join(self._pieces)]

    def held_bytes(self) -> int:
        return sum(map(sys.getsizeof, self._pieces)) + sys.getsizeof(self._pieces)

    def __str__(self) -> str:
        return "".join(self._pieces) + (_mark(self._cut) if self._cut else "")


class _Answer:
    def __init__(self, room: _Room) -> None:
        self.finish = ""
        self._room = room
        self._content = _Text(room)
        self._thinking = _Text(room)
        self._calls: list[JsonObject] = []

    def hear(self, event: Event) -> None:
        match event:
            case Delta():
                self._content.add(event.content)
                self._thinking.add(event.thinking)
            case ToolCalls():
                self._calls += _calls(event.calls, self._room)
            case Finish():
                self.finish = event.reason
            case Failure():
                self.finish = "failed"

    def held_bytes(self) -> int:
        calls = sum(_CALL_BYTES + sum(map(sys.getsizeof, call.values())) for call in self._calls)
        return _ANSWER_BYTES + self._content.held_bytes() + self._thinking.held_bytes() + calls

    def written(self) -> JsonObject:
        told = {
            "content": str(self._content),
            "thinking": str(self._thinking),
            "tool_calls": self._calls,
            # An answer that was cut short has none.
            "finish": self.finish or None,
        }
        return {name: value for name, value in told.items() if value or name in ("content", "finish")}


def _needed_of(call: Call) -> tuple[Call, int]:
    """A call without what is not kept of it, and how many of its turns are not."""
    match call:
        case ChatCall():
            messages = call.messages[-_MAX_TURNS:]
            needed = evolve(call, messages=messages, tools=(), format=None)
            return needed, len(call.messages) - len(messages)
        case GenerateCall():
            return evolve(call, context=(), format=None), 0
        case CompletionCall():
            prompts = call.prompts[-_MAX_TURNS:]
            return evolve(call, prompts=prompts, format=None), len(call.prompts) - len(prompts)
        case EmbedCall():
            inputs = call.inputs[-_MAX_TURNS:]
            return evolve(call, inputs=inputs), len(call.inputs) - len(inputs)


def _bytes_of(*held: Any) -> int | None:
    """What values take with all that is in them; None where these are too many to look at."""
    total, waiting, looked_at = 0, list(held), 0
    while waiting:
        one = waiting.pop()
        if not one and not isinstance(one, dict | list | float):
            continue  # there is one of each: None, False, 0, "" and ()
        total += sys.getsizeof(one)
        looked_at += 1
        if isinstance(one, dict):
            waiting += one.keys()
            waiting += one.values()
        elif isinstance(one, tuple) and isinstance(one[0], int):
            total += (_TOKEN_BYTES - 8) * len(one)
        elif isinstance(one, tuple | list):
            waiting += one
        else:
            waiting += [getattr(one, name) for name in _fields_of(one.__class__)]
        if looked_at > _MAX_LOOKED_AT:
            return None
    return total


@cache
def _fields_of(kind: type) -> tuple[str, ...]:
    """Of a class of ours; of any other none."""
    return tuple(field.name for field in fields(kind)) if has(kind) else ()


def _turns_of(call: Call) -> Sequence[Message]:
    match call:
        case ChatCall():
            return call.messages
        case GenerateCall():
            return _generate(call)
        case CompletionCall():
            ending = [Message("suffix", call.suffix)] if call.suffix else []
            return [*(Message("prompt", _text(prompt)) for prompt in call.prompts), *ending]
        case EmbedCall():
            return [Message("input", _text(one)) for one in call.inputs]


def _generate(call: GenerateCall) -> Sequence[Message]:
    given = (
        Message("system", call.system or ""),
        Message("prompt", call.prompt or _text(call.tokens), images=call.images),
        Message("suffix", call.suffix),
    )
    return [turn for turn in given if turn.content or turn.images]


def _text(prompt: str | tuple[int, ...]) -> str:
    """Tokens by their numbers, which say as much as the text to whoever has the model."""
    if isinstance(prompt, str):
        return prompt
    return f"tokens {' '.join(map(str, prompt))}" if prompt else ""


def _turn(turn: Message, room: _Room) -> JsonObject:
    room.left = max(0, room.left - _TURN_CHARACTERS)
    told = {
        "role": turn.role,
        "name": room.kept(turn.name or turn.tool_name),
        "content": room.kept(turn.content),
        "thinking": room.kept(turn.thinking),
        "tool_calls": _calls(turn.tool_calls, room),
        "attachments": [_attachment(one, room) for one in turn.images if room.left],
    }
    return {name: value for name, value in told.items() if value or name in ("role", "content")}


def _attachment(image: Image, room: _Room) -> JsonObject:
    room.left = max(0, room.left - _TURN_CHARACTERS)
    return {"media_type": image.media_type, "bytes": len(image.base64) * 3 // 4}


def _calls(calls: Iterable[ToolCall], room: _Room) -> list[JsonObject]:
    """Arguments as text: what is cut of an object is no object any more."""
    return [
        {"name": room.kept(call.name), "arguments": room.kept(orjson.dumps(call.arguments).decode())}
        for call in calls
        if room.left
    ]
