"""The tool calls of one answer, as callers are told of them: each with an id, and no more than they want."""

from hashlib import sha256
from typing import Final

from attrs import evolve

from gateway.formats.chat import AnswerStamp, ChatCall, ToolCall

_ID_DIGITS: Final = 24


class ToldCalls:
    """Counts through the whole answer. `prefix` is what the surface's own ids begin with.

    Where the caller wants no parallel calls the first alone is told: no backend of ours can promise it.
    """

    def __init__(self, stamp: AnswerStamp, call: ChatCall, prefix: str) -> None:
        self._stamp = stamp
        self._prefix = prefix
        self._most = 1 if call.parallel_tool_calls is False else None
        self.count = 0

    def told(self, calls: tuple[ToolCall, ...]) -> tuple[ToolCall, ...]:
        """The calls that the caller is to see; an id that a backend left out is derived from the answer's."""
        left = None if self._most is None else self._most - self.count
        told = tuple(self._with_id(call, number) for number, call in enumerate(calls[:left], self.count))
        self.count += len(told)
        return told

    def reason(self, reason: str) -> str:
        """Why the answer ended: clients look for calls only where it says so."""
        return "tool_calls" if self.count and reason == "stop" else reason

    def _with_id(self, call: ToolCall, number: int) -> ToolCall:
        if call.id:
            return call
        digest = sha256(f"{self._stamp.id}/{number}".encode()).hexdigest()
        return evolve(call, id=self._prefix + digest[:_ID_DIGITS])
