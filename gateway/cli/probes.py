"""Asking the backends themselves how they are, beside whatever runs."""

import asyncio
import contextlib
import time
from collections.abc import Mapping
from typing import Final

from attrs import field, frozen

from gateway.backends.answers import BackendTimeouts
from gateway.backends.http import HttpBackend
from gateway.config import BackendConfig, Config
from gateway.errors import GatewayError
from gateway.model import LoadedModel, ModelCard

# Somebody waits for the answer: a backend that takes longer to tell its models is as good as down.
_TIMEOUTS: Final = BackendTimeouts(connect_s=3.0, first_byte_s=5.0, chunk_gap_s=5.0, answer_s=5.0)
# Ollama reads the head of a file for each model that it describes.
_MAX_DESCRIBED: Final = 64
_ABREAST: Final = 4


@frozen
class Probe:
    """One backend as it was found. Models by their names there, with their contexts in tokens, if known."""

    backend: BackendConfig
    latency_s: float | None = None
    """How long it took to list its models."""
    models: Mapping[str, int | None] = field(factory=dict)
    loaded: Mapping[str, int | None] = field(factory=dict)
    error: str | None = None

    @property
    def state(self) -> str:
        return "up" if self.error is None else "down"


async def probes_of(settings: Config) -> list[Probe]:
    """All of them asked at once; the list is in their order."""
    return await asyncio.gather(*map(_probe, settings.backends))


async def _probe(config: BackendConfig) -> Probe:
    backend = HttpBackend(config, _TIMEOUTS)
    await backend.open()
    try:
        started = time.monotonic()
        cards = await backend.models()
        latency_s = time.monotonic() - started
        loaded = await backend.loaded()
        models = {card.name: card.context for card in await _described(backend, cards)}
    except GatewayError as error:
        return Probe(config, error=error.sentence)
    finally:
        await backend.close()
    return Probe(config, latency_s, models, {one.name: _context_of(one, models) for one in loaded})


def _context_of(loaded: LoadedModel, models: Mapping[str, int | None]) -> int | None:
    return loaded.context or models.get(loaded.name)


async def _described(backend: HttpBackend, cards: tuple[ModelCard, ...]) -> list[ModelCard]:
    """With their contexts, where they can be had; nothing is asked of models that leave the box."""
    places = asyncio.Semaphore(_ABREAST)

    async def described(card: ModelCard) -> ModelCard:
        if card.leaves or card.context is not None:
            return card
        async with places:
            with contextlib.suppress(GatewayError):
                return await backend.completed(card)
            return card

    asked = await asyncio.gather(*map(described, cards[:_MAX_DESCRIBED]))
    return [*asked, *cards[_MAX_DESCRIBED:]]
