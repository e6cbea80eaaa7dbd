"""What stands around a relay: backends in a catalogue, and visits at them."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from attrs import define, field

from gateway.config import BackendConfig
from gateway.model import Exchange, ModelCard
from gateway.ports import Backend, Clock, Offer
from gateway.proxy.queue import BackendQueue, QueueBounds
from gateway.proxy.router import Router
from gateway.proxy.visit import Visit
from gateway.proxy.wait import Wait
from gateway.rules.fair_queue import Ticket
from tests.asgi import FakeClock, exchange

BOUNDS = QueueBounds(max_waiting=100, max_wait_s=1000, turn_s=10)


class Pulled:
    """An answer that has `read` alone: it pushes what is read."""

    async def read(self) -> bytes:
        raise NotImplementedError

    async def push(self, take: Callable[[bytes], bool]) -> bool:
        while piece := await self.read():
            if not take(piece):
                return True
        return False


@define
class OfferedBy:
    """A catalogue in which each of these backends has every model."""

    backends: Sequence[Any]
    is_up: dict[str, bool] = field(factory=dict)
    warm: set[str] = field(factory=set)
    cards: dict[str, ModelCard] = field(factory=dict)
    asked_loaded: list[str] = field(factory=list)

    async def offers(self, model: str) -> Sequence[Offer]:
        return [
            Offer(
                backend,
                self.cards.get(backend.name, ModelCard(f"{model.removesuffix(':latest')}:latest")),
                self.is_up.get(backend.name, True),
                backend.name in self.warm,
            )
            for backend in self.backends
        ]

    def ask_loaded(self, backend: Backend) -> None:
        self.asked_loaded.append(backend.name)


def router_of(
    backends: Iterable[Any],
    *,
    clock: Clock | None = None,
    bounds: QueueBounds = BOUNDS,
    catalogue: OfferedBy | None = None,
    **options: Any,
) -> Router:
    """All backends alike, with these options of OLLAMA_BACKENDS."""
    backends = list(backends)
    configs = [BackendConfig(backend.name, f"http://{backend.name}", **options) for backend in backends]
    pairs = list(zip(backends, configs, strict=True))
    return Router(catalogue or OfferedBy(backends), clock or FakeClock(), pairs, bounds)


def ticket(tenant: str = "t1", model: str = "m:latest", **more: Any) -> Ticket:
    return Ticket(tenant, more.pop("key", "k1"), model, 0.0, **more)


def visit_at(
    backend: Any, *, noted: Exchange | None = None, router: Router | None = None, given: Ticket | None = None
) -> Visit:
    """A visit whose target is this backend."""
    noted = noted or exchange()
    noted.target = backend, ModelCard("m:latest")
    return Visit(router or router_of([backend]), noted, given or ticket())


async def slot_in(*queues: BackendQueue, given: Ticket) -> BackendQueue:
    """Wait for a slot in the line of the first, as a guest of the others; whoever gets it leaves it again."""
    with Wait(given) as wait:
        for number, queue in enumerate(queues):
            wait.join(queue, is_guest=number > 0)
        found = await wait.slot(60 if given.patience_s is None else given.patience_s)
        if found is None:
            raise queues[0].out_of_time(given)
        return found
