"""A stream that breaks never looks complete: on every surface that streams, from either kind of backend."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from attrs import define, field

from gateway.errors import BackendFailed, BackendTimeout, GatewayError
from gateway.formats import sse
from gateway.formats.chat import AnswerStamp, UpstreamRequest
from gateway.formats.parts import parts_of
from gateway.formats.translation import READERS, SURFACES
from gateway.model import Operation, Outcome
from gateway.proxy.relay import Job, Relay
from tests.asgi import FakeClock, exchange
from tests.proxy.doubles import Pulled, visit_at

HELLO: Any = [{"role": "user", "content": "Hi"}]
ASKED: dict[Operation, dict[str, Any]] = {
    Operation.CHAT: {"messages": HELLO},
    Operation.GENERATE: {"prompt": "Hi"},
    Operation.CHAT_COMPLETIONS: {"messages": HELLO, "stream": True},
    Operation.COMPLETIONS: {"prompt": "Hi", "stream": True},
    Operation.RESPONSES: {"input": "Hi", "stream": True},
    Operation.MESSAGES: {"messages": HELLO, "max_tokens": 5, "stream": True},
}
# What clients take for the end of an answer, by surface; and the last that they see of a broken one.
COMPLETE = (b'"done":true', b"[DONE]", b'"finish_reason":"', b"response.completed", b"message_stop")
LAST: dict[Operation, bytes] = {
    Operation.CHAT: b'{"error":"',
    Operation.GENERATE: b'{"error":"',
    Operation.CHAT_COMPLETIONS: b'data: {"error":{"message":"',
    Operation.COMPLETIONS: b'data: {"error":{"message":"',
    Operation.RESPONSES: b"event: response.failed\n",
    Operation.MESSAGES: b'event: error\ndata: {"type":"error","error":{"type":"',
}


def piece(operation: Operation, kind: str) -> bytes:
    """A first token, as a backend of this kind sends it for this operation."""
    is_chat = operation not in (Operation.GENERATE, Operation.COMPLETIONS)
    if kind == "ollama":
        said = {"message": {"role": "assistant", "content": "Well"}} if is_chat else {"response": "Well"}
        return orjson.dumps(said | {"done": False}) + b"\n"
    # Ollama's generate is a chat there; a completion is one.
    delta = {"text": "Well"} if operation is Operation.COMPLETIONS else {"delta": {"content": "Well"}}
    return sse.frame(orjson.dumps({"choices": [{"index": 0, **delta, "finish_reason": None}]}))


def failure(kind: str) -> bytes:
    error = {"error": {"message": "CUDA error", "code": 500}}
    return (
        sse.frame(orjson.dumps(error)) if kind == "openai" else orjson.dumps({"error": "CUDA error"}) + b"\n"
    )


BREAKS: dict[str, Any] = {
    "it just ends": lambda kind: b"",
    "it says that it failed": failure,
    "it sends what is no answer": lambda kind: b"data: <html>\n\n" if kind == "openai" else b"<html>\n",
    "its connection breaks": lambda kind: BackendFailed("The model backend broke off its answer."),
    "it falls silent": lambda kind: BackendTimeout("The model backend stopped in the middle of its answer."),
}


@define
class Breaking(Pulled):
    """A backend that begins an answer, and breaks."""

    pieces: list[bytes | GatewayError]
    name: str = "b"
    kind: str = "ollama"
    status: int = 200
    sent: list[UpstreamRequest] = field(factory=list)

    @asynccontextmanager
    async def send(
        self, request: UpstreamRequest, *, request_id: str, timeouts: Any = None
    ) -> AsyncIterator["Breaking"]:
        self.sent.append(request)
        yield self

    def hold(self) -> None:
        pass

    def let_go(self) -> None:
        pass

    async def read(self) -> bytes:
        await asyncio.sleep(0)
        piece = self.pieces.pop(0) if self.pieces else b""
        if isinstance(piece, GatewayError):
            raise piece
        return piece


@define
class Caller:
    received: bytes = b""
    is_complete: bool = False

    async def send(self, message: Any) -> None:
        self.received += message.get("body", b"")
        self.is_complete = message["type"] == "http.response.body" and not message["more_body"]


@pytest.mark.parametrize("how", BREAKS)
@pytest.mark.parametrize("kind", ["ollama", "openai"])
@pytest.mark.parametrize("operation", ASKED, ids=lambda operation: operation.value)
async def test_a_stream_that_breaks_says_so_last(operation: Operation, kind: str, how: str):
    """What came before is told; then an error in the surface's own words, and nothing like an end."""
    call = READERS[operation]({"model": "m", **ASKED[operation]})
    backend: Any = Breaking([piece(operation, kind), BREAKS[how](kind)], kind=kind)
    noted, caller = exchange(bytes_in=40), Caller()
    stamp = AnswerStamp("r1", "m", 0.0, lambda: 0.0)
    job = Job(call, SURFACES[operation], visit_at(backend, noted=noted), stamp, parts_of(call))

    await Relay(job, noted, FakeClock(), cut=lambda: None).stream(caller.send)

    assert b"Well" in caller.received
    frames = caller.received.strip().split(b"\n" if operation.value in ("chat", "generate") else b"\n\n")
    assert frames[-1].startswith(LAST[operation])
    assert not any(end in caller.received for end in COMPLETE)
    assert caller.is_complete, "of the HTTP answer: what it holds says that it broke"
    assert noted.outcome is Outcome.BACKEND_FAILED


def test_every_surface_that_streams_is_here():
    assert set(ASKED) == {operation for operation, surface in SURFACES.items() if surface.writer}
