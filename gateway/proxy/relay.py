"""The relay: an answer on its way from a backend to a caller, streamed or whole, counted as it passes.

Frames of one read go out in one write. When the caller stops reading, `send` waits, so nothing more is
read from the backend. A stream that breaks ends with an error frame: it never looks complete.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager, suppress
from typing import Final

from attrs import evolve, frozen
from starlette.types import Send

from gateway.errors import BackendFailed, ClientLeft, Draining, GatewayError, ModelNotFound
from gateway.formats.chat import AnswerStamp, Event, Failure, Finish
from gateway.formats.translation import Call, SurfaceFormat, Upstream
from gateway.middleware.context import Header, answer
from gateway.model import Exchange, Outcome, Usage
from gateway.patience import Patience
from gateway.ports import Answer, Backend, Clock

# Proxies and SDKs give up on silence after 30 to 60 s; a model may load for minutes.
HEARTBEAT_S: Final = 15.0

# A caller of an OpenAI-like stream behind nginx must not wait for nginx's buffer.
_STREAM_HEADERS: Final[tuple[Header, ...]] = ((b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no"))

# A plain answer is held until it is complete. Its stream is many times the size of its text: with all log
# probabilities this is some 20,000 tokens, without them a quarter of a million.
MAX_WHOLE_BYTES: Final = 64 * 1024 * 1024

# Where no backend counted: English text has about four bytes to a token. Marked as estimated.
_BYTES_PER_TOKEN: Final = 4


@frozen
class Job:
    """What is to be relayed: the caller's call, its surface, and the same call in the backend's words."""

    call: Call
    surface: SurfaceFormat
    upstream: Upstream
    backend: Backend
    stamp: AnswerStamp
    headers: tuple[Header, ...] = ()


class Relay:
    """Relay one job for one exchange; notes usage, timings and the first token in the exchange."""

    def __init__(
        self,
        job: Job,
        exchange: Exchange,
        clock: Clock,
        *,
        is_cut: Callable[[], bool],
        heartbeat_s: float = HEARTBEAT_S,
    ) -> None:
        self._job = job
        self._is_cut = is_cut
        self._exchange = exchange
        self._clock = clock
        self._heartbeat_s = heartbeat_s
        self._is_answered = False

    async def whole(self, send: Send) -> None:
        """Answer in one piece. Raises what the backend's failure is for the caller."""
        job = self._job
        events: list[Event] = []
        try:
            with self._cut_as_draining():
                async with aclosing(self._batches()) as batches:
                    async for batch in batches:
                        events += batch
        finally:
            self._note_unfinished()
        data = job.surface.write_whole(events, job.stamp, job.call)
        await answer(send, 200, data, headers=list(job.headers))

    async def stream(self, send: Send) -> None:
        """Answer in frames. What fails before the first one is raised; after it, it is the last frame."""
        job = self._job
        writer = job.surface.writer(job.stamp, job.call)
        out = _Out(send, [(b"content-type", writer.content_type), *_STREAM_HEADERS, *job.headers])
        heartbeat = _Heartbeat(out, job.surface.heartbeat, self._heartbeat_s)
        try:
            with self._cut_as_draining():
                async with aclosing(self._batches()) as batches:
                    async for batch in batches:
                        await out.write(writer.write(batch))
                        heartbeat.renew()
        except GatewayError as error:
            if not out.started:
                raise
            self._note_broken(error)
            await out.write(writer.fail(error))
        finally:
            heartbeat.stop()
            self._note_unfinished()
        await out.finish()

    async def _batches(self) -> AsyncGenerator[list[Event], None]:
        """The events of each read, noted. Raises the backend's failure, behind what came before it."""
        async with aclosing(self._read()) as read:
            async for events in read:
                yield self._noted(events)
                for event in events:
                    if isinstance(event, Failure):
                        raise event.error
                if self._is_too_long():
                    yield self._noted([Finish("length")])
                    return

    def _is_too_long(self) -> bool:
        """The backend does not heed the bound that it was sent: a piece is a token at least."""
        allowed = self._exchange.output_allowed
        return allowed is not None and self._exchange.usage is None and self._exchange.pieces > allowed

    async def _read(self) -> AsyncGenerator[list[Event], None]:
        job, exchange = self._job, self._exchange
        exchange.is_dispatched = True
        async with self._sent() as upstream:
            if upstream.status != 200:
                # Refused before any work: an error costs nothing.
                exchange.is_dispatched = False
                raise await self._error_of(upstream)
            self._is_answered = True
            if job.upstream.read_whole is not None:
                yield job.upstream.read_whole(await upstream.body())
                return
            reader = job.upstream.reader()
            size = 0
            async with aclosing(upstream.chunks()) as pieces:
                async for data in pieces:
                    size += len(data)
                    if size > MAX_WHOLE_BYTES and not job.call.stream:
                        raise BackendFailed("The model backend sent an answer that is too large.")
                    events = reader.feed(data)
                    yield events
                    if events and isinstance(events[-1], Finish):
                        # Complete: what a backend does behind it, hanging or raving, is nobody's wait.
                        return
            yield reader.end()

    @asynccontextmanager
    async def _sent(self) -> AsyncIterator[Answer]:
        """The answer, once its head has come. A backend that was not reached has done no work."""
        job, exchange = self._job, self._exchange
        answering = job.backend.send(job.upstream.request, request_id=exchange.request_id)
        async with AsyncExitStack() as stack:
            try:
                answer_of_backend = await stack.enter_async_context(answering)
            except BackendFailed:
                exchange.is_dispatched = False
                raise
            yield answer_of_backend

    async def _error_of(self, upstream: Answer) -> GatewayError:
        error = self._job.upstream.read_error(upstream.status, await upstream.body())
        # The backend names the model in its own way, which may be a path.
        return ModelNotFound(self._job.call.model) if isinstance(error, ModelNotFound) else error

    @contextmanager
    def _cut_as_draining(self) -> Iterator[None]:
        """A cancellation that is no client leaving is a drain out of time: someone is there to be told."""
        try:
            yield
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or not self._is_cut():
                raise
            task.uncancel()
            raise Draining from None

    def _noted(self, events: Sequence[Event]) -> list[Event]:
        """Take down what the events say, and complete a finish whose backend did not count."""
        if events and self._exchange.first_token is None:
            self._exchange.first_token = self._clock.elapsed()
        return [self._note(event) for event in events if not isinstance(event, Failure)]

    def _note(self, event: Event) -> Event:
        if not isinstance(event, Finish):
            self._exchange.pieces += 1
            return event
        usage = event.usage or self._estimate()
        self._exchange.counted = event.usage
        self._exchange.usage, self._exchange.timings = usage, event.timings
        return event if event.usage else evolve(event, usage=usage)

    def _note_broken(self, error: GatewayError) -> None:
        self._exchange.error = error
        self._exchange.outcome = Outcome.CUT if isinstance(error, Draining) else Outcome.BACKEND_FAILED

    def _note_unfinished(self) -> None:
        # No backend sends counts when an answer is cut, so the pieces are counted.
        if self._is_answered and self._exchange.usage is None:
            self._exchange.usage = self._estimate()

    def _estimate(self) -> Usage:
        return Usage(self._exchange.bytes_in // _BYTES_PER_TOKEN, self._exchange.pieces, estimated=True)


class _Out:
    """The caller's end of a stream: the head goes out with the first bytes."""

    __slots__ = ("_headers", "_send", "started")

    def __init__(self, send: Send, headers: list[Header]) -> None:
        self._send = send
        self._headers = headers
        self.started = False

    async def write(self, data: bytes) -> None:
        if not data:
            return
        if not self.started:
            self.started = True
            await self._send({"type": "http.response.start", "status": 200, "headers": self._headers})
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def finish(self) -> None:
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})


class _Heartbeat:
    """Writes a comment whenever a stream was silent for a while, the time before its first frame included."""

    def __init__(self, out: _Out, comment: bytes | None, every_s: float) -> None:
        self._out = out
        self._comment = comment
        self._every_s = every_s
        self._beating: asyncio.Task[None] | None = None
        self._patience = None if comment is None else Patience(every_s, self._beat)

    def renew(self) -> None:
        if self._patience is not None:
            self._patience.renew(self._every_s)

    def stop(self) -> None:
        if self._patience is not None:
            self._patience.end()
        if self._beating is not None:
            self._beating.cancel()

    def _beat(self) -> None:
        self._beating = asyncio.get_running_loop().create_task(self._write())
        self._patience = Patience(self._every_s, self._beat)

    async def _write(self) -> None:
        # The watch sees a client that left; a comment for it is nobody's loss.
        with suppress(ClientLeft):
            await self._out.write(self._comment or b"")
