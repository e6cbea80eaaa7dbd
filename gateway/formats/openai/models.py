"""GET /v1/models and /v1/models/{model}, both ways."""

from collections.abc import Iterable
from typing import Any, Final

import orjson

from gateway.errors import BackendFailed
from gateway.formats.model_cards import details, newest_first, size_of, text_of
from gateway.formats.times import is_moment
from gateway.model import JsonObject, ModelCard
from gateway.rules.model_names import canonical, namespace, shown

# These give the time of the question for the time of the model.
_NOW_SAYERS: Final = frozenset({"llamacpp", "vllm"})
_LONG_AGO: Final = 0


def read_models(body: bytes) -> tuple[ModelCard, ...]:
    """A backend's models. Raise BackendFailed for what is no list of models.

    Left out: names that have no canonical form, and entries that can't be read. llama.cpp has a second
    list beside, in Ollama's shape, with the details.
    """
    try:
        answer = orjson.loads(body)
        models = answer["data"] or []
        siblings = {text_of(model.get("model")): model for model in answer.get("models") or []}
        cards = [_card(model, siblings) for model in models if isinstance(model, dict)]
    except (orjson.JSONDecodeError, TypeError, KeyError, AttributeError):
        raise BackendFailed("The model's server sent no list of models.") from None
    return tuple(card for card in cards if card is not None)


def write_models(cards: Iterable[ModelCard]) -> bytes:
    """The answer of /v1/models: newest first, as Ollama sorts them; an empty list where there are none."""
    return orjson.dumps(
        {"object": "list", "data": [_entry(card, shown(card.name)) for card in newest_first(cards)]}
    )


def write_model(card: ModelCard, requested_id: str) -> bytes:
    """The answer of /v1/models/{model}: `id` is the name as it was asked for."""
    return orjson.dumps(_entry(card, requested_id))


def _card(model: JsonObject, siblings: dict[str, JsonObject]) -> ModelCard | None:
    name = text_of(model.get("id"))
    if canonical(name) is None:
        return None
    owner, created = text_of(model.get("owned_by")), model.get("created")
    meta = model.get("meta")
    size = meta.get("size") if isinstance(meta, dict) else None
    return ModelCard(
        name=name,
        modified_at=_moment(created) if owner not in _NOW_SAYERS else None,
        size=size_of(size),
        details=details(siblings.get(name, {}).get("details")),
        owned_by=namespace(name),
    )


def _entry(card: ModelCard, name: str) -> JsonObject:
    created = int(_LONG_AGO if card.modified_at is None else card.modified_at)
    return {"id": name, "object": "model", "created": created, "owned_by": card.owned_by}


def _moment(created: Any) -> float | None:
    """None also for servers that count milliseconds: their year has five digits."""
    return float(created) if type(created) is int and is_moment(created) else None
