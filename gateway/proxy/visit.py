"""One request's stay at a backend: waits for a slot there, goes elsewhere, and says what became of it.

While it waits it may be served by any backend for which its reservation is right: it stands in line at each,
also at those that become healthy meanwhile. Once it has a slot, it goes to another backend only while no byte
of the request can have been acted on: where no connection came about. Whatever was sent is never sent again.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
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
from gateway.proxy.station import Choice, Pass, Station
from gateway.proxy.wait import Wait
from gateway.rules.fair_queue import Ticket

# No connection came about.
UNSENT: Final = (BackendUnreachable, ConnectTimeout)
# A server looks for a client that left between two pieces of work. Of a prompt that it reads it says nothing,
# so its slot counts as taken for as long again as it was read, up to this.
ABORT_HOLD_S: Final = 5.0
# Whoever waits looks so often whether another backend could serve it by now: one that was away, drained or
# broken, or that has loaded the model, or may be worth a load.
LOOK_AGAIN_S: Final = 1.0


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
        self._wait: Wait | None = None
        self._waits_until: float | None = None
        self._position = 0
        self._sent_at: float | None = None
        self._is_answered = False
        self._is_complaint = False

    async def __aenter__(self) -> Self:
        station = self._router.station_of(self.backend)
        try:
            is_in = station is not None and self._is_let_in_at_once(station, self.card)
        except BackendBusy:
            # Where too many run others are asked; there its caller is told, if there are none.
            is_in = False
        if not is_in:
            await self._enter()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stay is not None:
            self._judge(self._stay, error)
            self._leave(error)

    # ── what the relay says ──────────────────────────────────────────────────────────────

    def sent(self, *, is_whole: bool) -> None:
        """The request, or its next part, is about to be sent; `is_whole`: it is answered in one piece."""
        self._sent_at, self._is_answered = self._router.now(), False
        if self._stay is not None:
            self._stay.queue.sent(self._ticket, is_whole=is_whole)

    def heard(self) -> None:
        """A piece of the answer has come."""
        stay = self._stay
        if stay is None:
            return
        is_loaded = stay.queue.heard(self._ticket)
        if not self._is_answered:
            self._is_answered = True
            stay.station.began(stay.given)
            if is_loaded:
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
        return None if self._wait is None else self._wait.position()

    def headers(self) -> list[Header]:
        """Where it stood when it came, and how long it waited; nothing when it had not to."""
        if not self._position:
            return []
        told = [(b"x-queue-position", b"%d" % self._position)]
        if self._wait is None and self._exchange.queued_s is not None:
            told.append((b"x-queue-wait-ms", b"%d" % round(self._exchange.queued_s * 1e3)))
        return told

    # ── inside ───────────────────────────────────────────────────────────────────────────

    async def _enter(self) -> None:
        """Get a slot at the best backend; wait for one where none is free."""
        while self._stay is None:
            choices = await self._choices()
            if not self._is_let_in_at_once(choices[0].station, choices[0].card):
                with suppress(Closed):
                    await self._stand_in_line(choices)

    async def _choices(self) -> list[Choice]:
        """Those that may be asked now, the best first. Raises what the caller is told when there is none."""
        target, now = (self.backend, self.card), self._router.now()
        refusal: GatewayError | None = None
        choices = []
        for choice in await self._router.alternatives(self._ticket, target, self._tried):
            station = choice.station
            if station.config.is_draining:
                refusal = refusal or BackendBusy("The model's server is being taken out of service.")
            elif not station.may_pass(self._ticket.model, now):
                refusal = refusal or station.refusal(self._ticket.model, now)
            else:
                choices.append(choice)
        if not choices:
            raise refusal or BackendFailed("The backend that had this model is gone; try again.")
        return choices

    def _is_let_in_at_once(self, station: Station, card: ModelCard) -> bool:
        now = self._router.now()
        if station.config.is_draining or not station.may_pass(self._ticket.model, now):
            return False
        try:
            if not station.queue.enter_at_once(self._ticket):
                return False
        except Closed:
            return False
        self._begin(station, card, station.let_through(self._ticket.model, now))
        return True

    def _go_through(self, choice: Choice) -> None:
        """It has a slot, and keeps it if the breakers let it through: of those that waited one may be the
        probe, and the others wait on.
        """
        station = choice.station
        given = station.try_pass(self._ticket.model, self._router.now())
        if given is None:
            station.queue.leave(self._ticket, is_served=False)
        else:
            self._begin(station, choice.card, given)

    def _begin(self, station: Station, card: ModelCard, given: Pass) -> None:
        self._stay = _Stay(station, station.queue, given)
        self.backend, self.card = station.backend, card
        # Between the parts of a call a backend that is no longer listed must not be closed.
        self.backend.hold()

    async def _stand_in_line(self, choices: list[Choice]) -> None:
        """Wait until it has a slot, or was let through elsewhere; in vain, if a breaker opened meanwhile."""
        since, exchange = self._router.now(), self._exchange
        lines: dict[BackendQueue, Choice] = {}
        try:
            with Wait(self._ticket) as self._wait:
                self._take_place(self._wait, choices[0])
                lines[choices[0].station.queue] = choices[0]
                self._stand_elsewhere(self._wait, lines, choices[1:], 0.0)
                queue = await self._slot(self._wait, lines, since)
        except QueueFull:
            exchange.headers = [*exchange.headers, (b"x-queue-position", b"%d" % self._position)]
            raise
        finally:
            self._wait = None
            exchange.queued_s = (exchange.queued_s or 0.0) + self._router.now() - since
        if queue is not None:
            self._go_through(lines[queue])

    def _take_place(self, wait: Wait, choice: Choice) -> None:
        queue = choice.station.queue
        if self._waits_until is None:
            self._position = queue.next_position(self._ticket)
            wait.join(queue, is_guest=False)
            self._waits_until = self._router.now() + queue.most_s(self._ticket)
            return
        try:
            wait.join(queue, is_guest=False)
        except QueueFull:
            # It had a place, and lost it by nobody's fault: where there is none for it, it waits without.
            wait.join(queue, is_guest=True)

    async def _slot(self, wait: Wait, lines: dict[BackendQueue, Choice], since: float) -> BackendQueue | None:
        """Where it has a slot. None: it was let through elsewhere. Raises QueueFull when its time is over."""
        until = self._waits_until or since
        while True:
            queue = await wait.slot(min(LOOK_AGAIN_S, until - self._router.now()))
            now = self._router.now()
            if queue is not None:
                return queue
            if now >= until:
                raise next(iter(lines)).out_of_time(self._ticket)
            target = self.backend, self.card
            others = await self._router.alike(self._ticket, target, self._tried)
            self._stand_elsewhere(wait, lines, others, now - since)
            if self._stay is not None:
                return None

    def _stand_elsewhere(
        self, wait: Wait, lines: dict[BackendQueue, Choice], choices: Sequence[Choice], waited_s: float
    ) -> None:
        """Stand in all lines that are worth it by now. A backend that is to be tried first lets in one."""
        now = self._router.now()
        for choice in choices:
            station = choice.station
            if wait.is_over:
                return
            if wait.stands_at(station.queue) or not choice.is_worth_a_line(self._ticket.model, waited_s, now):
                continue
            with suppress(Closed, BackendBusy):
                if station.queue.slots is not None and station.is_sound(self._ticket.model, now):
                    wait.join(station.queue, is_guest=True)
                    lines[station.queue] = choice
                elif self._is_let_in_at_once(station, choice.card):
                    return

    def _judge(self, stay: "_Stay", error: BaseException | None) -> None:
        station, given = stay.station, stay.given
        if error is None:
            station.worked(given)
            return
        now = self._router.now()
        if self._sent_at is None or not isinstance(error, GatewayError):
            station.abandoned(given)
        elif isinstance(error, UNSENT):
            station.was_not_reached(given, now)
        elif not isinstance(error, BackendFailed | BackendTimeout | BackendBusy):
            station.worked(given)
        elif self._is_complaint or self._is_answered:
            station.complained(given, now)
        else:
            station.broke(given, now, is_busy=isinstance(error, BackendBusy))

    def _leave(self, error: BaseException | None) -> None:
        """Give the slot back, once the backend is likely to be free."""
        stay, self._stay = self._stay, None
        if stay is None:
            return
        queue = stay.queue
        self.backend.let_go()
        hold_s = self._exchange.busy_s = self._hold_s(error)
        is_given_up = isinstance(error, BackendTimeout) and not isinstance(error, UNSENT)
        if hold_s and queue.slots is not None:
            leave = partial(queue.leave, self._ticket, is_served=False, is_given_up=is_given_up)
            asyncio.get_running_loop().call_later(hold_s, leave)
        else:
            queue.leave(self._ticket, is_served=error is None, is_given_up=is_given_up)

    def _hold_s(self, error: BaseException | None) -> float:
        """How long the backend may still be at work on what nobody waits for any more."""
        if error is None or self._sent_at is None or self._is_answered:
            return 0.0
        if isinstance(error, UNSENT):
            return 0.0
        if isinstance(error, GatewayError) and not isinstance(error, BackendTimeout):
            return 0.0
        return min(ABORT_HOLD_S, self._router.now() - self._sent_at)
