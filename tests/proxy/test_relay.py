"""The relay, with a backend made of values: what the caller gets, and what the exchange notes."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Literal

import orjson
import pytest
from attrs import define, evolve, field

from gateway.errors import (
    BackendFailed,
    BackendTimeout,
    BackendUnreachable,
    ClientLeft,
    ContextLengthExceeded,
    Draining,
    GatewayError,
    InvalidRequest,
    ModelNotFound,
)
from gateway.formats import sse
from gateway.formats.anthropic import PING
from gateway.formats.chat import (
    AnswerStamp,
    Call,
    ChatCall,
    EmbedCall,
    Event,
    Finish,
    Message,
    UpstreamRequest,
)
from gateway.formats.parts import parts_of
from gateway.formats.translation import SURFACES, SurfaceFormat, Upstream
from gateway.model import Demand, Exchange, LoadedModel, ModelCard, Operation, Outcome, Usage
from gateway.proxy.relay import Job, Relay
from tests.asgi import FakeClock, exchange
from tests.proxy.doubles import Pulled, router_of, ticket, visit_at

CALL = ChatCall("m", (Message("user", "Hi"),), stream=True)


def frame(content: str = "", **more: Any) -> bytes:
    return orjson.dumps({"message": {"role": "assistant", "content": content}, "done": False} | more) + b"\n"


DONE = frame(done=True, done_reason="stop", prompt_eval_count=5, eval_count=2)


@define
class FakeAnswer(Pulled):
    pieces: Sequence[bytes | GatewayError | asyncio.Event]
    status: int = 200
    _read: int = field(default=0, init=False)

    async def read(self) -> bytes:
        for piece in self.pieces[self._read :]:
            self._read += 1
            if isinstance(piece, GatewayError):
                raise piece
            if isinstance(piece, bytes):
                return piece
            await piece.wait()
        return b""

    async def body(self) -> bytes:
        body = b""
        while piece := await self.read():
            body += piece
        return body


@define
class FakeBackend:
    answer: FakeAnswer
    name: str = "b"
    kind: str = "ollama"
    left: list[bool] = field(factory=list)
    sent: list[UpstreamRequest] = field(factory=list)
    later: list[FakeAnswer] = field(factory=list)
    """What it answers from the second request on."""
    sent_twice: asyncio.Event = field(factory=asyncio.Event)

    def send(
        self, request: UpstreamRequest, *, request_id: str, timeouts: Any = None
    ) -> AbstractAsyncContextManager[FakeAnswer]:
        if self.sent:
            self.answer = self.later.pop(0)
            self.sent_twice.set()
        self.sent.append(request)
        return self._sent()

    @asynccontextmanager
    async def _sent(self) -> AsyncIterator[FakeAnswer]:
        try:
            yield evolve(self.answer)
        finally:
            self.left.append(True)

    def hold(self) -> None:
        pass

    def let_go(self) -> None:
        pass

    async def models(self) -> tuple[ModelCard, ...]:
        return ()

    async def loaded(self) -> tuple[LoadedModel, ...]:
        return ()

    async def completed(self, card: ModelCard) -> ModelCard:
        return card

    async def ask(self, request: UpstreamRequest, *, request_id: str, timeout_s: float) -> tuple[int, bytes]:
        raise NotImplementedError


@define
class Caller:
    """What the caller received; may stop reading, or leave."""

    status: int | None = None
    headers: dict[bytes, bytes] = field(factory=dict)
    pieces: list[bytes] = field(factory=list)
    got: asyncio.Event = field(factory=asyncio.Event)
    is_complete: bool = False
    is_gone: bool = False

    async def send(self, message) -> None:
        if self.is_gone:
            raise ClientLeft
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], dict(message["headers"])
            return
        if message["body"]:
            self.pieces.append(message["body"])
        self.is_complete = not message.get("more_body", False)
        self.got.set()


def relay_of(
    pieces: Sequence[bytes | GatewayError | asyncio.Event],
    call: Call = CALL,
    operation: Operation = Operation.CHAT,
    *,
    status: int = 200,
    cut: Callable[[], GatewayError | None] = lambda: None,
    heartbeat_s: float = 60,
    kind: str = "ollama",
) -> tuple[Relay, Exchange, FakeBackend]:
    given = exchange(bytes_in=40)
    backend = FakeBackend(FakeAnswer(pieces, status), kind=kind)
    stamp = AnswerStamp("r1", call.model, 0.0, lambda: 0.0)
    job = Job(call, SURFACES[operation], visit_at(backend, noted=given), stamp, parts_of(call))
    return Relay(job, given, FakeClock(), cut=cut, heartbeat_s=heartbeat_s), given, backend


async def test_frames_of_one_read_go_out_in_one_write():
    """And the frames of another read in another: a token is never held back."""
    relay, _, _ = relay_of([frame("a") + frame("b"), frame("c"), DONE])
    caller = Caller()

    await relay.stream(caller.send)

    assert [piece.count(b"\n") for piece in caller.pieces] == [2, 1, 1]
    assert caller.is_complete


async def test_what_the_backend_counted_is_noted():
    relay, noted, _ = relay_of([frame("a"), DONE])

    await relay.stream(Caller().send)

    assert noted.usage == Usage(5, 2)
    assert noted.first_token == 100.0
    assert (noted.error, noted.outcome) == (None, None)


async def test_what_no_backend_counted_is_estimated():
    """Four bytes to a token of the prompt, one token to a piece; the caller is told the same."""
    relay, noted, _ = relay_of([frame("a"), frame("b"), frame(done=True, done_reason="stop")])
    caller = Caller()

    await relay.stream(caller.send)

    assert noted.usage == Usage(10, 2, estimated=True)
    assert orjson.loads(caller.pieces[-1])["eval_count"] == 2


@pytest.mark.parametrize(
    ("pieces", "error"),
    [
        ([BackendTimeout("too slow")], BackendTimeout),
        ([b""], BackendFailed),
        ([orjson.dumps({"error": "boom"})], BackendFailed),
        ([b"<html>\n"], BackendFailed),
    ],
    ids=["a timeout", "nothing at all", "an error at once", "no JSON"],
)
async def test_a_failure_before_the_first_frame_is_raised(pieces, error: type[GatewayError]):
    """So that it becomes a status, and not a stream with an error in it."""
    relay, noted, _ = relay_of(pieces)
    caller = Caller()

    with pytest.raises(error):
        await relay.stream(caller.send)

    assert caller.status is None
    assert noted.outcome is None


async def test_a_failure_behind_good_frames_is_the_last_frame():
    """Also when both came in one read: what was said before is not lost."""
    relay, noted, _ = relay_of([frame("a") + b"garbage\n"])
    caller = Caller()

    await relay.stream(caller.send)

    said, failed = (orjson.loads(line) for line in b"".join(caller.pieces).splitlines())
    assert said["message"]["content"] == "a"
    assert set(failed) == {"error"}
    assert caller.is_complete
    assert noted.outcome is Outcome.BACKEND_FAILED
    assert noted.usage == Usage(10, 1, estimated=True)


async def test_an_error_status_is_read_in_the_backend_s_own_words():
    """A model that the backend lacks is told by the caller's name for it."""
    relay, _, _ = relay_of([b'{"error":"model \'m:latest\' not found"}'], status=404)

    with pytest.raises(ModelNotFound) as caught:
        await relay.stream(Caller().send)

    assert caught.value.model == "m"


async def test_a_plain_call_is_answered_in_one_piece():
    relay, noted, _ = relay_of([DONE], ChatCall("m", CALL.messages, stream=False))
    caller = Caller()

    await relay.whole(caller.send)

    assert (caller.status, len(caller.pieces)) == (200, 1)
    assert noted.usage == Usage(5, 2)


async def test_a_client_that_is_gone_ends_the_work():
    """Nothing more is read from the backend, and nobody is told anything."""
    relay, noted, backend = relay_of([frame("a"), asyncio.Event()])
    caller = Caller(is_gone=True)

    with pytest.raises(ClientLeft):
        await relay.stream(caller.send)

    assert backend.left == [True]
    assert noted.usage == Usage(10, 1, estimated=True)


class Silence(asyncio.Event):
    """What never comes; `reached` is set once it is waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = asyncio.Event()

    async def wait(self) -> Literal[True]:
        self.reached.set()
        return await super().wait()


WEATHER = {"function": {"name": "weather", "arguments": {"city": "x" * 400}}}
CALLED = frame(message={"role": "assistant", "content": "", "tool_calls": [WEATHER]})
CHUNK = b'data: {"choices": [{"index": 0, "delta": {"tool_calls": [%b]}}]}\n\n'
CALL_IN_PIECES = [
    CHUNK % b'{"index": 0, "id": "c1", "function": {"name": "f", "arguments": "{"}}',
    *(CHUNK % b'{"index": 0, "function": {"arguments": " "}}' for _ in range(30)),
]


@pytest.mark.parametrize(
    ("kind", "pieces", "tokens"),
    [
        pytest.param("ollama", [CALLED], (7 + len('{"city":""}') + 400) // 4, id="whole"),
        pytest.param("openai", CALL_IN_PIECES, 31, id="in pieces, and never told"),
    ],
)
async def test_a_client_that_leaves_behind_a_call_pays_for_the_call(kind, pieces, tokens):
    """One event may be a hundred tokens, and thirty-one pieces none."""
    silence = Silence()
    relay, noted, _ = relay_of([*pieces, silence], kind=kind)

    task = asyncio.create_task(relay.stream(Caller().send))
    await silence.reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert noted.usage == Usage(10, tokens, estimated=True)
    assert noted.pieces == tokens


async def test_a_call_that_was_counted_costs_its_count():
    """By its bytes it might have had more tokens than it had: blanks are cheap."""
    relay, noted, _ = relay_of([CALLED, DONE])

    await relay.stream(Caller().send)

    assert (noted.usage, noted.pieces) == (Usage(5, 2), 1)


async def test_a_call_without_end_is_cut_at_the_bound():
    """Its pieces are tokens, also while nobody is told of them."""
    relay, noted, backend = relay_of([*CALL_IN_PIECES, asyncio.Event()], kind="openai")
    noted.output_allowed = 20
    caller = Caller()

    await relay.stream(caller.send)

    assert caller.is_complete
    assert backend.left == [True]
    assert noted.usage == Usage(10, 21, estimated=True)


async def cancelled(relay: Relay, caller: Caller, *, after: asyncio.Event | None = None) -> None:
    task = asyncio.create_task(relay.stream(caller.send))
    await (after.wait() if after else asyncio.sleep(0))
    task.cancel()
    await task


async def test_a_drain_out_of_time_is_the_last_frame_of_a_stream():
    relay, noted, backend = relay_of([frame("a"), asyncio.Event()], cut=Draining)
    caller = Caller()

    await cancelled(relay, caller, after=caller.got)

    assert set(orjson.loads(caller.pieces[-1])) == {"error"}
    assert caller.is_complete
    assert noted.outcome is Outcome.CUT
    assert backend.left == [True]


async def test_a_drain_before_the_first_frame_is_raised():
    relay, _, _ = relay_of([asyncio.Event()], cut=Draining)

    with pytest.raises(Draining):
        await cancelled(relay, Caller())


async def test_any_other_cancellation_stays_one():
    relay, _, backend = relay_of([asyncio.Event()])

    with pytest.raises(asyncio.CancelledError):
        await cancelled(relay, Caller())

    assert backend.left == [True]


@pytest.mark.parametrize(
    ("operation", "beat", "end"),
    [(Operation.CHAT_COMPLETIONS, sse.COMMENT, sse.DONE), (Operation.MESSAGES, PING, b'"message_stop"}\n\n')],
    ids=["a comment", "Anthropic's ping"],
)
async def test_a_silent_stream_gets_heartbeats_where_frames_have_them(
    operation: Operation, beat: bytes, end: bytes
):
    """While a model loads: SSE has them, NDJSON has none, and a client would choke on a blank line."""
    loaded = asyncio.Event()
    relay, noted, _ = relay_of([loaded, frame("a"), DONE], operation=operation, heartbeat_s=0.01)
    caller = Caller()

    task = asyncio.create_task(relay.stream(caller.send))
    await caller.got.wait()
    assert noted.first_token is None
    loaded.set()
    await task

    assert caller.pieces[0] == beat
    assert caller.pieces[-1].endswith(end)
    assert caller.headers[b"x-accel-buffering"] == b"no"


async def test_a_failure_after_a_comment_is_told_in_the_stream():
    """The head is out: there is no status left to tell it with."""
    broken = asyncio.Event()
    relay, noted, _ = relay_of(
        [broken, BackendTimeout("too slow")], operation=Operation.CHAT_COMPLETIONS, heartbeat_s=0.01
    )
    caller = Caller()

    task = asyncio.create_task(relay.stream(caller.send))
    await caller.got.wait()
    broken.set()
    await task

    assert b'"error"' in caller.pieces[-1]
    assert sse.DONE not in b"".join(caller.pieces)
    assert noted.outcome is Outcome.BACKEND_FAILED


@pytest.mark.parametrize("behind", [asyncio.Event(), BackendTimeout("too slow"), b"garbage\n"], ids=repr)
async def test_what_comes_behind_the_end_changes_nothing(behind):
    """A backend that hangs, breaks or raves after its last frame: the caller has its whole answer."""
    relay, noted, backend = relay_of([frame("a"), DONE, behind])
    caller = Caller()

    async with asyncio.timeout(5):
        await relay.stream(caller.send)

    last = orjson.loads(b"".join(caller.pieces).splitlines()[-1])
    assert last["done"] is True
    assert caller.is_complete
    assert (noted.error, noted.outcome, noted.usage) == (None, None, Usage(5, 2))
    assert backend.left == [True]


async def test_a_plain_answer_has_a_bound(monkeypatch):
    """It is held until it is complete: an endless one would take all the memory that there is."""
    monkeypatch.setattr("gateway.proxy.relay.MAX_WHOLE_BYTES", 300)
    call = ChatCall("m", CALL.messages, stream=False)
    pieces = [sse.frame(b'{"choices":[{"delta":{"content":"x"}}]}')] * 50
    relay, noted, _ = relay_of(pieces, call, Operation.CHAT_COMPLETIONS, kind="openai")

    with pytest.raises(BackendFailed):
        await relay.whole(Caller().send)

    assert noted.usage is not None
    assert noted.usage.estimated


# ── calls of several parts ───────────────────────────────────────────────────────────────

INPUTS = tuple(f"text {number}" for number in range(200))


def vectors(count: int, counted: int | None = None) -> bytes:
    """What Ollama answers to so many inputs."""
    return orjson.dumps({"embeddings": [[1.0, 0.0]] * count, "prompt_eval_count": counted})


def embedding_of(*answers: FakeAnswer) -> tuple[Relay, Exchange, FakeBackend]:
    """200 inputs, which are sent in two parts; their prompts have at most 1000 tokens."""
    relay, noted, backend = relay_of((), EmbedCall("m", INPUTS), Operation.EMBED)
    backend.answer, backend.later = answers[0], list(answers[1:])
    noted.demand = Demand(prompt_bound=1000, output=0, runs=0)
    return relay, noted, backend


async def test_the_parts_of_a_call_are_one_answer():
    """In their order, one after another; what the backend counted is added up."""
    relay, noted, backend = embedding_of(FakeAnswer([vectors(128, 300)]), FakeAnswer([vectors(72, 150)]))
    caller = Caller()

    await relay.whole(caller.send)

    answer = orjson.loads(caller.pieces[0])
    assert (len(answer["embeddings"]), answer["prompt_eval_count"]) == (200, 450)
    assert [sent.body["input"] for sent in backend.sent] == [list(INPUTS[:128]), list(INPUTS[128:])]
    assert noted.counted == noted.usage == Usage(450, 0)
    assert noted.pieces == 0


async def test_a_part_that_nobody_counted_is_charged_its_share():
    """The parts that were counted are charged by their counts."""
    relay, noted, _ = embedding_of(FakeAnswer([vectors(128, 300)]), FakeAnswer([vectors(72)]))

    await relay.whole(Caller().send)

    assert noted.counted == Usage(300 + 500, 0, estimated=True)


@pytest.mark.parametrize("size", [1, 300_000], ids=["small", "large"])
async def test_large_bodies_are_read_and_written_beside_the_loop(size: int):
    """Megabytes of vectors would make all other callers wait."""
    threads: list[threading.Thread] = []

    def read_whole(body: bytes) -> list[Event]:
        threads.append(threading.current_thread())
        return [Finish("stop", Usage(1, 0))]

    def write_whole(events: Iterable[Event], stamp: AnswerStamp, call: Call) -> bytes:
        threads.append(threading.current_thread())
        return b"{}"

    relay, _, _ = relay_of([b"x" * size], EmbedCall("m", ("x",)), Operation.EMBED)
    upstream = Upstream(UpstreamRequest("/", {}), None, lambda status, body: BackendFailed(""), read_whole)
    surface = SurfaceFormat(lambda body: CALL, None, write_whole)
    relay._job = evolve(relay._job, surface=surface, to_upstream=lambda kind, part, model: upstream)

    await relay.whole(Caller().send)

    assert [thread is threading.main_thread() for thread in threads] == [size == 1] * 2


@pytest.mark.parametrize("is_stream", [True, False], ids=["streamed", "plain"])
async def test_each_of_several_answers_may_be_as_long_as_was_granted(is_stream: bool):
    """A backend that goes on is cut where its own answer is too long."""
    call = ChatCall("m", CALL.messages, stream=is_stream, n=2, include_usage=True)
    chunks = [sse.frame(b'{"choices":[{"delta":{"content":"x"}}]}')] * 4
    relay, noted, backend = relay_of(chunks, call, Operation.CHAT_COMPLETIONS, kind="openai")
    backend.later = [FakeAnswer(chunks)]
    noted.output_allowed, noted.demand = 2, Demand(prompt_bound=100, output=2, runs=2)
    caller = Caller()

    await (relay.stream(caller.send) if is_stream else relay.whole(caller.send))

    assert b"".join(caller.pieces).count(b'"finish_reason":"length"') == 2
    assert noted.pieces == 6
    assert noted.counted == Usage(2 * 50, 6, estimated=True)
    assert noted.usage == Usage(2 * 5, 6, estimated=True)


async def test_all_is_counted_when_the_last_of_several_answers_has_ended():
    """Whoever settles behind the first one would let the others run for nothing."""
    call = ChatCall("m", CALL.messages, stream=True, n=2, include_usage=True)
    chunks = [
        sse.frame(b'{"choices":[{"delta":{"content":"x"},"finish_reason":"stop"}]}'),
        sse.frame(b'{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":1}}'),
        sse.frame(b"[DONE]"),
    ]
    relay, noted, backend = relay_of(chunks, call, Operation.CHAT_COMPLETIONS, kind="openai")
    backend.later = [FakeAnswer(chunks)]
    counted: list[tuple[bool, Usage | None]] = []

    async def send(message):
        counted.append((noted.is_all_counted, noted.counted))

    await relay.stream(send)

    settled = next(usage for is_all_counted, usage in counted if is_all_counted)
    assert settled == noted.counted == Usage(10, 2)
    assert (False, Usage(5, 1)) in counted


async def test_what_failed_later_is_charged_for_what_was_done():
    """A part that was refused cost nothing, and the whole answer is its error."""
    refused = FakeAnswer([b'{"error":"the input length exceeds the context length"}'], status=400)
    relay, noted, _ = embedding_of(FakeAnswer([vectors(128, 300)]), refused)

    with pytest.raises(ContextLengthExceeded) as caught:
        await relay.whole(Caller().send)

    assert caught.value.param == "input"
    assert noted.is_dispatched
    assert noted.counted == Usage(300, 0)


async def test_what_was_refused_at_once_costs_nothing():
    relay, noted, backend = embedding_of(FakeAnswer([b'{"error":"no"}'], status=400))

    with pytest.raises(InvalidRequest):
        await relay.whole(Caller().send)

    assert (noted.is_dispatched, noted.counted, len(backend.sent)) == (False, None, 1)


async def test_a_client_that_leaves_stops_the_parts_that_are_left():
    """The one that runs is charged its share: nobody will say what it cost."""
    relay, noted, backend = embedding_of(FakeAnswer([vectors(128, 300)]), FakeAnswer([asyncio.Event()]))
    task = asyncio.create_task(relay.whole(Caller().send))
    await backend.sent_twice.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task

    assert backend.left == [True, True]
    assert noted.counted == Usage(300 + 500, 0, estimated=True)


async def test_an_answer_that_would_be_too_large_is_refused_after_its_first_part(monkeypatch):
    """What is held in memory has a bound; the caller is told how many inputs fit."""
    monkeypatch.setattr("gateway.formats.joined.MAX_NUMBERS", 300)
    relay, noted, backend = embedding_of(FakeAnswer([vectors(128, 300)]))

    with pytest.raises(InvalidRequest, match="at most 150 inputs"):
        await relay.whole(Caller().send)

    assert len(backend.sent) == 1
    assert noted.counted == Usage(300, 0)


# ── prompts that do not fit ──────────────────────────────────────────────────────────────

TOO_LONG = FakeAnswer(
    [
        orjson.dumps(
            {"error": '{"error":{"code":400,"message":"too much","type":"exceed_context_size_error"}}'}
        )
    ],
    status=400,
)
LONG = evolve(CALL, truncate=True)


def cut_after(*answers: FakeAnswer, call: Call = LONG, **how: Any) -> tuple[Relay, Exchange, FakeBackend]:
    relay, noted, backend = relay_of((), call, **how)
    backend.answer, backend.later = answers[0], list(answers[1:])
    return relay, noted, backend


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "plain"])
async def test_a_prompt_that_is_cut_is_told_before_the_answer(stream: bool):
    """Ollama would cut it without a word: so it is asked to refuse first, and to cut only then."""
    answered = FakeAnswer([frame("a"), DONE] if stream else [DONE])
    relay, noted, backend = cut_after(TOO_LONG, answered, call=evolve(LONG, stream=stream))
    caller = Caller()

    await (relay.stream(caller.send) if stream else relay.whole(caller.send))

    assert [sent.body["truncate"] for sent in backend.sent] == [False, True]
    assert (caller.status, caller.headers[b"x-gateway-truncated"]) == (200, b"messages")
    assert (noted.usage, noted.is_dispatched) == (Usage(5, 2), True)
    assert backend.left == [True, True]


async def test_a_prompt_that_fits_is_sent_once():
    relay, _, backend = cut_after(FakeAnswer([frame("a"), DONE]))
    caller = Caller()

    await relay.stream(caller.send)

    assert len(backend.sent) == 1
    assert b"x-gateway-truncated" not in caller.headers


@pytest.mark.parametrize(
    ("call", "answers"),
    [
        pytest.param(CALL, [TOO_LONG], id="by a caller who wants no cut"),
        pytest.param(LONG, [TOO_LONG, TOO_LONG], id="which is too long even when cut"),
    ],
)
async def test_a_prompt_that_is_not_cut_is_refused(call: Call, answers: list[FakeAnswer]):
    """It costs nothing: no backend has worked on it."""
    relay, noted, backend = cut_after(*answers, call=call)

    with pytest.raises(ContextLengthExceeded):
        await relay.stream(Caller().send)

    assert len(backend.sent) == len(answers)
    assert (noted.is_dispatched, noted.counted) == (False, None)


async def test_any_other_refusal_is_not_tried_again():
    relay, _, backend = cut_after(FakeAnswer([b'{"error":"no"}'], status=400))

    with pytest.raises(InvalidRequest):
        await relay.stream(Caller().send)

    assert len(backend.sent) == 1


async def test_a_prompt_is_not_cut_when_it_is_too_late_to_tell():
    """The head went out with a comment while the model loaded: the refusal is the last frame."""
    loaded = asyncio.Event()
    relay, _, backend = cut_after(
        FakeAnswer([loaded, *TOO_LONG.pieces], TOO_LONG.status),
        operation=Operation.CHAT_COMPLETIONS,
        heartbeat_s=0.01,
    )
    caller = Caller()

    task = asyncio.create_task(relay.stream(caller.send))
    await caller.got.wait()
    loaded.set()
    await task

    assert len(backend.sent) == 1
    assert b'"code":"context_length_exceeded"' in caller.pieces[-1]


async def test_of_many_inputs_one_that_is_cut_is_told_once():
    """Each part is asked for as the caller wants it; the header names the field."""
    call = EmbedCall("m", INPUTS, truncate=True)
    relay, noted, backend = cut_after(
        TOO_LONG,
        FakeAnswer([vectors(128, 300)]),
        TOO_LONG,
        FakeAnswer([vectors(72, 150)]),
        call=call,
        operation=Operation.EMBED,
    )
    caller = Caller()

    await relay.whole(caller.send)

    assert caller.headers[b"x-gateway-truncated"] == b"input"
    assert [sent.body["truncate"] for sent in backend.sent] == [False, True, False, True]
    assert noted.counted == Usage(450, 0)


class Away(FakeBackend):
    """Nobody listens there."""

    def send(
        self, request: UpstreamRequest, *, request_id: str, timeouts: Any = None
    ) -> AbstractAsyncContextManager[FakeAnswer]:
        raise BackendUnreachable("away")


async def test_who_waits_in_line_is_told_where():
    """By the comments that keep its stream open; the head says where it stood when it came."""
    call = evolve(CALL, include_usage=False)
    relay, given, backend = relay_of([frame("a"), DONE], call, Operation.CHAT_COMPLETIONS, heartbeat_s=0.01)
    router = router_of([backend], slots=1)
    first = visit_at(backend, router=router)
    await first.__aenter__()
    relay._job = evolve(relay._job, visit=visit_at(backend, noted=given, router=router, given=ticket("t2")))
    caller = Caller()

    streaming = asyncio.create_task(relay.stream(caller.send))
    await asyncio.wait_for(caller.got.wait(), 30)
    assert caller.pieces[0] == b": waiting in the queue at position 1\n\n"
    assert caller.headers[b"x-queue-position"] == b"1"
    assert b"x-queue-wait-ms" not in caller.headers
    await first.__aexit__(None, None, None)
    await asyncio.wait_for(streaming, 30)

    assert caller.is_complete
    assert given.queued_s is not None


async def test_a_call_goes_on_at_another_backend_where_the_first_is_not_reached():
    """Before anything was sent, and for its first part only: the other's have cost something."""
    unreached = Away(FakeAnswer([]), name="away")
    backend = FakeBackend(FakeAnswer([DONE]), name="there")
    given = exchange(bytes_in=40)
    visit = visit_at(unreached, noted=given, router=router_of([unreached, backend]))
    job = Job(CALL, SURFACES[Operation.CHAT], visit, AnswerStamp("r1", "m", 0.0, lambda: 0.0), (CALL,))
    caller = Caller()

    await Relay(job, given, FakeClock(), cut=lambda: None).stream(caller.send)

    assert (given.backend, given.usage) == ("there", Usage(5, 2))
    assert len(backend.sent) == 1


async def test_where_nobody_is_reached_nothing_is_charged():
    unreached = Away(FakeAnswer([]), name="away")
    given = exchange(bytes_in=40)
    job = Job(
        CALL,
        SURFACES[Operation.CHAT],
        visit_at(unreached, noted=given),
        AnswerStamp("r1", "m", 0.0, lambda: 0.0),
        (CALL,),
    )

    with pytest.raises(BackendUnreachable):
        await Relay(job, given, FakeClock(), cut=lambda: None).stream(Caller().send)

    assert not given.is_dispatched
