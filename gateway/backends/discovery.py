"""Which backend has which model: asked in the background, and once more when a name is unknown."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from loguru import logger

from gateway.backends.details import Details
from gateway.errors import BackendFailed, GatewayError
from gateway.model import BackendState, LoadedModel, ModelCard
from gateway.ports import Backend, Clock
from gateway.rules.model_names import canonical

REFRESH_S: Final = 10.0
# An unknown name may be a model that was pulled a moment ago; a flood of unknown names asks no more often.
UNKNOWN_NAME_REFRESH_S: Final = 1.0


class Discovery:
    """The models of all backends by canonical name. Where several have one, the first listed serves it."""

    def __init__(self, backends: Sequence[Backend], clock: Clock) -> None:
        self._backends = backends
        self._clock = clock
        self._cards: dict[str, tuple[ModelCard, ...]] = {}
        self._details = {backend.name: Details(backend, self._own) for backend in backends}
        self._owners: dict[str, tuple[Backend, ModelCard]] = {}
        self._loaded: dict[str, tuple[LoadedModel, ...]] = {}
        self._up: set[str] = set()
        self._refreshed = float("-inf")
        self._refreshing: asyncio.Task[None] | None = None
        self._background: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self.refresh()
        self._background = asyncio.create_task(self._keep_fresh())

    async def stop(self) -> None:
        for task in (self._background, self._refreshing):
            if task is not None:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
        for details in self._details.values():
            await details.stop()

    @property
    def is_ready(self) -> bool:
        return bool(self._up)

    def cards(self) -> tuple[ModelCard, ...]:
        return tuple(card for _, card in self._owners.values())

    def loaded(self) -> tuple[tuple[ModelCard, LoadedModel], ...]:
        """Of a model that several backends have in memory, the one that stays longest."""
        longest: dict[str, LoadedModel] = {}
        for model in (one for backend in self._backends for one in self._loaded.get(backend.name, ())):
            name = canonical(model.name)
            if name in self._owners and (name not in longest or _stays_longer(model, longest[name])):
                longest[name] = model
        return tuple((self._owners[name][1], model) for name, model in longest.items())

    def states(self) -> tuple[BackendState, ...]:
        """Each backend, as it was when it was asked last."""
        return tuple(
            BackendState(
                backend.name,
                backend.kind,
                is_up=backend.name in self._up,
                models=len(self._cards.get(backend.name, ())),
                loaded=len(self._loaded.get(backend.name, ())),
            )
            for backend in self._backends
        )

    async def find(self, model: str) -> tuple[Backend, ModelCard] | None:
        """Who serves this name. Raises BackendFailed when no backend answers, so that it can't be known."""
        name = canonical(model)
        if name is None:
            return None
        found = self._owners.get(name)
        if found is None and self._clock.elapsed() - self._refreshed >= UNKNOWN_NAME_REFRESH_S:
            await self.refresh()
            found = self._owners.get(name)
        if found is None and not self._up:
            raise BackendFailed("No model backend can be reached at the moment.")
        return found

    async def refresh(self) -> None:
        """Ask every backend; callers that come meanwhile share the one round."""
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.create_task(self._ask_all())
        await asyncio.shield(self._refreshing)

    async def _keep_fresh(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_S)
            await self.refresh()

    async def _ask_all(self) -> None:
        await asyncio.gather(
            *(self._ask(backend) for backend in self._backends),
            *(self._ask_loaded(backend) for backend in self._backends),
        )
        self._own()
        self._refreshed = self._clock.elapsed()

    def _own(self) -> None:
        """Say who has what, by all that is known now."""
        owners: dict[str, tuple[Backend, ModelCard]] = {}
        for backend in self._backends:
            details = self._details[backend.name]
            for card in self._cards.get(backend.name, ()):
                name = canonical(card.name)
                # Where one backend has it and another has it answered elsewhere, it stays in the box.
                if name is not None and (name not in owners or (owners[name][1].leaves and not card.leaves)):
                    owners[name] = backend, details.of(card)
        self._owners = owners

    async def _ask(self, backend: Backend) -> None:
        try:
            self._cards[backend.name] = await backend.models()
        except GatewayError as error:
            # What it had stays known: a request for it is told 502, which is true, not 404.
            if backend.name in self._up or backend.name not in self._cards:
                logger.bind(backend=backend.name).warning("backend does not answer: {}", error.sentence)
            self._up.discard(backend.name)
            self._cards.setdefault(backend.name, ())
        else:
            if backend.name not in self._up:
                logger.bind(backend=backend.name, models=len(self._cards[backend.name])).info(
                    "backend answers"
                )
            self._up.add(backend.name)
            self._details[backend.name].learn(self._cards[backend.name])

    async def _ask_loaded(self, backend: Backend) -> None:
        try:
            self._loaded[backend.name] = await backend.loaded()
        except GatewayError:
            # Why is told where its models are asked for.
            self._loaded[backend.name] = ()


def _stays_longer(one: LoadedModel, other: LoadedModel) -> bool:
    return other.expires_at is not None and (one.expires_at is None or one.expires_at > other.expires_at)
