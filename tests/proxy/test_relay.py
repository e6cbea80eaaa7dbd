"""The relay, with a backend made of values: what the caller gets, and what the exchange notes."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import orjson
import pytest
from attrs import define, field

from gateway.errors import BackendFailed, BackendTimeout, ClientLeft, Draining, GatewayError, ModelNotFound
from gateway.formats import sse
from gateway.formats.chat import AnswerStamp, ChatCall, Message, UpstreamRequest
from gateway.formats.translation import SURFACES, upstream_of
from gateway.model import Exchange, ModelCard, Operation, Outcome, Usage
from gateway.proxy.relay import Job, Relay
from tests.asgi import FakeClock, exchange

CALL = ChatCall("m", (Message("user", "Hi"),), stream=True)


def frame(content: str = "", **more: Any) -> bytes:
    return orjson.dumps({"message": {"role": "assistant", "content": content}, "done": False} | more) + b"\n"


DONE = frame(done=True, done_reason="stop", prompt_eval_count=5, eval_count=2)


@define
class FakeAnswer:
    pieces: Sequence[bytes | GatewayError | asyncio.Event]
    status: int = 200

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        for piece in self.pieces:
            if isinstance(piece, GatewayError):
                raise piece
            if isinstance(piece, asyncio.Event):
                await piece.wait()
            else:
                yield piece

    async def body(self) -> bytes:
        return b"".join([piece async for piece in self.chunks()])


@define
class FakeBackend:
    answer: FakeAnswer
    name: str = "b"
    kind: str = "ollama"
    left: list[bool] = field(factory=list)

    def send(self, request: UpstreamRequest, *, request_id: str) -> AbstractAsyncContextManager[FakeAnswer]:
        return self._sent()

    @asynccontextmanager
    async def _sent(self) -> AsyncIterator[FakeAnswer]:
        try:
            yield self.answer
        finally:
            self.left.append(True)

    async def models(self) -> tuple[ModelCard, ...]:
        return ()


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
    call: ChatCall = CALL,
    operation: Operation = Operation.CHAT,
    *,
    status: int = 200,
    is_cut: Callable[[], bool] = lambda: False,
    heartbeat_s: float = 60,
    kind: str = "ollama",
) -> tuple[Relay, Exchange, FakeBackend]:
    given = exchange(bytes_in=40)
    backend = FakeBackend(FakeAnswer(pieces, status))
    stamp = AnswerStamp("r1", call.model, 0.0, lambda: 0.0)
    job = Job(call, SURFACES[operation], upstream_of(kind, call, "m:latest"), backend, stamp)
    return Relay(job, given, FakeClock(), is_cut=is_cut, heartbeat_s=heartbeat_s), given, backend


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


async def cancelled(relay: Relay, caller: Caller, *, after: asyncio.Event | None = None) -> None:
    task = asyncio.create_task(relay.stream(caller.send))
    await (after.wait() if after else asyncio.sleep(0))
    task.cancel()
    await task


async def test_a_drain_out_of_time_is_the_last_frame_of_a_stream():
    relay, noted, backend = relay_of([frame("a"), asyncio.Event()], is_cut=lambda: True)
    caller = Caller()

    await cancelled(relay, caller, after=caller.got)

    assert set(orjson.loads(caller.pieces[-1])) == {"error"}
    assert caller.is_complete
    assert noted.outcome is Outcome.CUT
    assert backend.left == [True]


async def test_a_drain_before_the_first_frame_is_raised():
    relay, _, _ = relay_of([asyncio.Event()], is_cut=lambda: True)

    with pytest.raises(Draining):
        await cancelled(relay, Caller())


async def test_any_other_cancellation_stays_one():
    relay, _, backend = relay_of([asyncio.Event()])

    with pytest.raises(asyncio.CancelledError):
        await cancelled(relay, Caller())

    assert backend.left == [True]


async def test_a_silent_stream_gets_comments_where_frames_have_them():
    """While a model loads: SSE has comments, NDJSON has none, and a client would choke on a blank line."""
    loaded = asyncio.Event()
    relay, noted, _ = relay_of(
        [loaded, frame("a"), DONE], operation=Operation.CHAT_COMPLETIONS, heartbeat_s=0.01
    )
    caller = Caller()

    task = asyncio.create_task(relay.stream(caller.send))
    await caller.got.wait()
    assert noted.first_token is None
    loaded.set()
    await task

    assert caller.pieces[0] == sse.COMMENT
    assert caller.pieces[-1].endswith(sse.DONE)
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
