"""Which backend has which model: asked in the background, and once more when a name is unknown."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from attrs import define
from loguru import logger

from gateway.backends.details import Details
from gateway.errors import BackendFailed, GatewayError
from gateway.model import BackendState, LoadedModel, ModelCard
from gateway.ports import Backend, Clock, Offer
from gateway.rules.model_names import canonical

REFRESH_S: Final = 10.0
# One that comes back is noticed, and served again, within seconds.
DOWN_REFRESH_S: Final = 2.0
# An unknown name may be a model that was pulled a moment ago; a flood of unknown names asks no more often.
UNKNOWN_NAME_REFRESH_S: Final = 1.0


@define(eq=False)
class Known:
    """What is known of one backend, as of the last time that it was asked."""

    backend: Backend
    details: Details
    cards: tuple[ModelCard, ...] = ()
    loaded: tuple[LoadedModel, ...] = ()
    is_up: bool = False
    was_asked: bool = False

    def warm(self) -> frozenset[str]:
        """The canonical names of what it has in memory."""
        return frozenset(name for model in self.loaded if (name := canonical(model.name)) is not None)


class Discovery:
    """The models of all backends by canonical name; of their order here the first is shown in lists.

    `on_asked` is told of each backend that was asked, with the canonical names of what it has in memory, or
    None where it does not say.
    """

    def __init__(
        self,
        backends: Sequence[Backend],
        clock: Clock,
        on_asked: Callable[[Backend, frozenset[str] | None], None] | None = None,
    ) -> None:
        self._clock = clock
        self._on_asked = on_asked
        self._known: list[Known] = []
        self._met: list[Known] = []
        self._gone: list[Known] = []
        self._offers: dict[str, tuple[Offer, ...]] = {}
        self._refreshed = float("-inf")
        self._refreshing: asyncio.Task[None] | None = None
        self._asking_loaded: dict[str, asyncio.Task[None]] = {}
        self._background: asyncio.Task[None] | None = None
        self.set_backends(backends)

    async def meet(self, backends: Sequence[Backend]) -> None:
        """Ask the new ones among these, so that callers find their models as soon as they are set.

        One that does not answer has what was known by its name: callers are told 502 of it, not 404.
        """
        known = {id(one.backend) for one in self._known}
        self._met = [self._unknown(backend) for backend in backends if id(backend) not in known]
        await asyncio.gather(*map(self._ask, self._met), *map(self._ask_loaded, self._met))

    def set_backends(self, backends: Sequence[Backend]) -> None:
        """From now on these; of those that stay, and that were met, all that is known stays."""
        before = {id(known.backend): known for known in (*self._known, *self._met)}
        met, self._met = self._met, []
        self._known = [before.get(id(backend)) or self._unknown(backend) for backend in backends]
        self._gone += [known for known in before.values() if known not in self._known]
        self._own()
        for known in met:
            if known.is_up:
                # Whoever is told what it has in memory knew nothing of it when it was met.
                self.ask_loaded(known.backend)

    async def start(self) -> None:
        await self.refresh()
        self._background = asyncio.create_task(self._keep_fresh())

    async def stop(self) -> None:
        for task in (self._background, self._refreshing, *self._asking_loaded.values()):
            if task is not None:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
        for known in (*self._known, *self._met, *self._gone):
            await known.details.stop()

    @property
    def is_ready(self) -> bool:
        return any(known.is_up for known in self._known)

    def known(self) -> Sequence[Known]:
        """What is known of each backend, in their order."""
        return tuple(self._known)

    def cards(self) -> tuple[ModelCard, ...]:
        return tuple(offers[0].card for offers in self._offers.values())

    def loaded(self) -> tuple[tuple[ModelCard, LoadedModel], ...]:
        """Of a model that several backends have in memory, the one that stays longest."""
        longest: dict[str, LoadedModel] = {}
        for model in (one for known in self._known for one in known.loaded):
            name = canonical(model.name)
            if name in self._offers and (name not in longest or _stays_longer(model, longest[name])):
                longest[name] = model
        return tuple((self._offers[name][0].card, model) for name, model in longest.items())

    def states(self) -> tuple[BackendState, ...]:
        """Each backend, as it was when it was asked last."""
        return tuple(
            BackendState(
                known.backend.name,
                known.backend.kind,
                is_up=known.is_up,
                models=len(known.cards),
                loaded=len(known.loaded),
            )
            for known in self._known
        )

    async def find(self, model: str) -> tuple[Backend, ModelCard] | None:
        """The first backend that has a model of this name. Raises as `offers` does."""
        offers = await self.offers(model)
        return (offers[0].backend, offers[0].card) if offers else None

    async def offers(self, model: str) -> tuple[Offer, ...]:
        """Who has this name, in their order. Raises BackendFailed when no backend answers, so that it can't
        be known.
        """
        name = canonical(model)
        if name is None:
            return ()
        offers = self._offers.get(name, ())
        if not offers and self._clock.elapsed() - self._refreshed >= UNKNOWN_NAME_REFRESH_S:
            await self.refresh()
            offers = self._offers.get(name, ())
        if not offers and not self.is_ready:
            raise BackendFailed("No model backend can be reached at the moment.")
        return offers

    async def refresh(self) -> None:
        """Ask every backend; callers that come meanwhile share the one round."""
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.create_task(self._ask_all())
        await asyncio.shield(self._refreshing)

    def ask_loaded(self, backend: Backend) -> None:
        """Ask this one in the background what it has in memory now: it has loaded something."""
        known = next((one for one in self._known if one.backend is backend), None)
        if known is not None and backend.name not in self._asking_loaded:
            task = asyncio.get_running_loop().create_task(self._ask_loaded_again(known))
            self._asking_loaded[backend.name] = task
            task.add_done_callback(lambda _: self._asking_loaded.pop(backend.name, None))

    async def _ask_loaded_again(self, known: Known) -> None:
        await self._ask_loaded(known)
        self._own()

    async def _keep_fresh(self) -> None:
        while True:
            is_down = any(not known.is_up for known in self._known)
            await asyncio.sleep(DOWN_REFRESH_S if is_down else REFRESH_S)
            await self.refresh()

    async def _ask_all(self) -> None:
        asked = tuple(self._known)
        await asyncio.gather(*map(self._ask, asked), *map(self._ask_loaded, asked))
        self._own()
        self._refreshed = self._clock.elapsed()
        gone, self._gone = self._gone, []
        for known in gone:
            await known.details.stop()

    def _unknown(self, backend: Backend) -> Known:
        """Until it was asked, it is taken to have what the one before it by its name has."""
        details = Details(backend, self._own)
        for before in self._known:
            if (before.backend.name, before.backend.kind) == (backend.name, backend.kind):
                details.take_over(before.details)
                return Known(backend, details, before.cards)
        return Known(backend, details)

    def _own(self) -> None:
        """Say who has what, by all that is known now."""
        offers: dict[str, list[Offer]] = {}
        for known in self._known:
            warm, seen = known.warm(), set()
            for card in known.cards:
                name = canonical(card.name)
                if name is None or name in seen:
                    continue
                seen.add(name)
                offer = Offer(known.backend, known.details.of(card), known.is_up, name in warm)
                offers.setdefault(name, []).append(offer)
        self._offers = {name: _in_the_box(found) for name, found in offers.items()}

    async def _ask(self, known: Known) -> None:
        name = known.backend.name
        try:
            known.cards = await known.backend.models()
        except GatewayError as error:
            # What it had stays known: a request for it is told 502, which is true, not 404.
            if known.is_up or not known.was_asked:
                logger.bind(backend=name).warning("backend does not answer: {}", error.sentence)
            known.is_up = False
        else:
            if not known.is_up:
                logger.bind(backend=name, models=len(known.cards)).info("backend answers")
            known.is_up = True
            known.details.learn(known.cards)
        known.was_asked = True

    async def _ask_loaded(self, known: Known) -> None:
        try:
            known.loaded = await known.backend.loaded()
        except GatewayError:
            # Why is told where its models are asked for.
            known.loaded = ()
            warm = None
        else:
            warm = known.warm()
        if self._on_asked is not None:
            self._on_asked(known.backend, warm)


def _in_the_box(offers: Sequence[Offer]) -> tuple[Offer, ...]:
    """Where one backend has a model and another has it answered elsewhere, it stays in the box."""
    return tuple(offer for offer in offers if not offer.card.leaves) or tuple(offers)


def _stays_longer(one: LoadedModel, other: LoadedModel) -> bool:
    return other.expires_at is not None and (one.expires_at is None or one.expires_at > other.expires_at)
