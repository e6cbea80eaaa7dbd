"""The queue of one backend: drives its schedule with a clock and timers, and lets requests wait for their
slot.

Without `slots=` there is no queue: requests are only counted, and bounded, by model.
"""

import asyncio
import math
from collections import Counter
from typing import Final, Protocol

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
_CROWDED: Final = "Too many requests for this model are running; try again shortly."


@frozen
class QueueBounds:
    """For each backend: how many may wait, and how long; and how long a loaded model is kept for its own."""

    max_waiting: int
    max_wait_s: float
    turn_s: float


class Closed(Exception):
    """The queue takes nobody any more: whoever waited goes to another backend."""


class Waiter(Protocol):
    """Who stands in line, here and maybe elsewhere."""

    def take(self, queue: "BackendQueue") -> None:
        """There is a slot for it, and it waits nowhere any more."""

    def lose(self, queue: "BackendQueue", error: Exception) -> None:
        """It waits here no longer, and why."""


class BackendQueue:
    """Slots of one backend, and those who wait for one. `slots` None: as many as come, up to a bound."""

    def __init__(self, slots: int | None, bounds: QueueBounds, clock: Clock) -> None:
        self._bounds = bounds
        self._clock = clock
        self._schedule = Schedule(slots, bounds.turn_s) if slots is not None else None
        self._inside: dict[int, Ticket] = {}
        self._running: Counter[str] = Counter()
        self._waiters: dict[int, Waiter] = {}
        self._is_letting_in = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: float | None = None
        self._is_closed = False

    @property
    def slots(self) -> int | None:
        return self._schedule.slots if self._schedule is not None else None

    @property
    def running(self) -> int:
        return len(self._inside)

    @property
    def waiting(self) -> int:
        """How many have their place here; guests have it elsewhere."""
        return 0 if self._schedule is None else self._schedule.waiting

    # ── coming and going ─────────────────────────────────────────────────────────────────

    def enter_at_once(self, ticket: Ticket) -> bool:
        """Take a slot, if one is free for this ticket. Raises BackendBusy, and Closed."""
        if self._is_closed:
            raise Closed
        if self._schedule is None:
            if self._is_crowded(ticket):
                raise BackendBusy(_CROWDED)
        elif not self._schedule.start_at_once(ticket, self._clock.elapsed()):
            return False
        self._let(ticket)
        return True

    def join(self, ticket: Ticket, waiter: Waiter, *, is_guest: bool = False) -> None:
        """Let it wait for a slot; it may be told of one at once. Raises QueueFull, and Closed.

        Where it can't be had in time; and `lose` tells it later where a tenant or key with less in here needs
        the place. A guest has none, and is refused for neither.
        """
        if self._is_closed:
            raise Closed
        if not is_guest:
            self._refuse_early(ticket)
            self._make_room(ticket)
        self._waiters[id(ticket)] = waiter
        self._slotted.enqueue(ticket, is_guest=is_guest)
        self._go_on()

    def quit(self, ticket: Ticket) -> None:
        """It waits here no longer."""
        if self._waiters.pop(id(ticket), None) is not None and self._schedule is not None:
            self._schedule.leave(ticket)
            # Others may have waited for no more than that one: for the model that it kept in its place.
            self._go_on()

    def sent(self, ticket: Ticket, *, is_whole: bool) -> None:
        """It is sent, or its next part is; `is_whole`: it is answered in one piece."""
        if self._schedule is not None:
            self._schedule.sent(ticket, self._clock.elapsed(), is_whole=is_whole)

    def heard(self, ticket: Ticket) -> bool:
        """A piece of its answer has come. Whether a model was loaded for it, as the first one tells."""
        if self._schedule is None or not self._schedule.heard(ticket, self._clock.elapsed()):
            return False
        self._go_on()
        return True

    def leave(self, ticket: Ticket, *, is_served: bool, is_given_up: bool = False) -> None:
        """Give the slot back. Of who was served, the next ones learn how long it takes; `is_given_up`: the
        backend was too slow.
        """
        del self._inside[id(ticket)]
        self._running[ticket.model] -= 1
        if not self._running[ticket.model]:
            del self._running[ticket.model]
        if self._schedule is not None:
            now = self._clock.elapsed()
            self._schedule.finish(ticket, now, is_served=is_served, is_given_up=is_given_up)
            self._go_on()

    def set_slots(self, slots: int | None) -> None:
        """From now on so many; of more that run, none is stopped, and of those that wait none is lost."""
        if slots is None:
            self._open_up()
        elif self._schedule is None:
            self._schedule = Schedule(slots, self._bounds.turn_s)
            for ticket in self._inside.values():
                self._schedule.adopt(ticket, self._clock.elapsed())
        else:
            self._schedule.slots = slots
        self._go_on()

    def close(self) -> None:
        """Take nobody any more. Who waits is told Closed; who runs goes on."""
        self._is_closed = True
        for ticket in self._schedule.tickets() if self._schedule is not None else ():
            self._lose(ticket, Closed())

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
        if self._schedule is None:
            return math.inf if self._is_crowded(ticket) else 0.0
        if not self._schedule.would_wait(ticket.model, now):
            return 0.0
        wait_s = self._schedule.expected_wait_s(ticket, now)
        is_refused = not self._has_room(ticket) or wait_s > self.most_s(ticket)
        return math.inf if is_refused else wait_s

    def position(self, ticket: Ticket) -> int:
        """About where a ticket stands that waits; 1 is next."""
        return self._slotted.position(ticket)

    def next_position(self, ticket: Ticket) -> int:
        """About where a ticket will stand that has to wait, and does not yet."""
        return self._slotted.next_position(ticket)

    def most_s(self, ticket: Ticket) -> float:
        """How long it may wait: as the operator says, or less where its caller wants so."""
        if ticket.patience_s is None:
            return self._bounds.max_wait_s
        return min(ticket.patience_s, self._bounds.max_wait_s)

    def out_of_time(self, ticket: Ticket) -> QueueFull:
        """What one is told that has waited for as long as it may."""
        wait_s = 0.0
        if self._schedule is not None:
            wait_s = self._schedule.expected_wait_s(ticket, self._clock.elapsed())
        sentence = f"No slot for this model came free within {self.most_s(ticket):g} s."
        return QueueFull(sentence, _retry_s(wait_s))

    # ── inside ───────────────────────────────────────────────────────────────────────────

    @property
    def _slotted(self) -> Schedule:
        if self._schedule is None:
            raise RuntimeError("nobody waits where there are no slots")
        return self._schedule

    def _refuse_early(self, ticket: Ticket) -> None:
        wait_s = self._slotted.expected_wait_s(ticket, self._clock.elapsed())
        if not self._has_room(ticket):
            raise QueueFull("The queue for this model is full.", _retry_s(wait_s))
        most_s = self.most_s(ticket)
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
        return not self._is_full or self._gives_way(ticket) is not None

    def _make_room(self, ticket: Ticket) -> None:
        """Places are shared as slots are: else whoever fills the queue would keep all others out of it."""
        gone = self._gives_way(ticket) if self._is_full else None
        if gone is not None:
            wait_s = self._slotted.expected_wait_s(gone, self._clock.elapsed())
            self._lose(gone, QueueFull(_GIVES_WAY, _retry_s(wait_s)))

    def _gives_way(self, ticket: Ticket) -> Ticket | None:
        return self._slotted.gives_way(ticket, self._clock.elapsed())

    def _is_crowded(self, ticket: Ticket) -> bool:
        return self._running[ticket.model] >= MAX_UNSLOTTED

    def _let(self, ticket: Ticket) -> None:
        self._inside[id(ticket)] = ticket
        self._running[ticket.model] += 1

    def _open_up(self) -> None:
        """No slots any more: whoever waits goes at once."""
        schedule, self._schedule = self._schedule, None
        for ticket in schedule.tickets() if schedule is not None else ():
            waiter = self._waiters.pop(id(ticket), None)
            if waiter is None:
                # It was let in elsewhere, by one that goes on here.
                continue
            if self._is_crowded(ticket):
                waiter.lose(self, BackendBusy(_CROWDED))
            else:
                self._let(ticket)
                waiter.take(self)

    def _go_on(self) -> None:
        """Let in whoever may go now, and look again when time alone lets others in."""
        if self._is_letting_in:
            # Who is let in leaves other lines, where others are let in, who leave this one: it goes on below.
            return
        if self._waiters and not self._is_closed:
            self._is_letting_in = True
            try:
                self._let_in()
            finally:
                self._is_letting_in = False
        self._arm()

    def _let_in(self) -> None:
        now = self._clock.elapsed()
        while (ticket := self._slotted.next(now)) is not None:
            self._let(ticket)
            self._waiters.pop(id(ticket)).take(self)

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

    def _lose(self, ticket: Ticket, error: Exception) -> None:
        waiter = self._waiters.get(id(ticket))
        if waiter is not None:
            self.quit(ticket)
            waiter.lose(self, error)


def _retry_s(wait_s: float) -> int:
    return min(_MAX_RETRY_S, max(1, math.ceil(wait_s)))
