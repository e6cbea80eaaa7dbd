"""What the list of a backend leaves open of its models: asked model by model, beside everything else."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final

from attrs import evolve

from gateway.errors import BackendTimeout, GatewayError
from gateway.model import ModelCard
from gateway.ports import Backend

# To describe a model Ollama reads the head of its file: not all of them at once.
_ABREAST: Final = 4


class Details:
    """The details of one backend's models. Until they are known, a card is as the list has it.

    A model is asked about once, and again when its digest has changed; one without a digest with every list,
    for which `Backend.completed` is free wherever the list says it all. What could not be had is asked for
    again with the next list, behind all others; a backend that hangs holds up nothing but this. Models that
    leave the box are not asked about: Ollama would ask the other machine.
    """

    def __init__(self, backend: Backend, on_learned: Callable[[], None]) -> None:
        self._backend = backend
        self._on_learned = on_learned
        self._known: dict[str, ModelCard] = {}
        self._failed: set[str] = set()
        self._asking: asyncio.Task[None] | None = None

    def of(self, card: ModelCard) -> ModelCard:
        """The card with what is known of it."""
        known = self._known.get(card.name)
        if known is None or known.digest != card.digest:
            return card
        return evolve(
            card,
            context=card.context or known.context,
            own=known.own,
            info=known.info,
            parameters=known.parameters,
            capabilities=known.capabilities if card.capabilities is None else card.capabilities,
        )

    def take_over(self, before: "Details") -> None:
        """What is known of these models at another address, or with another key, holds until asked again."""
        self._known = dict(before._known)

    def learn(self, cards: Iterable[ModelCard]) -> None:
        """Ask about those in a new list that need it, unless the last round is still under way."""
        if self._asking is not None and not self._asking.done():
            return
        listed = {card.name: card for card in cards}
        self._known = {name: card for name, card in self._known.items() if name in listed}
        self._failed &= listed.keys()
        unknown = (card for card in listed.values() if not self._is_settled(card))
        if in_order := deque(sorted(unknown, key=lambda card: card.name in self._failed)):
            self._asking = asyncio.create_task(self._ask(in_order))

    async def stop(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
            with suppress(asyncio.CancelledError):
                await self._asking

    def _is_settled(self, card: ModelCard) -> bool:
        known = self._known.get(card.name)
        return card.leaves or (known is not None and known.digest == card.digest != "")

    async def _ask(self, cards: deque[ModelCard]) -> None:
        await asyncio.gather(*(self._ask_one_by_one(cards) for _ in range(_ABREAST)))
        self._on_learned()

    async def _ask_one_by_one(self, cards: deque[ModelCard]) -> None:
        while cards:
            card = cards.popleft()
            try:
                self._known[card.name] = await self._backend.completed(card)
            except GatewayError as error:
                # The bounds of its prompts stay as wide as they are without it.
                self._failed.add(card.name)
                if isinstance(error, BackendTimeout):
                    cards.clear()
            else:
                self._failed.discard(card.name)
