"""The schedule of one backend that has slots: who is sent now, who waits, and for how long.

Whoever is next (`fair_queue`) of those whose model may be asked (`model_turns`) gets a free slot. The slots
of a model that hangs count against its own requests only, so that it does not keep others from being served.

Judged is the model, not the request: it hangs when for each of its requests it has been silent for longer
than it usually is (`silences`), and has given no sign of life to any other of them meanwhile. One that was
given up like this is taken to hang, whenever it is asked again, until it gives a sign.

A machine without a clock: `now` is seconds on a monotonic one. Whoever drives it calls `next` after each
change, and at `wakes_at`.
"""

import math
from collections import Counter
from functools import partial
from operator import eq
from typing import Final

from attrs import define, evolve

from gateway.rules.fair_queue import FairQueue, May, Ticket
from gateway.rules.model_turns import ModelTurns
from gateway.rules.silences import Silence, Silences

# How much the newest measurement of how long a request takes counts: about the last dozen decide.
_NEWEST: Final = 1 / 6


@define(eq=False)
class _Running:
    """`silence` and `patience_s`: what its current part, sent at `sent`, is silent for, and for how long."""

    ticket: Ticket
    started: float
    sent: float
    silence: Silence
    patience_s: float
    is_answered: bool = False
    was_answered: bool = False
    """This part; any part of it."""


class Schedule:
    """`slots` requests at the same time, save those of models that hang; a model's turn is `turn_s` long."""

    def __init__(self, slots: int, turn_s: float) -> None:
        self.slots = slots
        self.turns = ModelTurns(turn_s)
        self.service_s: float | None = None
        """How long a request holds its slot, on average; None until the first has ended."""
        self._waiting = FairQueue()
        self._wanted: Counter[str] = Counter()
        self._running: dict[int, _Running] = {}
        self._silences = Silences(turn_s)
        self._signs: dict[str, float] = {}
        """When each model last gave a sign of life."""
        self._hung: set[str] = set()
        """Models that were given up, and have given no sign since."""
        self._turn_of: dict[str, float] = {}
        """When each tenant's turn to have a model loaded was last, as far as it still decides."""

    @property
    def waiting(self) -> int:
        """How many have their place here; of guests, which wait here too, `tickets` tells."""
        return self._waiting.placed

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

    def adopt(self, ticket: Ticket, now: float) -> None:
        """It was sent before there were slots, at about the time when it came."""
        self._start(ticket, now)
        self._running[id(ticket)].started = ticket.arrived

    def enqueue(self, ticket: Ticket, *, is_guest: bool = False) -> None:
        self._waiting.add(ticket, is_guest=is_guest)
        self._wanted[ticket.model] += 1

    def next(self, now: float) -> Ticket | None:
        """Who is sent now, and holds a slot from here on; None when nobody can be."""
        if not self._waiting:
            return None
        may, first = self._turn(now)
        ticket = None if may is None else self._waiting.pop(may)
        if ticket is not None:
            if first is not None:
                self._had_its_turn(first.tenant, now)
            self._no_longer_waits(ticket)
            self._start(ticket, now)
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """One that waits does so no longer."""
        self._waiting.drop(ticket)
        self._no_longer_waits(ticket)

    def gives_way(self, ticket: Ticket, now: float) -> Ticket | None:
        """Who of those that wait leaves for one that comes now, where there is no room for both.

        First who waits for a model that hangs: else those would fill the queue, and keep the others out. But
        nobody who has less waiting for its share: else making others' models hang would win their places.
        """
        hung = [model for model, at in self._hang_from().items() if at <= now]
        if hung and ticket.model not in hung:
            gone = self._waiting.newest_beside(ticket, hung.__contains__)
            if gone is not None:
                return gone
        return self._waiting.gives_way(ticket)

    def sent(self, ticket: Ticket, now: float, *, is_whole: bool) -> None:
        """It is sent, or its next part is; `is_whole`: it is answered in one piece."""
        one = self._running[id(ticket)]
        one.sent, one.is_answered = now, False
        one.silence = evolve(one.silence, is_whole=is_whole)
        one.patience_s = self._silences.most_s(one.silence)

    def heard(self, ticket: Ticket, now: float) -> bool:
        """A piece of its answer has come. Whether a load is over with that."""
        self._signs[ticket.model] = now
        self._hung.discard(ticket.model)
        one = self._running[id(ticket)]
        if one.is_answered:
            return False
        self._silences.learn(one.silence, now - one.sent)
        one.is_answered = one.was_answered = True
        # In the middle of an answer nothing is loaded or read: the next piece comes soon.
        one.silence, one.patience_s = Silence(ticket.model), self.turns.turn_s
        return self.turns.loaded(ticket.model)

    def finish(self, ticket: Ticket, now: float, *, is_served: bool, is_given_up: bool = False) -> bool:
        """It holds its slot no longer; `is_served`: how long it did is what others take. As `heard`.

        `is_given_up`: its backend was too slow. A caller who leaves says nothing of the model.
        """
        if is_given_up and self._hang_from()[ticket.model] <= now:
            self._hung.add(ticket.model)
        one = self._running.pop(id(ticket))
        if is_served:
            took_s = (now - one.started) / ticket.cost
            before = took_s if self.service_s is None else self.service_s
            self.service_s = before + (took_s - before) * _NEWEST
        return self.turns.loaded(ticket.model)

    def seen_loaded(self, models: frozenset[str]) -> None:
        """What the backend says that it has in memory; what it answers from is there, whatever it says."""
        answering = (one.ticket.model for one in self._running.values() if one.was_answered)
        self.turns.seen(models.union(answering))

    def wakes_at(self, now: float) -> float | None:
        """When somebody who waits may be sent by time alone."""
        if not self._waiting:
            return None
        is_wanted = self._is_wanted()
        ready = (self.turns.ready_at(model, now, is_wanted) for model in self._wanted)
        return min((at for at in (*ready, *self._hang_from().values()) if at > now), default=None)

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
        may, _ = self._turn(now)
        return None if may is None else self._waiting.peek(may)

    def _turn(self, now: float) -> tuple[May | None, Ticket | None]:
        """Who may be sent: all that `_may` lets, save when a turn is over and somebody waits for the next;
        then those who want the same model as the one whose turn it is, which is the second.

        None: nobody. It is asked at every change, so it looks at who waits only where that decides.
        """
        may = self._may(now)
        if may is None or not any(map(may, self._wanted)):
            return None, None
        if self.turns.is_turn_over(now):
            cold = {model for model in self._wanted if not self.turns.is_warm(model) and may(model)}
            if cold:
                first = min((one for one in self._waiting if one.model in cold), key=self._waits_since)
                return partial(eq, first.model), first
        return may, None

    def _waits_since(self, ticket: Ticket) -> tuple[float, float]:
        """Least is next: who has waited longest since its tenant had a turn.

        So whoever names many models has no more turns than others, and who waits lets each other tenant have
        one at most.
        """
        return max(ticket.arrived, self._turn_of.get(ticket.tenant, -math.inf)), ticket.arrived

    def _had_its_turn(self, tenant: str, now: float) -> None:
        oldest = min((one.arrived for one in self._waiting), default=now)
        # What was before all who wait have come decides nothing any more.
        self._turn_of = {name: at for name, at in self._turn_of.items() if at > oldest}
        self._turn_of[tenant] = now

    def _may(self, now: float) -> May | None:
        """Which models may be asked; None: none at all."""
        hung: dict[str, int] = {}
        if len(self._running) >= self.slots:
            held = Counter(one.ticket.model for one in self._running.values())
            hung = {model: held[model] for model, at in self._hang_from().items() if at <= now}
            if not hung:
                return None
        busy = len(self._running) - sum(hung.values())
        is_wanted = self._is_wanted()

        def may(model: str) -> bool:
            if busy + hung.get(model, 0) >= self.slots:
                return False
            return self.turns.may_load(model, now, is_wanted)

        return may

    def _hang_from(self) -> dict[str, float]:
        """By model, of those that run: from when on it hangs, if it gives no sign until then."""
        ends: dict[str, float] = {}
        for one in self._running.values():
            model = one.ticket.model
            silent_since = max(one.sent, self._signs.get(model, -math.inf))
            ends[model] = max(silent_since + one.patience_s, ends.get(model, -math.inf))
        return ends | {model: -math.inf for model in self._hung if model in ends}

    def _is_wanted(self) -> bool:
        """Whether somebody waits for a model that is there."""
        return any(self.turns.is_warm(model) for model in self._wanted)

    def _start(self, ticket: Ticket, now: float) -> None:
        is_load = self.turns.asked(ticket.model, now) or self.turns.is_loading(ticket.model)
        silence = Silence(ticket.model, is_load=is_load)
        self._running[id(ticket)] = _Running(ticket, now, now, silence, self._silences.most_s(silence))

    def _no_longer_waits(self, ticket: Ticket) -> None:
        self._wanted[ticket.model] -= 1
        if not self._wanted[ticket.model]:
            del self._wanted[ticket.model]
