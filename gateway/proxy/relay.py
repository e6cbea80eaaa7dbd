"""The relay: an answer on its way from a backend to a caller, streamed or whole, counted as it passes.

A call of several parts is sent one part after another; their events are one answer.
Frames of one read go out in one write. When the caller stops reading, `send` waits, so nothing more is
read from the backend. A stream that breaks ends with an error frame: it never looks complete.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import orjson
from attrs import define, evolve, frozen
from starlette.types import Send

from gateway.errors import (
    BackendFailed,
    ConnectTimeout,
    ContextLengthExceeded,
    GatewayError,
    ModelNotFound,
)
from gateway.formats import sse
from gateway.formats.chat import (
    AnswerReader,
    AnswerStamp,
    Call,
    Event,
    Failure,
    Finish,
    Part,
    ToolCall,
    ToolCalls,
    UpstreamRequest,
)
from gateway.formats.joined import refuse_what_is_too_large
from gateway.formats.translation import SurfaceFormat, Upstream, upstream_of
from gateway.middleware.context import Header, answer
from gateway.middleware.intake import is_large, worked_on
from gateway.model import Exchange, Outcome, Usage, plus
from gateway.ports import Answer, Clock
from gateway.proxy.outgoing import HEARTBEAT_S, Heartbeat, Outgoing, waited
from gateway.proxy.visit import UNSENT, Visit

# A caller of an OpenAI-like stream behind nginx must not wait for nginx's buffer.
_STREAM_HEADERS: Final[tuple[Header, ...]] = ((b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no"))

# Names the field of the request of which the model has not seen all.
_TRUNCATED: Final = b"x-gateway-truncated"

# A plain answer is held until it is complete. Its stream is many times the size of its text: with all log
# probabilities this is some 20,000 tokens, without them a quarter of a million.
MAX_WHOLE_BYTES: Final = 64 * 1024 * 1024

# Where no backend counted: English text has about four bytes to a token. Marked as estimated.
_BYTES_PER_TOKEN: Final = 4


# Takes the events of one read to the caller, or keeps them. Gives back what is to be waited for, if anything.
Take = Callable[[list[Event]], Awaitable[None] | None]


@frozen
class Job:
    """What is to be relayed: the caller's call, its surface, and the visit at a backend that answers it."""

    call: Call
    surface: SurfaceFormat
    visit: Visit
    stamp: AnswerStamp
    parts: tuple[Part, ...]
    """Of the call, as they are sent one after another."""
    headers: tuple[Header, ...] = ()
    to_upstream: Callable[[str, Part, str], Upstream] = upstream_of
    """How a part is said to a backend of this kind, which writes the model so."""


@define
class _Part:
    """How far one part of the call has come."""

    is_dispatched: bool = False
    is_reached: bool = False
    is_answered: bool = False
    is_finished: bool = False
    pieces: int = 0
    calls_tokens: int = 0
    """What calls came to by their bytes, beyond the one piece that each event is."""
    reader: AnswerReader | None = None

    @property
    def held(self) -> int:
        return self.reader.held if self.reader else 0


class _LongEnough(Exception):
    """Leaves the backend's answer, so that it stops: the caller has as much of it as it may."""


class Relay:
    """Relay one job for one exchange; notes usage, timings and the first token in the exchange."""

    def __init__(
        self,
        job: Job,
        exchange: Exchange,
        clock: Clock,
        *,
        cut: Callable[[], GatewayError | None],
        heartbeat_s: float = HEARTBEAT_S,
    ) -> None:
        self._job = job
        self._cut = cut
        self._exchange = exchange
        self._clock = clock
        self._heartbeat_s = heartbeat_s
        self._parts = job.parts
        self._part = _Part()
        self._finished_parts = 0
        self._received_bytes = 0
        self._headers = list(job.headers)
        self._out: Outgoing | None = None

    async def whole(self, send: Send) -> None:
        """Answer in one piece. Raises what the backend's failure is for the caller."""
        job = self._job
        events: list[Event] = []

        def keep(batch: list[Event]) -> None:
            events.extend(batch)
            refuse_what_is_too_large(events, job.call)

        try:
            await self._relay(keep)
        finally:
            self._note_unfinished()
        data = await worked_on(
            is_large(self._received_bytes), job.surface.write_whole, events, job.stamp, job.call
        )
        await answer(send, 200, data, headers=[*self._headers, *job.visit.headers()])

    async def stream(self, send: Send) -> None:
        """Answer in frames. What fails before the first one is raised; after it, it is the last frame."""
        job = self._job
        if job.surface.writer is None:
            raise RuntimeError("this surface is never streamed")
        writer = job.surface.writer(job.stamp, job.call)
        self._headers += ((b"content-type", writer.content_type), *_STREAM_HEADERS)
        out = self._out = Outgoing(send, lambda: [*self._headers, *job.visit.headers()])
        heartbeat = Heartbeat(out, self._sign_of_life, self._heartbeat_s)

        def write(batch: list[Event]) -> Awaitable[None] | None:
            heartbeat.renew()
            return out.write(writer.write(batch))

        try:
            await self._relay(write)
        except GatewayError as error:
            if not out.started:
                raise
            self._note_broken(error)
            await waited(out.write(writer.fail(error)))
        finally:
            heartbeat.stop()
            self._note_unfinished()
        await out.finish()

    def _sign_of_life(self) -> bytes | None:
        """What is said while there is nothing to say; None on surfaces that have no word for it."""
        comment, position = self._job.surface.heartbeat, self._job.visit.position()
        return sse.queued(position) if comment is sse.COMMENT and position is not None else comment

    async def _relay(self, take: Take) -> None:
        """Have each part answered. Raises the backend's failure, behind what came before it."""
        try:
            async with self._job.visit:
                for part in self._parts:
                    self._part = _Part()
                    await self._relay_part(part, take)
        except asyncio.CancelledError:
            # One that `cut` has a reason for is no client leaving: someone is there to be told.
            task, reason = asyncio.current_task(), self._cut()
            if task is None or reason is None:
                raise
            task.uncancel()
            raise reason from None

    async def _relay_part(self, part: Part, take: Take) -> None:
        """Send a part, and relay what comes.

        Only the first part of a call may go to another backend: for the others some work is done. A prompt
        that was refused as too long is sent once more, to be cut, where its caller wants that and can still
        be told.
        """
        upstream = await self._upstream(part)
        request = upstream.request
        while True:
            try:
                await self._sent(upstream, request, take)
                return
            except UNSENT as error:
                is_first = part is self._parts[0] and request is upstream.request
                if not is_first or not await self._job.visit.elsewhere(error):
                    raise
                upstream = await self._upstream(part)
                request = upstream.request
            except ContextLengthExceeded:
                has_begun = self._part.is_answered or (self._out is not None and self._out.started)
                if upstream.or_cut is None or request is upstream.or_cut or has_begun:
                    raise
                self._tell_cut()
                request = upstream.or_cut
            except _LongEnough:
                await waited(take(self._noted([Finish("length")])))
                return

    async def _upstream(self, part: Part) -> Upstream:
        """The part in the words of the backend where the visit is."""
        exchange, visit = self._exchange, self._job.visit
        exchange.backend = visit.backend.name
        return await worked_on(
            exchange.is_heavy, self._job.to_upstream, visit.backend.kind, part, visit.card.name
        )

    async def _sent(self, upstream: Upstream, request: UpstreamRequest, take: Take) -> None:
        """Send it, and relay what comes. A backend that was not reached has done no work."""
        exchange, visit, part = self._exchange, self._job.visit, self._part
        exchange.is_dispatched = part.is_dispatched = True
        part.is_reached = False
        visit.sent(is_whole=upstream.is_whole)
        try:
            async with visit.backend.send(
                request, request_id=exchange.request_id, timeouts=exchange.timeouts
            ) as answering:
                part.is_reached = True
                if answering.status != 200:
                    raise await self._refusal(upstream, answering)
                part.is_answered = True
                if upstream.reader is None or upstream.is_whole:
                    await self._read_whole(upstream, answering, take)
                else:
                    reader = part.reader = upstream.reader()
                    await self._read(reader, answering, take)
        except (BackendFailed, ConnectTimeout):
            if not part.is_reached:
                self._take_back_dispatch()
            raise

    async def _read_whole(self, upstream: Upstream, answering: Answer, take: Take) -> None:
        body = await answering.body()
        self._job.visit.heard()
        self._received_bytes += len(body)
        if upstream.read_whole is None:
            raise RuntimeError("nobody reads this answer")
        await self._hand_on(await worked_on(is_large(len(body)), upstream.read_whole, body), take)

    async def _read(self, reader: AnswerReader, answering: Answer, take: Take) -> None:
        """Hand on each piece from where it comes in, save the first and the last: these wait for others.

        This task is woken only for them, and when the caller does not read.
        """
        visit, is_kept = self._job.visit, not self._job.call.stream
        left: list[Event] = []
        waiting: Awaitable[None] | None = None

        def hear(data: bytes) -> bool:
            nonlocal left, waiting
            visit.heard()
            self._received_bytes += len(data)
            if is_kept and self._received_bytes > MAX_WHOLE_BYTES:
                raise BackendFailed("The model backend sent an answer that is too large.")
            events = reader.feed(data)
            if _is_end(events) or not self._is_under_way():
                left = events
                return False
            waiting = take(self._noted(events))
            return waiting is None and not self._is_too_long()

        while await answering.push(hear):
            await waited(waiting)
            await self._hand_on(left, take)
            if left and isinstance(left[-1], Finish):
                # Complete: what a backend does behind it, hanging or raving, is nobody's wait.
                return
            left, waiting = [], None
        await self._hand_on(reader.end(), take)

    async def _hand_on(self, events: list[Event], take: Take) -> None:
        await waited(take(self._noted(events)))
        if events and isinstance(events[-1], Failure):
            raise self._own(events[-1].error)
        if self._is_too_long():
            raise _LongEnough

    def _is_under_way(self) -> bool:
        """What is kept needs nobody; a stream must have begun."""
        return self._out is None or self._out.started

    def _is_too_long(self) -> bool:
        """The backend does not heed the bound that it was sent: a piece is a token at least."""
        allowed = self._exchange.output_allowed
        part = self._part
        return allowed is not None and not part.is_finished and part.pieces + part.held > allowed

    async def _refusal(self, upstream: Upstream, answering: Answer) -> GatewayError:
        """What another status than 200 means, in the caller's terms."""
        # Refused before any work: an error costs nothing.
        self._take_back_dispatch()
        error = upstream.read_error(answering.status, await answering.body())
        self._job.visit.complained(error)
        return self._own(error)

    def _tell_cut(self) -> None:
        told = (_TRUNCATED, self._job.surface.prompt.encode("ascii"))
        if told not in self._headers:
            self._headers.append(told)

    def _take_back_dispatch(self) -> None:
        """This part costs nothing; those before it do."""
        self._part.is_dispatched = False
        self._exchange.is_dispatched = self._exchange.usage is not None

    def _own(self, error: GatewayError) -> GatewayError:
        """The same error in the caller's terms: a backend names the model in its own way, maybe by a path."""
        if isinstance(error, ModelNotFound):
            return ModelNotFound(self._job.call.model)
        if isinstance(error, ContextLengthExceeded):
            return ContextLengthExceeded(error.sentence, param=self._job.surface.prompt)
        return error

    def _noted(self, events: list[Event]) -> list[Event]:
        """Take down what the events say, and complete a finish whose backend did not count."""
        if not events:
            return events
        exchange, part, last = self._exchange, self._part, events[-1]
        if exchange.first_token is None:
            exchange.first_token = self._clock.elapsed()
        if exchange.transcript is not None:
            exchange.transcript.hear(events)
        # Only the last one can be an end, and that is no piece.
        pieces = events[:-1] if isinstance(last, Finish | Failure) else events
        exchange.pieces += len(pieces)
        part.pieces += len(pieces)
        for event in pieces:
            if type(event) is ToolCalls:
                part.calls_tokens += sum(map(_tokens_of, event.calls)) - 1
        return [*pieces, self._finished(last)] if isinstance(last, Finish) else pieces

    def _finished(self, event: Finish) -> Finish:
        self._part.is_finished = True
        usage = event.usage or self._estimate()
        self._count(event.usage, usage)
        self._finished_parts += 1
        self._exchange.is_all_counted = self._finished_parts == len(self._parts)
        self._exchange.timings += event.timings
        self._job.visit.loaded_in(event.timings.load_ns)
        return event if event.usage else evolve(event, usage=usage)

    def _count(self, counted: Usage | None, told: Usage) -> None:
        """Add up what a part cost, as the backend counted it and as the caller is told.

        Of several parts, one that was not counted is charged its share of the bound: the others are counted.
        """
        if counted is None and len(self._parts) > 1:
            counted = Usage(self._share(self._prompt_bound), self._part.pieces, estimated=True)
        self._exchange.counted = plus(self._exchange.counted, counted)
        self._exchange.usage = plus(self._exchange.usage, told)

    def _note_broken(self, error: GatewayError) -> None:
        self._exchange.error = error
        is_backends = error.status in (502, 504)
        self._exchange.outcome = Outcome.BACKEND_FAILED if is_backends else Outcome.CUT

    def _note_unfinished(self) -> None:
        # No backend sends counts when an answer is cut, so the pieces are counted.
        part = self._part
        if part.is_finished or not part.is_dispatched:
            return
        if part.is_answered or len(self._parts) > 1:
            self._count(None, self._estimate())

    def _estimate(self) -> Usage:
        """Nobody has counted, nor will: so calls are counted by their bytes, and also what is still held."""
        part = self._part
        uncounted = part.calls_tokens + part.held
        part.pieces += uncounted
        self._exchange.pieces += uncounted
        prompt_tokens = self._share(self._exchange.bytes_in) // _BYTES_PER_TOKEN
        return Usage(prompt_tokens, part.pieces, estimated=True)

    @property
    def _prompt_bound(self) -> int:
        return self._exchange.demand.prompt_bound if self._exchange.demand else 0

    def _share(self, whole: int) -> int:
        """Of what all parts have together, what one of them has; rounded up."""
        return -(-whole // len(self._parts))


def _tokens_of(call: ToolCall) -> int:
    """About as many as the model has written for it; one at least."""
    return max(1, (len(call.name) + len(orjson.dumps(call.arguments))) // _BYTES_PER_TOKEN)


def _is_end(events: list[Event]) -> bool:
    return bool(events) and isinstance(events[-1], Finish | Failure)
