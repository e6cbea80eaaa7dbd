"""Where requests go: of the backends that have a model, the best one for a request that comes now."""

from collections.abc import Callable, Iterable, Sequence

from gateway.config import BackendConfig
from gateway.model import ModelCard
from gateway.ports import Backend, Clock, Offer, Offers
from gateway.proxy.queue import BackendQueue, QueueBounds
from gateway.proxy.station import Choice, Station, StationState
from gateway.rules.fair_queue import Ticket
from gateway.rules.model_names import canonical
from gateway.rules.routing import Prospect, rank

Target = tuple[Backend, ModelCard]
"""Who serves a request, and how that backend writes the model."""


class Router:
    """The stations of all backends. One for the process."""

    def __init__(
        self,
        catalogue: Offers,
        clock: Clock,
        backends: Iterable[tuple[Backend, BackendConfig]],
        bounds: QueueBounds,
    ) -> None:
        self._catalogue = catalogue
        self._clock = clock
        self.now: Callable[[], float] = clock.elapsed
        """The time of everything that waits or rests here, in seconds."""
        self._bounds = bounds
        self._stations: dict[str, Station] = {}
        self.set_backends(backends)

    def set_backends(self, backends: Iterable[tuple[Backend, BackendConfig]]) -> None:
        """From now on these. Those that stay keep their queues and breakers; who waits at others goes
        elsewhere.
        """
        before = self._stations
        self._stations = {
            config.name: self._kept(before.get(config.name), backend, config) for backend, config in backends
        }
        for name, station in before.items():
            new = self._stations.get(name)
            if new is not station or new.config.is_draining:
                station.queue.close()

    def _kept(self, before: Station | None, backend: Backend, config: BackendConfig) -> Station:
        if before is None or before.backend is not backend:
            return Station(backend, config, self._queue(config))
        before.config = config
        before.queue.set_slots(config.slots)
        if not config.is_draining:
            # It knows what still runs there, also from before it was closed.
            before.queue.open()
        return before

    def _queue(self, config: BackendConfig) -> BackendQueue:
        return BackendQueue(config.slots, self._bounds, self._clock)

    def states(self) -> Sequence[StationState]:
        """For operators."""
        now = self.now()
        return tuple(station.state(now) for station in self._stations.values())

    def seen(self, backend: Backend, loaded: frozenset[str] | None) -> None:
        """The backend was asked: what it has in memory, by canonical names; None where it does not say."""
        station = self._stations.get(backend.name)
        if station is not None and station.backend is backend and loaded is not None:
            # It can be reached, which is all that its own breaker is about.
            station.link.close()
            station.queue.seen_loaded(loaded)

    async def find(self, model: str) -> Target | None:
        """The backend that is best for a request that comes now. Raises BackendFailed when that can't be
        known.
        """
        offers = await self._catalogue.offers(model)
        if len(offers) > 1:
            ticket = Ticket("", "", canonical(model) or model, self.now())
            if choices := self._choices(offers):
                best = min(choices, key=lambda choice: rank(_prospect(choice, ticket, ticket.arrived)))
                return best.station.backend, best.card
        # Not ours yet, or no longer, if none was found above: the visit tells its caller.
        return (offers[0].backend, offers[0].card) if offers else None

    def station_of(self, backend: Backend) -> Station | None:
        """None for a backend that is none of ours any more."""
        station = self._stations.get(backend.name)
        return station if station is not None and station.backend is backend else None

    def loaded_something(self, backend: Backend) -> None:
        self._catalogue.ask_loaded(backend)

    async def alternatives(self, ticket: Ticket, target: Target, tried: Sequence[Backend]) -> list[Choice]:
        """Who else may be asked, the best first: what was planned for one holds for them, too."""
        choices = await self.alike(ticket, target, tried)
        return _ranked(choices, ticket, self.now())

    async def alike(self, ticket: Ticket, target: Target, tried: Sequence[Backend]) -> list[Choice]:
        """The same, in the operator's order."""
        backend, card = target
        alike = (
            offer for offer in await self._catalogue.offers(ticket.model) if _is_alike(offer, backend, card)
        )
        return [choice for choice in self._choices(alike) if choice.station.backend not in tried]

    def _choices(self, offers: Iterable[Offer]) -> list[Choice]:
        """What is offered by backends that are ours."""
        return [
            Choice(station, offer.card, offer.is_up, offer.is_warm)
            for offer in offers
            if (station := self.station_of(offer.backend)) is not None
        ]


def _ranked(choices: Sequence[Choice], ticket: Ticket, now: float) -> list[Choice]:
    return sorted(choices, key=lambda choice: rank(_prospect(choice, ticket, now)))


def _prospect(choice: Choice, ticket: Ticket, now: float) -> Prospect:
    station, queue = choice.station, choice.station.queue
    return Prospect(
        is_draining=station.config.is_draining,
        is_blocked=not station.may_pass(ticket.model, now),
        is_up=choice.is_up,
        is_suspect=station.is_suspect(ticket.model, now),
        is_warm=choice.is_warm,
        wait_s=queue.expected_wait_s(ticket),
        load_s=station.load_s(ticket.model),
        busy=(queue.running + queue.waiting) / station.config.weight,
    )


def _is_alike(offer: Offer, backend: Backend, card: ModelCard) -> bool:
    """Whether what a request reserved for one backend is right for the other."""
    return offer.backend is backend or _terms(offer.backend, offer.card) == _terms(backend, card)


def _terms(backend: Backend, card: ModelCard) -> tuple[object, ...]:
    """All that a reservation is made of. A card of which the details are not known yet is unlike one of which
    they are: what its model puts before each prompt would be charged above what was reserved.
    """
    return backend.kind, card.context, card.engine, card.leaves, card.own, card.capabilities
