"""The schedule of one backend that has slots: who is sent now, who waits, and for how long.

Whoever is next (`fair_queue`) of those whose model may be asked (`model_turns`) gets a free slot. A request
that its backend has not begun to answer within a turn holds its slot against its own model only: a model that
hangs does not keep others from being served.

A machine without a clock: `now` is seconds on a monotonic one. Whoever drives it calls `next` after each
change, and at `wakes_at`.
"""

from collections import Counter
from functools import partial
from operator import eq
from typing import Final

from attrs import define

from gateway.rules.fair_queue import FairQueue, May, Ticket
from gateway.rules.model_turns import ModelTurns

# How much the newest measurement of how long a request takes counts: about the last dozen decide.
_NEWEST: Final = 1 / 6


@define(eq=False)
class _Running:
    ticket: Ticket
    started: float
    is_answered: bool = False


class Schedule:
    """`slots` requests at the same time, save those that hang; a model's turn is `turn_s` long."""

    def __init__(self, slots: int, turn_s: float) -> None:
        self.slots = slots
        self.turns = ModelTurns(turn_s)
        self.service_s: float | None = None
        """How long a request holds its slot, on average; None until the first has ended."""
        self._waiting = FairQueue()
        self._wanted: Counter[str] = Counter()
        self._running: dict[int, _Running] = {}

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def tickets(self) -> tuple[Ticket, ...]:
        """Those who wait, in the order in which they came."""
        return tuple(self._waiting)

    @property
    def running(self) -> int:
        return len(self._running)

    # ── what happens ─────────────────────────────────────────────────────────────────────

    def start_at_once(self, ticket: Ticket, now: float) -> bool:
        """Send it now, where nobody who waits could be sent instead. False: it has to wait, or to go."""
        if not self._may_start_at_once(ticket.model, now):
            return False
        self._start(ticket, now)
        return True

    def _may_start_at_once(self, model: str, now: float) -> bool:
        if not self._waiting and len(self._running) < self.slots:
            return self.turns.may_load(model, now, is_wanted=False)
        if self._waiting and self._peek(now) is not None:
            return False
        may = self._may(now)
        return may is not None and may(model)

    def enqueue(self, ticket: Ticket) -> None:
        self._waiting.add(ticket)
        self._wanted[ticket.model] += 1

    def next(self, now: float) -> Ticket | None:
        """Who is sent now, and holds a slot from here on; None when nobody can be."""
        if not self._waiting:
            return None
        may = self._turn(now)
        ticket = None if may is None else self._waiting.pop(may)
        if ticket is not None:
            self._no_longer_waits(ticket)
            self._start(ticket, now)
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """One that waits does so no longer."""
        self._waiting.drop(ticket)
        self._no_longer_waits(ticket)

    def gives_way(self, ticket: Ticket) -> Ticket | None:
        """Who of those that wait leaves for one that comes now, where there is no room for both."""
        return self._waiting.gives_way(ticket)

    def answered(self, ticket: Ticket) -> bool:
        """Its backend has begun to answer it. Whether a load is over with that."""
        self._running[id(ticket)].is_answered = True
        return self.turns.loaded(ticket.model)

    def finish(self, ticket: Ticket, now: float, *, is_served: bool) -> bool:
        """It holds its slot no longer; `is_served`: how long it did is what others take. As `answered`."""
        running = self._running.pop(id(ticket))
        if is_served:
            took_s = (now - running.started) / ticket.cost
            before = took_s if self.service_s is None else self.service_s
            self.service_s = before + (took_s - before) * _NEWEST
        return self.turns.loaded(ticket.model)

    def seen_loaded(self, models: frozenset[str]) -> None:
        """What the backend says that it has in memory; what it answers from is there, whatever it says."""
        answering = (one.ticket.model for one in self._running.values() if one.is_answered)
        self.turns.seen(models.union(answering))

    def wakes_at(self, now: float) -> float | None:
        """When somebody who waits may be sent by time alone."""
        if not self._waiting:
            return None
        is_wanted = self._is_wanted()
        ready = (self.turns.ready_at(model, now, is_wanted) for model in self._wanted)
        hang = (one.started + self.turns.turn_s for one in self._running.values() if not one.is_answered)
        return min((at for at in (*ready, *hang) if at > now), default=None)

    # ── what is to be expected ───────────────────────────────────────────────────────────

    def would_wait(self, model: str, now: float) -> bool:
        """Whether one more request for this model would have to wait."""
        return not self._may_start_at_once(model, now)

    def expected_wait_s(self, ticket: Ticket, now: float) -> float:
        """About how long a ticket that comes now will wait; 0 while nothing is known."""
        model_in_s = self.turns.ready_at(ticket.model, now, self._is_wanted()) - now
        return max(model_in_s, self._slot_in_s(ticket))

    def _slot_in_s(self, ticket: Ticket) -> float:
        ahead = self._waiting.ahead_of(ticket.tenant, ticket.weight)
        if not ahead and len(self._running) < self.slots:
            return 0.0
        return (ahead + 1) * (self.service_s or 0.0) / self.slots

    def position(self, ticket: Ticket) -> int:
        """About where one that waits stands; 1 is next."""
        return self._waiting.position(ticket)

    def next_position(self, ticket: Ticket) -> int:
        """The same of one that comes now."""
        return self._waiting.ahead_of(ticket.tenant, ticket.weight) + 1

    # ── who may ──────────────────────────────────────────────────────────────────────────

    def _peek(self, now: float) -> Ticket | None:
        may = self._turn(now)
        return None if may is None else self._waiting.peek(may)

    def _turn(self, now: float) -> May | None:
        """Who may be sent: all that `_may` lets, save when a turn is over and somebody waits for the next.

        None: nobody. It is asked at every change, so it looks at who waits only where that decides.
        """
        may = self._may(now)
        if may is None or not any(map(may, self._wanted)):
            return None
        if self.turns.is_turn_over(now) and not all(map(self.turns.is_warm, self._wanted)):
            for ticket in self._waiting:
                if not self.turns.is_warm(ticket.model) and may(ticket.model):
                    return partial(eq, ticket.model)
        return may

    def _may(self, now: float) -> May | None:
        """Which models may be asked; None: none at all."""
        hung: dict[str, int] = {}
        if len(self._running) >= self.slots:
            hung = Counter(one.ticket.model for one in self._running.values() if self._hangs(one, now))
            if not hung:
                return None
        busy = len(self._running) - sum(hung.values())
        is_wanted = self._is_wanted()

        def may(model: str) -> bool:
            if busy + hung.get(model, 0) >= self.slots:
                return False
            return self.turns.may_load(model, now, is_wanted)

        return may

    def _hangs(self, one: _Running, now: float) -> bool:
        return not one.is_answered and now >= one.started + self.turns.turn_s

    def _is_wanted(self) -> bool:
        """Whether somebody waits for a model that is there."""
        return any(self.turns.is_warm(model) for model in self._wanted)

    def _start(self, ticket: Ticket, now: float) -> None:
        self.turns.asked(ticket.model, now)
        self._running[id(ticket)] = _Running(ticket, now)

    def _no_longer_waits(self, ticket: Ticket) -> None:
        self._wanted[ticket.model] -= 1
        if not self._wanted[ticket.model]:
            del self._wanted[ticket.model]
