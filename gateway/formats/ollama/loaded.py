"""GET /api/ps, both ways: the models that are in memory."""

from collections.abc import Iterable
from typing import Final

import orjson

from gateway.errors import BackendFailed
from gateway.formats.durations import MAX_SECONDS
from gateway.formats.model_cards import context_of, size_of, text_of
from gateway.formats.ndjson import ascii_json
from gateway.formats.ollama.models import named
from gateway.formats.times import epoch_of, rfc3339
from gateway.model import JsonObject, LoadedModel, ModelCard

# Ollama's word for a model that stays for ever: Go's longest duration from now on, 292 years.
_FOR_EVER_S: Final = MAX_SECONDS


def read_ps(body: bytes) -> tuple[LoadedModel, ...]:
    """What a backend has in memory. Raise BackendFailed for what is no list; odd entries are left out."""
    try:
        models = orjson.loads(body)["models"] or []
        listed = [_loaded(model) for model in models if isinstance(model, dict)]
    except (orjson.JSONDecodeError, TypeError, KeyError):
        raise BackendFailed("The model's server sent no list of models.") from None
    return tuple(loaded for loaded in listed if loaded.name)


def write_ps(loaded: Iterable[tuple[ModelCard, LoadedModel]], now: float) -> bytes:
    """The answer of /api/ps: what stays longest first, as Ollama sorts it; what has expired is left out."""
    for_ever = now + _FOR_EVER_S
    ending = [
        (for_ever if model.expires_at is None else model.expires_at, card, model) for card, model in loaded
    ]
    staying = sorted((one for one in ending if one[0] > now), key=lambda one: (-one[0], one[1].name))
    return ascii_json({"models": [_entry(card, model, until) for until, card, model in staying]})


def _loaded(model: JsonObject) -> LoadedModel:
    return LoadedModel(
        name=text_of(model.get("model")) or text_of(model.get("name")),
        expires_at=epoch_of(text_of(model.get("expires_at"))),
        size=size_of(model.get("size")),
        size_vram=size_of(model.get("size_vram")),
        context=context_of(model.get("context_length")),
    )


def _entry(card: ModelCard, model: LoadedModel, until: float) -> JsonObject:
    return named(card) | {
        "size": model.size,
        "expires_at": rfc3339(until),
        "size_vram": model.size_vram,
        "context_length": model.context or card.context or 0,
    }
