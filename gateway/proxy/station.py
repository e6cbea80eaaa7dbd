"""One backend as requests find it: its queue, and what is known of how well it works."""

import math
from typing import Final

from attrs import Factory, define, frozen

from gateway.config import BackendConfig
from gateway.errors import BackendBusy, BackendFailed, GatewayError
from gateway.model import ModelCard
from gateway.ports import Backend
from gateway.proxy.queue import BackendQueue
from gateway.rules.breaker import Breaker, BreakerState
from gateway.rules.routing import LOAD_S, is_worth_a_load

# An error that a backend answers with at once may be the caller's doing, so it blocks nobody; after so many
# in a row, within so many seconds, another backend is preferred.
_COMPLAINTS: Final = 3
_COMPLAINT_S: Final = 30.0
# Ollama tells some milliseconds also for a model that was there.
_LEAST_LOAD_S: Final = 0.5


@define
class _Trust:
    """One model at one backend: what hangs or breaks says nothing of the others."""

    breaker: Breaker = Factory(Breaker)
    complaints: int = 0
    complained_at: float = -math.inf
    is_busy: bool = False
    """The last fault was that it had too much to do."""
    load_s: float = LOAD_S


@frozen
class Pass:
    """What lets one request for a model through both breakers, and tells when that was."""

    trust: _Trust
    link: int
    of_model: int


@define(eq=False)
class Station:
    """`link` is about reaching the backend at all. Models are canonical names; times on a monotonic clock."""

    backend: Backend
    config: BackendConfig
    queue: BackendQueue
    link: Breaker = Factory(Breaker)
    models: dict[str, _Trust] = Factory(dict)

    # ── may a request be sent? ───────────────────────────────────────────────────────────

    def may_pass(self, model: str, now: float) -> bool:
        trust = self.models.get(model)
        return self.link.may_pass(now) and (trust is None or trust.breaker.may_pass(now))

    def try_pass(self, model: str, now: float) -> Pass | None:
        """Let a request through, if it may pass."""
        return self.let_through(model, now) if self.may_pass(model, now) else None

    def let_through(self, model: str, now: float) -> Pass:
        """Let one through that may pass; whoever was must be judged in the end, by one of those below."""
        trust = self._trust(model)
        return Pass(trust, self.link.let_through(now), trust.breaker.let_through(now))

    def is_suspect(self, model: str, now: float) -> bool:
        """It answered with errors only, lately: others are preferred."""
        trust = self.models.get(model)
        if trust is None or trust.complaints < _COMPLAINTS:
            return False
        return now < trust.complained_at + _COMPLAINT_S

    def load_s(self, model: str) -> float:
        """How long it takes to load this model."""
        trust = self.models.get(model)
        return LOAD_S if trust is None else trust.load_s

    def refusal(self, model: str, now: float) -> GatewayError:
        """What a caller is told whom its breaker does not let through."""
        trust = self._trust(model)
        if trust.is_busy:
            error: GatewayError = BackendBusy("The model's server is busy; try again in a few seconds.")
        else:
            error = BackendFailed("The model's server has failed again and again; it is tried again shortly.")
        rest_s = max(self.link.retry_after_s(now), trust.breaker.retry_after_s(now))
        error.retry_after_s = max(1, math.ceil(rest_s))
        return error

    def is_sound(self, model: str, now: float) -> bool:
        """Neither it nor the model has to be tried with one request first."""
        trust = self.models.get(model)
        states = (self.link, *((trust.breaker,) if trust is not None else ()))
        return all(breaker.state(now) is BreakerState.CLOSED for breaker in states)

    # ── what became of it ────────────────────────────────────────────────────────────────

    def began(self, given: Pass) -> None:
        """It has begun to answer, so it neither hangs nor is away, whatever becomes of the answer."""
        self.link.succeeded(given.link)
        given.trust.breaker.succeeded(given.of_model)
        given.trust.is_busy = False

    def worked(self, given: Pass) -> None:
        self.began(given)
        given.trust.complaints = 0

    def was_not_reached(self, given: Pass, now: float) -> None:
        self.link.failed(given.link, now)
        given.trust.breaker.abandoned(given.of_model)

    def broke(self, given: Pass, now: float, *, is_busy: bool) -> None:
        """It was reached, and began no answer: it hung, broke off, made no sense, or was too busy."""
        self.link.succeeded(given.link)
        given.trust.breaker.failed(given.of_model, now)
        given.trust.is_busy = is_busy

    def complained(self, given: Pass, now: float) -> None:
        """It answered with an error of its own, or broke off an answer that it had begun."""
        self.link.succeeded(given.link)
        given.trust.breaker.abandoned(given.of_model)
        given.trust.complaints += 1
        given.trust.complained_at = now

    def abandoned(self, given: Pass) -> None:
        """Its caller left, or nothing was sent: nobody knows."""
        self.link.abandoned(given.link)
        given.trust.breaker.abandoned(given.of_model)

    def loaded_in(self, model: str, seconds: float) -> None:
        """How long a load took, by its backend's word; less than that of any is none."""
        if seconds >= _LEAST_LOAD_S:
            self._trust(model).load_s = seconds

    def state(self, now: float) -> "StationState":
        broken = [
            model
            for model, trust in self.models.items()
            if trust.breaker.state(now) is not BreakerState.CLOSED
        ]
        return StationState(
            name=self.backend.name,
            slots=self.queue.slots,
            weight=self.config.weight,
            is_draining=self.config.is_draining,
            running=self.queue.running,
            waiting=self.queue.waiting,
            breaker=self.link.state(now),
            broken_models=tuple(sorted(broken)),
        )

    def _trust(self, model: str) -> _Trust:
        trust = self.models.get(model)
        if trust is None:
            trust = self.models[model] = _Trust()
        return trust


@frozen
class Choice:
    """A station that has the model, how its backend describes it, and how it was when that was asked last."""

    station: Station
    card: ModelCard
    is_up: bool = True
    is_warm: bool = False

    def is_worth_a_line(self, model: str, waited_s: float, now: float) -> bool:
        """Whether one that has waited so long elsewhere should wait here, too."""
        station = self.station
        if station.config.is_draining or not self.is_up or not station.may_pass(model, now):
            return False
        is_worth = self.is_warm or is_worth_a_load(waited_s, station.load_s(model))
        return is_worth and not station.is_suspect(model, now)


@frozen
class StationState:
    """What requests find at one backend now."""

    name: str
    slots: int | None
    weight: int
    is_draining: bool
    running: int
    waiting: int
    breaker: BreakerState
    broken_models: tuple[str, ...]
    """Those whose own breaker is not closed, by canonical name."""
