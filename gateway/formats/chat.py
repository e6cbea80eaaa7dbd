"""What every surface can say, in one set of words.

A surface reads its request into a call, such as a `ChatCall`; a backend kind writes that as its own.
The backend's answer comes back as `Event`s; the surface writes those in its own frames. So two surfaces
and two kinds need four translators, not four pairs, and a new one meets all others at once.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count
from typing import Final, Protocol, TypeVar

from attrs import evolve, field, frozen

from gateway.errors import GatewayError, UnsupportedField
from gateway.formats.vectors import Vector
from gateway.model import JsonObject, Timings, Usage

_C = TypeVar("_C")

# ── requests ─────────────────────────────────────────────────────────────────────────────
# Calls and their sampling have no slots: each request has copies made of them (`bounded`), and without slots
# that, and making them, takes half the time.


@frozen
class Image:
    """An image of a message: standard base64 without white space, and its media type (`image/png`).

    For models that hear it may be a sound (`audio/wav`): Ollama's field for images carries both.
    """

    base64: str
    media_type: str


@frozen
class ToolCall:
    """A call that the model asks for. `arguments` is an object; `id` is "" where none was given."""

    id: str
    name: str
    arguments: JsonObject


@frozen
class Message:
    """One turn. `role` is system, user, assistant or tool; text parts are joined by newlines.

    On role tool, `tool_call_id` names the answered call and `tool_name` its function; either may be ""
    as clients sent it: `with_tool_ids` completes them. `name` tells apart who speaks in one role, where both
    sides have a word for it.
    """

    role: str
    content: str = ""
    images: tuple[Image, ...] = ()
    thinking: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    tool_name: str = ""
    name: str = ""


@frozen
class Tool:
    """A function that the model may call. `parameters` is its JSON Schema, as it was given."""

    name: str
    description: str = ""
    parameters: JsonObject = field(factory=dict)
    strict: bool | None = None


@frozen
class ToolChoice:
    """`mode` is auto, none or required; with `name`, required means just that function."""

    mode: str
    name: str = ""


@frozen
class Format:
    """Structured output: any JSON object (`schema` None), or what the JSON Schema describes."""

    schema: JsonObject | None = None
    name: str = ""
    strict: bool | None = None
    description: str = ""


@frozen(slots=False)
class Sampling:
    """How tokens are picked and when to stop. None: the default of the backend, or of the model."""

    max_tokens: int | None = None
    """Upper bound of the output; None or absent means the backend's own."""
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    typical_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repeat_penalty: float | None = None
    repeat_last_n: int | None = None
    num_keep: int | None = None
    num_ctx: int | None = None
    logit_bias: tuple[tuple[int, float], ...] = ()
    """Tokens of the model, by number, and by how much each is more likely: -100 to 100."""


@frozen(slots=False)
class ChatCall:
    """A chat, whichever surface it came by. `model` is as the caller wrote it.

    `think` is None (the model's default), a bool, or a level: low, medium, high, max. With `think_if_able`
    a model that is known not to think just answers. `omit_thinking`: it is not to be shown.
    `continues`: the answer is to go on where the last message, the assistant's, breaks off.
    `truncate`: what does not fit the context is cut, where the backend can, and that is told; else refused.
    `top_logprobs` is None when log probabilities were not asked for, else 0 to 20.
    `include_usage`: the caller wants the usage chunk at the end of an OpenAI stream. `n` is how many answers
    it wants. `as_functions`: it offered its tools as `functions`, and looks for a `function_call`.
    `dropped` names fields that were read and will not be honoured; they are told in a header.
    """

    model: str
    messages: Sequence[Message]
    stream: bool
    sampling: Sampling = Sampling()
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    format: Format | None = None
    think: bool | str | None = None
    think_if_able: bool = False
    omit_thinking: bool = False
    continues: bool = False
    top_logprobs: int | None = None
    keep_alive: float | None = None
    truncate: bool = False
    include_usage: bool = False
    n: int = 1
    as_functions: bool = False
    dropped: tuple[str, ...] = ()


@frozen(slots=False)
class GenerateCall:
    """A completion by Ollama's /api/generate. Fields as in `ChatCall`.

    `raw`: without the model's template; None: as the kind of backend does it by itself. `tokens` are the
    prompt by the model's own numbers, in place of the text.
    """

    model: str
    prompt: str
    stream: bool
    system: str | None = None
    raw: bool | None = False
    suffix: str = ""
    images: tuple[Image, ...] = ()
    context: tuple[int, ...] = ()
    sampling: Sampling = Sampling()
    format: Format | None = None
    think: bool | str | None = None
    top_logprobs: int | None = None
    keep_alive: float | None = None
    truncate: bool = False
    dropped: tuple[str, ...] = ()
    tokens: tuple[int, ...] = ()


@frozen(slots=False)
class CompletionCall:
    """A completion by OpenAI's /v1/completions: `n` answers to each prompt, a text or the model's tokens.

    `echo`: each answer begins with its prompt. Other fields as in `GenerateCall` and `ChatCall`.
    """

    model: str
    prompts: tuple[str | tuple[int, ...], ...]
    stream: bool
    n: int = 1
    echo: bool = False
    raw: bool | None = None
    suffix: str = ""
    sampling: Sampling = Sampling()
    format: Format | None = None
    think: bool | str | None = None
    top_logprobs: int | None = None
    keep_alive: float | None = None
    truncate: bool = False
    include_usage: bool = False
    dropped: tuple[str, ...] = ()


@frozen(slots=False)
class EmbedCall:
    """Inputs, each to be made a vector: texts, or tokens of the model's, by number. Fields as in `ChatCall`.

    `dimensions`: only so many numbers of each vector, None for all. `truncate`: an input beyond the context
    is cut, instead of refused. `base64`: vectors as base64 of little-endian float32, where the surface has
    that. Of the sampling only `num_ctx` counts.
    """

    model: str
    inputs: tuple[str | tuple[int, ...], ...]
    dimensions: int | None = None
    truncate: bool = False
    base64: bool = False
    sampling: Sampling = Sampling()
    keep_alive: float | None = None
    dropped: tuple[str, ...] = ()
    stream: bool = field(default=False, init=False)
    """Never: a vector is no use in pieces."""


# What one request to a backend can be; any other call is sent in parts (`formats.parts`).
Part = ChatCall | GenerateCall | EmbedCall
Call = Part | CompletionCall


def bounded(call: Call, max_tokens: int | None) -> Call:
    """The same call, for an output of so many tokens at most."""
    sampling = call.sampling
    if sampling.max_tokens == max_tokens:
        return call
    return _with(call, sampling=_with(sampling, max_tokens=max_tokens))


def _with(one: _C, **values: object) -> _C:
    """A copy with other values. As `evolve`, which asks each field by itself and costs ten times as much:
    for what each request does. Of classes without slots alone.
    """
    copy = object.__new__(type(one))
    copy.__dict__.update(one.__dict__, **values)
    return copy


def as_chat(call: GenerateCall) -> ChatCall:
    """A templated completion as a chat of one turn, for kinds that have no other way to use the template.

    Raise UnsupportedField for a suffix, and for tokens. `context` is left out: it holds the tokens of
    another server.
    """
    if call.suffix:
        raise UnsupportedField("'suffix' can't be honoured for this model; leave it out.", param="suffix")
    if call.tokens:
        raise UnsupportedField("'prompt' must be text unless 'raw' is true.", param="prompt")
    system = (Message("system", call.system),) if call.system else ()
    return ChatCall(
        model=call.model,
        messages=(*system, Message("user", call.prompt, images=call.images)),
        stream=call.stream,
        sampling=call.sampling,
        format=call.format,
        think=call.think,
        top_logprobs=call.top_logprobs,
        keep_alive=call.keep_alive,
        truncate=call.truncate,
        dropped=call.dropped,
    )


# ── tool calls and their answers ─────────────────────────────────────────────────────────


def with_tool_ids(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The same messages, each call with an id, and each tool message with the id and name of its call.

    Ollama's clients send neither ids nor `tool_call_id`; OpenAI's send ids, but no name. An answer
    belongs to the call with its id; without an id to the oldest unanswered call of its name, else to
    the oldest unanswered one. Ids that were given stay; the same messages always get the same ids.
    """
    for message in messages:
        if message.tool_calls or message.role == "tool":
            return tuple(map(_Matching(messages).completed, messages))
    return tuple(messages)


# A history that leaves more calls than this unanswered is no conversation; the oldest are forgotten,
# so that the search for an answer's call stays short.
_MAX_UNANSWERED: Final = 256


class _Matching:
    """Calls and answers of one conversation, taken in order."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self._fresh_ids = _fresh_ids(messages)
        self._names: dict[str, str] = {}
        self._unanswered: deque[ToolCall] = deque(maxlen=_MAX_UNANSWERED)

    def completed(self, message: Message) -> Message:
        if message.tool_calls:
            return self._calling(message)
        if message.role == "tool":
            return self._answering(message)
        if message.role == "user":
            # Nobody answers a call of an earlier turn: a lost answer must not shift all later ones.
            self._unanswered.clear()
        return message

    def _calling(self, message: Message) -> Message:
        calls = tuple(
            call if call.id else evolve(call, id=next(self._fresh_ids)) for call in message.tool_calls
        )
        self._names.update((call.id, call.name) for call in calls)
        self._unanswered += calls
        return evolve(message, tool_calls=calls)

    def _answering(self, message: Message) -> Message:
        call = self._answered_by(message)
        if call is not None:
            self._unanswered.remove(call)
        answered_id = call.id if call is not None else message.tool_call_id or next(self._fresh_ids)
        name = message.tool_name or self._names.get(answered_id, "")
        return evolve(message, tool_call_id=answered_id, tool_name=name)

    def _answered_by(self, message: Message) -> ToolCall | None:
        if message.tool_call_id:
            return next((call for call in self._unanswered if call.id == message.tool_call_id), None)
        same_name = (call for call in self._unanswered if call.name == message.tool_name)
        return next(same_name, self._unanswered[0] if self._unanswered else None)


def _fresh_ids(messages: Sequence[Message]) -> Iterator[str]:
    """Ids that no message uses: nine letters and digits, as the templates of Mistral's models demand."""
    taken = {call.id for message in messages for call in message.tool_calls}
    taken |= {message.tool_call_id for message in messages}
    return (name for number in count(1) if (name := f"call{number:05}") not in taken)


# ── answers ──────────────────────────────────────────────────────────────────────────────


@frozen
class Delta:
    """A piece of the answer: text, thinking, or both. `logprobs` in OpenAI's item shape."""

    content: str = ""
    thinking: str = ""
    logprobs: tuple[JsonObject, ...] = ()


@frozen
class ToolCalls:
    """Complete calls, in order; a stream may bring several such events."""

    calls: tuple[ToolCall, ...]


@frozen
class Finish:
    """The regular end, exactly once and last. `reason` is stop, length, tool_calls or content_filter.

    `usage` is None where the backend did not count. `context` is /api/generate's. `vectors` are all that an
    `EmbedCall` is answered by, one for each input. `stop_sequence` is the text that ended the answer, ""
    where there was none or the backend does not say.
    """

    reason: str
    usage: Usage | None = None
    timings: Timings = field(factory=Timings)
    context: tuple[int, ...] = ()
    vectors: tuple[Vector, ...] = ()
    stop_sequence: str = ""


@frozen
class Failure:
    """The backend said in mid-stream that it failed: the end, and never a `Finish` after it."""

    error: GatewayError


Event = Delta | ToolCalls | Finish | Failure


@frozen
class UpstreamRequest:
    """What to send to a backend: a constant path and a body built from known fields only."""

    path: str
    body: JsonObject


class AnswerReader(Protocol):
    """A backend's answer: feed it bytes in any cut, get events.

    `held` are tokens, at least, that came and are in no event yet: a call that is told when it is whole.
    """

    held: int

    def feed(self, data: bytes) -> list[Event]:
        """The events of these bytes. What can't be an answer is a Failure, behind what was read before."""

    def end(self) -> list[Event]:
        """The bytes are over. Raise BackendFailed when neither `Finish` nor `Failure` came."""


@frozen
class AnswerStamp:
    """What an answer says about itself, and the clock that its frames are dated by.

    `id` is unique per request: ids of answers and of tool calls that lack one are derived from it.
    `model` is as the caller wrote it; it is echoed. `created` and `now()` are seconds since the epoch.
    """

    id: str
    model: str
    created: float
    now: Callable[[], float]


class AnswerWriter(Protocol):
    """A surface's answer: give it events, get the bytes of its frames."""

    content_type: bytes

    def write(self, events: Iterable[Event]) -> bytes:
        """The frames for these events, joined; empty when they have none."""

    def fail(self, error: GatewayError) -> bytes:
        """The in-band last frame of a stream that broke, in the surface's own shape."""
