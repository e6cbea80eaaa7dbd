"""The queue of one backend: drives its schedule with a clock and timers, and lets requests wait for their
slot.

Without `slots=` there is no queue: requests are only counted, and bounded, by model.
"""

import asyncio
import math
from collections import Counter
from typing import Final

from attrs import frozen

from gateway.errors import BackendBusy, QueueFull
from gateway.ports import Clock
from gateway.rules.fair_queue import Ticket
from gateway.rules.schedule import Schedule

# Of one model where no slots are given: four times what Ollama's own queue takes (OLLAMA_MAX_QUEUE, 512). A
# model that hangs takes so many connections and no more.
MAX_UNSLOTTED: Final = 2048
# A refusal does not send anybody away for longer: who waits is not known so far ahead.
_MAX_RETRY_S: Final = 300
_GIVES_WAY: Final = "The queue for this model is full, and others have less in it."


@frozen
class QueueBounds:
    """For each backend: how many may wait, and how long; and how long a loaded model is kept for its own."""

    max_waiting: int
    max_wait_s: float
    turn_s: float


class Closed(Exception):
    """The queue takes nobody any more: whoever waited goes to another backend."""


class BackendQueue:
    """Slots of one backend, and those who wait for one. `slots` None: as many as come, up to a bound."""

    def __init__(self, slots: int | None, bounds: QueueBounds, clock: Clock) -> None:
        self._bounds = bounds
        self._clock = clock
        self._schedule = Schedule(slots, bounds.turn_s) if slots is not None else None
        self._running: Counter[str] = Counter()
        self._waiters: dict[int, asyncio.Future[None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: float | None = None
        self._is_closed = False

    @property
    def slots(self) -> int | None:
        return self._schedule.slots if self._schedule is not None else None

    @property
    def running(self) -> int:
        return self._running.total()

    @property
    def waiting(self) -> int:
        return len(self._waiters)

    # ── coming and going ─────────────────────────────────────────────────────────────────

    def enter_at_once(self, ticket: Ticket) -> bool:
        """Take a slot, if one is free for this ticket. Raises BackendBusy, and Closed."""
        if self._is_closed:
            raise Closed
        if self._schedule is None:
            if self._running[ticket.model] >= MAX_UNSLOTTED:
                raise BackendBusy("Too many requests for this model are running; try again shortly.")
        elif not self._schedule.start_at_once(ticket, self._clock.elapsed()):
            return False
        self._running[ticket.model] += 1
        return True

    async def wait(self, ticket: Ticket) -> None:
        """Wait for a slot; when this returns, the ticket has it. Raises QueueFull, and Closed.

        At once where it can't be had in time; later also where a tenant with less in it needs the place.
        """
        self._refuse_early(ticket)
        self._make_room(ticket)
        loop = asyncio.get_running_loop()
        waiter = self._waiters[id(ticket)] = loop.create_future()
        self._slotted.enqueue(ticket)
        self._go_on()
        expiry = loop.call_later(self._most_s(ticket), self._expire, ticket)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                # It had got its slot in the very moment in which its caller left.
                self.leave(ticket, is_served=False)
            elif id(ticket) in self._waiters:
                self._forget(ticket)
            raise
        finally:
            expiry.cancel()

    def answered(self, ticket: Ticket) -> bool:
        """Its answer has begun. Whether a model was loaded for it."""
        if self._schedule is None:
            return False
        was_load = self._schedule.answered(ticket)
        self._go_on()
        return was_load

    def leave(self, ticket: Ticket, *, is_served: bool) -> None:
        """Give the slot back. Of who was served, the next ones learn how long it takes."""
        self._running[ticket.model] -= 1
        if not self._running[ticket.model]:
            del self._running[ticket.model]
        if self._schedule is not None:
            self._schedule.finish(ticket, self._clock.elapsed(), is_served=is_served)
            self._go_on()

    def set_slots(self, slots: int) -> None:
        """From now on so many; of more that run, none is stopped."""
        self._slotted.slots = slots
        self._go_on()

    def close(self) -> None:
        """Take nobody any more. Who waits is told Closed; who runs goes on."""
        self._is_closed = True
        for ticket in self._schedule.tickets() if self._schedule is not None else ():
            self._fail(ticket, Closed())

    def open(self) -> None:
        """Take requests again, beside those that still run."""
        self._is_closed = False

    # ── what is known ────────────────────────────────────────────────────────────────────

    def seen_loaded(self, models: frozenset[str]) -> None:
        """What the backend has in memory, by canonical names."""
        if self._schedule is not None:
            self._schedule.seen_loaded(models)
            self._go_on()

    def expected_wait_s(self, ticket: Ticket) -> float:
        """About how long it would wait for its slot; infinite where it would be refused."""
        now = self._clock.elapsed()
        if self._schedule is None or not self._schedule.would_wait(ticket.model, now):
            return 0.0
        wait_s = self._schedule.expected_wait_s(ticket, now)
        is_refused = not self._has_room(ticket) or wait_s > self._most_s(ticket)
        return math.inf if is_refused else wait_s

    def position(self, ticket: Ticket) -> int:
        """About where a ticket stands that waits; 1 is next."""
        return self._slotted.position(ticket)

    def next_position(self, ticket: Ticket) -> int:
        """About where a ticket will stand that has to wait, and does not yet."""
        return self._slotted.next_position(ticket)

    # ── inside ───────────────────────────────────────────────────────────────────────────

    @property
    def _slotted(self) -> Schedule:
        if self._schedule is None:
            raise RuntimeError("nobody waits where there are no slots")
        return self._schedule

    def _refuse_early(self, ticket: Ticket) -> None:
        if self._is_closed:
            raise Closed
        wait_s = self._slotted.expected_wait_s(ticket, self._clock.elapsed())
        if not self._has_room(ticket):
            raise QueueFull("The queue for this model is full.", _retry_s(wait_s))
        most_s = self._most_s(ticket)
        if wait_s > most_s:
            raise QueueFull(
                f"The queue for this model is too long: it takes about {wait_s:.0f} s, "
                f"and this request may wait for {most_s:g} s.",
                _retry_s(wait_s - most_s),
            )

    @property
    def _is_full(self) -> bool:
        return self.waiting >= self._bounds.max_waiting

    def _has_room(self, ticket: Ticket) -> bool:
        return not self._is_full or self._slotted.gives_way(ticket) is not None

    def _make_room(self, ticket: Ticket) -> None:
        """Places are shared as slots are: else whoever fills the queue would keep all others out of it."""
        gone = self._slotted.gives_way(ticket) if self._is_full else None
        if gone is not None:
            wait_s = self._slotted.expected_wait_s(gone, self._clock.elapsed())
            self._fail(gone, QueueFull(_GIVES_WAY, _retry_s(wait_s)))

    def _most_s(self, ticket: Ticket) -> float:
        """How long it may wait: as the operator says, or less where its caller wants so."""
        if ticket.patience_s is None:
            return self._bounds.max_wait_s
        return min(ticket.patience_s, self._bounds.max_wait_s)

    def _go_on(self) -> None:
        """Let in whoever may go now, and look again when time alone lets others in."""
        if self._waiters and not self._is_closed:
            self._let_in()
        self._arm()

    def _let_in(self) -> None:
        now = self._clock.elapsed()
        while (ticket := self._slotted.next(now)) is not None:
            waiter = self._waiters.pop(id(ticket))
            if waiter.done():
                # Its caller leaves in this very moment.
                self._slotted.finish(ticket, now, is_served=False)
                continue
            self._running[ticket.model] += 1
            waiter.set_result(None)

    def _arm(self) -> None:
        at = self._slotted.wakes_at(self._clock.elapsed()) if self._waiters else None
        if at == self._timer_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._timer_at = None, at
        if at is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(0.0, at - self._clock.elapsed()), self._wake)

    def _wake(self) -> None:
        self._timer = self._timer_at = None
        self._go_on()

    def _expire(self, ticket: Ticket) -> None:
        wait_s = self._slotted.expected_wait_s(ticket, self._clock.elapsed())
        sentence = f"No slot for this model came free within {self._most_s(ticket):g} s."
        self._fail(ticket, QueueFull(sentence, _retry_s(wait_s)))

    def _fail(self, ticket: Ticket, error: Exception) -> None:
        waiter = self._waiters.get(id(ticket))
        if waiter is not None:
            self._forget(ticket)
            if not waiter.done():
                waiter.set_exception(error)

    def _forget(self, ticket: Ticket) -> None:
        del self._waiters[id(ticket)]
        self._slotted.leave(ticket)
        # Others may have waited for no more than that one: for the model that it kept in its place.
        self._go_on()


def _retry_s(wait_s: float) -> int:
    return min(_MAX_RETRY_S, max(1, math.ceil(wait_s)))
