"""The events of an answer, joined: for callers who want it whole, on either surface."""

from collections.abc import Iterable

from attrs import frozen

from gateway.errors import BackendFailed
from gateway.formats.chat import ChatCall, Delta, Event, Failure, Finish, GenerateCall, ToolCall, ToolCalls
from gateway.model import JsonObject


@frozen
class Joined:
    """A whole answer. Calls are as the backend gave them, some without an id."""

    finish: Finish
    content: str = ""
    thinking: str = ""
    calls: tuple[ToolCall, ...] = ()
    logprobs: tuple[JsonObject, ...] = ()


def joined(events: Iterable[Event], call: ChatCall | GenerateCall) -> Joined:
    """Log probabilities are left out where the call wants none.

    Raise the error of a Failure, and BackendFailed without a Finish.
    """
    deltas: list[Delta] = []
    calls: list[ToolCall] = []
    finish: Finish | None = None
    for event in events:
        match event:
            case Delta():
                deltas.append(event)
            case ToolCalls():
                calls += event.calls
            case Finish():
                finish = event
            case Failure():
                raise event.error
    if finish is None:
        raise BackendFailed("The model's server broke off its answer.")
    wanted = call.top_logprobs is not None
    return Joined(
        finish=finish,
        content="".join(delta.content for delta in deltas),
        thinking="".join(delta.thinking for delta in deltas),
        calls=tuple(calls),
        logprobs=tuple(item for delta in deltas if wanted for item in delta.logprobs),
    )
