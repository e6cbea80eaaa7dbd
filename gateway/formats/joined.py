"""The events of an answer, joined: for callers who want it whole, on either surface."""

from collections.abc import Iterable, Sequence
from typing import Final

from attrs import frozen

from gateway.errors import BackendFailed, InvalidRequest
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
    ToolCall,
    ToolCalls,
)
from gateway.formats.vectors import Vector, shortened
from gateway.model import JsonObject, Timings, Usage

# An answer is held until it is complete: as text, so many numbers are some 80 MB.
MAX_NUMBERS: Final = 4 * 1024 * 1024


@frozen
class Joined:
    """A whole answer. Calls are as the backend gave them, some without an id."""

    finish: Finish
    content: str = ""
    thinking: str = ""
    calls: tuple[ToolCall, ...] = ()
    logprobs: tuple[JsonObject, ...] = ()


def joined_answers(
    events: Iterable[Event], call: ChatCall | GenerateCall | CompletionCall, count: int
) -> list[Joined]:
    """The answers to a call of so many, in their order. Raise as `joined` does, also where one is missing."""
    if count == 1:
        return [joined(events, call)]
    answers: list[Joined] = []
    events_of_one: list[Event] = []
    for event in events:
        events_of_one.append(event)
        if isinstance(event, Finish | Failure):
            answers.append(joined(events_of_one, call))
            events_of_one = []
    if len(answers) != count:
        raise _broken_off()
    return answers


def joined(events: Iterable[Event], call: ChatCall | GenerateCall | CompletionCall) -> Joined:
    """Log probabilities are left out where the call wants none.

    Raise the error of a Failure, and BackendFailed without a Finish.
    """
    contents: list[str] = []
    thinking: list[str] = []
    logprobs: list[JsonObject] = []
    calls: list[ToolCall] = []
    finish: Finish | None = None
    for event in events:
        match event:
            case Delta():
                contents.append(event.content)
                if event.thinking:
                    thinking.append(event.thinking)
                if event.logprobs and call.top_logprobs is not None:
                    logprobs += event.logprobs
            case ToolCalls():
                calls += event.calls
            case Finish():
                finish = event
            case Failure():
                raise event.error
    if finish is None:
        raise _broken_off()
    return Joined(finish, "".join(contents), "".join(thinking), tuple(calls), tuple(logprobs))


def _broken_off() -> BackendFailed:
    return BackendFailed("The model's server broke off its answer.")


# ── vectors ──────────────────────────────────────────────────────────────────────────────


@frozen
class Embedded:
    """The answer to an `EmbedCall`: a vector for each input, in their order, of the asked `dimensions`."""

    vectors: tuple[Vector, ...]
    usage: Usage
    timings: Timings


def embedded(events: Iterable[Event], call: EmbedCall) -> Embedded:
    """The vectors of all parts of a call. Raise BackendFailed where there is not one for each input."""
    finishes = [event for event in events if isinstance(event, Finish)]
    vectors = tuple(shortened(vector, call.dimensions) for finish in finishes for vector in finish.vectors)
    if len(vectors) != len(call.inputs):
        raise BackendFailed("The model's server did not send one vector for each input.")
    return Embedded(
        vectors,
        usage=sum((finish.usage for finish in finishes if finish.usage), Usage(0, 0)),
        timings=sum((finish.timings for finish in finishes), Timings()),
    )


def refuse_what_is_too_large(events: Sequence[Event], call: Call) -> None:
    """Raise InvalidRequest when the whole answer, by what has come of it, will be larger than can be held."""
    if not isinstance(call, EmbedCall):
        return
    vectors = [vector for event in events if isinstance(event, Finish) for vector in event.vectors]
    if vectors and len(vectors[0]) * len(call.inputs) > MAX_NUMBERS:
        raise InvalidRequest(
            f"The vectors of this model have {len(vectors[0])} numbers: send at most "
            f"{MAX_NUMBERS // len(vectors[0])} inputs at once.",
            param="input",
        )
