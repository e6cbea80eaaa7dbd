"""One request's stay at a backend: waits for a slot there, goes elsewhere, and says what became of it.

It goes to another backend only while no byte of the request can have been acted on: where no connection came
about. Whatever was sent is never sent again.
"""

import asyncio
from functools import partial
from types import TracebackType
from typing import Final, Self

from attrs import frozen

from gateway.errors import (
    BackendBusy,
    BackendFailed,
    BackendTimeout,
    BackendUnreachable,
    ConnectTimeout,
    GatewayError,
    QueueFull,
)
from gateway.middleware.context import Header
from gateway.model import Exchange, ModelCard
from gateway.ports import Backend
from gateway.proxy.queue import BackendQueue, Closed
from gateway.proxy.router import Router
from gateway.proxy.station import Pass, Station
from gateway.rules.fair_queue import Ticket

# No connection came about.
UNSENT: Final = (BackendUnreachable, ConnectTimeout)
# A server looks for a client that left between two pieces of work. Of a prompt that it reads it says nothing,
# so its slot counts as taken for as long again as it was read, up to this.
ABORT_HOLD_S: Final = 5.0


@frozen
class _Stay:
    """A slot at a station, and what lets it through its breakers."""

    station: Station
    queue: BackendQueue
    given: Pass


class Visit:
    """`async with` waits for the slot and keeps it to the end; what it leaves with is what breakers learn.

    `backend` and `card` are where it is; they may change in `elsewhere`. In the exchange it notes how long it
    waited, and what a refusal tells of that.
    """

    def __init__(self, router: Router, exchange: Exchange, ticket: Ticket) -> None:
        self.backend: Backend
        self.card: ModelCard
        self.backend, self.card = exchange.target
        self._router = router
        self._exchange = exchange
        self._ticket = ticket
        self._tried: list[Backend] = []
        self._stay: _Stay | None = None
        self._waits_at: BackendQueue | None = None
        self._position = 0
        self._sent_at: float | None = None
        self._is_answered = False
        self._is_complaint = False

    async def __aenter__(self) -> Self:
        station = self._router.station_of(self.backend)
        if station is None or not self._is_let_in_at_once(station):
            await self._enter()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stay is not None:
            self._judge(self._stay, error)
            self._leave(error)

    # ── what the relay says ──────────────────────────────────────────────────────────────

    def sent(self) -> None:
        """The request, or the next part of it, is about to be sent."""
        self._sent_at, self._is_answered = self._router.now(), False

    def answered(self) -> None:
        """The answer has begun."""
        if self._is_answered or self._stay is None:
            return
        self._is_answered = True
        self._stay.station.began(self._stay.given)
        if self._stay.queue.answered(self._ticket):
            self._router.loaded_something(self.backend)

    def complained(self, error: GatewayError) -> None:
        """The backend has answered with an error: whether of its own or the caller's making, nobody knows."""
        self._is_complaint = isinstance(error, BackendFailed)

    def loaded_in(self, nanoseconds: int | None) -> None:
        """How long the backend says that it took to load the model."""
        if nanoseconds is not None and self._stay is not None:
            self._stay.station.loaded_in(self._ticket.model, nanoseconds / 1e9)

    async def elsewhere(self, error: GatewayError) -> bool:
        """Whether it is now at another backend, after this error at the first. Raises as entering does."""
        if not isinstance(error, UNSENT) or self._stay is None:
            return False
        self._stay.station.was_not_reached(self._stay.given, self._router.now())
        self._leave(error)
        self._sent_at = None
        self._tried.append(self.backend)
        if not await self._router.alternatives(self._ticket, (self.backend, self.card), self._tried):
            return False
        await self._enter()
        return True

    # ── what callers are told ────────────────────────────────────────────────────────────

    def position(self) -> int | None:
        """Where it stands in the queue now; None when it does not wait."""
        return None if self._waits_at is None else self._waits_at.position(self._ticket)

    def headers(self) -> list[Header]:
        """Where it stood when it came, and how long it waited; nothing when it had not to."""
        if not self._position:
            return []
        told = [(b"x-queue-position", b"%d" % self._position)]
        if self._waits_at is None and self._exchange.queued_s is not None:
            told.append((b"x-queue-wait-ms", b"%d" % round(self._exchange.queued_s * 1e3)))
        return told

    # ── inside ───────────────────────────────────────────────────────────────────────────

    async def _enter(self) -> None:
        """Get a slot at the best backend; wait there for it where none is free."""
        while True:
            station = await self._best()
            try:
                if self._is_let_in_at_once(station):
                    return
                await self._wait(station.queue)
            except Closed:
                continue
            given = station.try_pass(self._ticket.model, self._router.now())
            if given is not None:
                self._begin(station, given)
                return
            # It failed others while this one waited.
            station.queue.leave(self._ticket, is_served=False)

    async def _best(self) -> Station:
        """The best backend that may be asked now. Raises what the caller is told when there is none."""
        target = self.backend, self.card
        offers = await self._router.alternatives(self._ticket, target, self._tried)
        stations = [(self._router.station_of(offer.backend), offer) for offer in offers]
        refusal: GatewayError | None = None
        for station, offer in stations:
            if station is None:
                continue
            if station.config.is_draining:
                refusal = refusal or BackendBusy("The model's server is being taken out of service.")
            elif not station.may_pass(self._ticket.model, self._router.now()):
                refusal = refusal or station.refusal(self._ticket.model, self._router.now())
            else:
                self.backend, self.card = offer.backend, offer.card
                return station
        raise refusal or BackendFailed("The backend that had this model is gone; try again.")

    def _is_let_in_at_once(self, station: Station) -> bool:
        model, now = self._ticket.model, self._router.now()
        if station.config.is_draining or not station.may_pass(model, now):
            return False
        try:
            if not station.queue.enter_at_once(self._ticket):
                return False
        except Closed:
            return False
        given = station.try_pass(model, now)
        if given is None:
            raise RuntimeError("a breaker opened in no time")
        self._begin(station, given)
        return True

    async def _wait(self, queue: BackendQueue) -> None:
        since, exchange = self._router.now(), self._exchange
        self._position, self._waits_at = queue.next_position(self._ticket), queue
        try:
            await queue.wait(self._ticket)
        except QueueFull:
            exchange.headers = [*exchange.headers, (b"x-queue-position", b"%d" % self._position)]
            raise
        finally:
            self._waits_at = None
            exchange.queued_s = (exchange.queued_s or 0.0) + self._router.now() - since

    def _judge(self, stay: "_Stay", error: BaseException | None) -> None:
        station, given, now = stay.station, stay.given, self._router.now()
        if error is None:
            station.worked(given)
        elif self._sent_at is None or not isinstance(error, GatewayError):
            station.abandoned(given)
        elif isinstance(error, UNSENT):
            station.was_not_reached(given, now)
        elif not isinstance(error, BackendFailed | BackendTimeout | BackendBusy):
            station.worked(given)
        elif self._is_complaint or self._is_answered:
            station.complained(given, now)
        else:
            station.broke(given, now, is_busy=isinstance(error, BackendBusy))

    def _begin(self, station: Station, given: Pass) -> None:
        """Between the parts of a call a backend that is no longer listed must not be closed."""
        self._stay = _Stay(station, station.queue, given)
        self.backend.hold()

    def _leave(self, error: BaseException | None) -> None:
        """Give the slot back, once the backend is likely to be free."""
        stay, self._stay = self._stay, None
        if stay is None:
            return
        queue = stay.queue
        self.backend.let_go()
        hold_s = self._exchange.busy_s = self._hold_s(error)
        if hold_s and queue.slots is not None:
            loop = asyncio.get_running_loop()
            loop.call_later(hold_s, partial(queue.leave, self._ticket, is_served=False))
        else:
            queue.leave(self._ticket, is_served=error is None)

    def _hold_s(self, error: BaseException | None) -> float:
        """How long the backend may still be at work on what nobody waits for any more."""
        if error is None or self._sent_at is None or self._is_answered:
            return 0.0
        if isinstance(error, UNSENT):
            return 0.0
        if isinstance(error, GatewayError) and not isinstance(error, BackendTimeout):
            return 0.0
        return min(ABORT_HOLD_S, self._router.now() - self._sent_at)
