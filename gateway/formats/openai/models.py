"""GET /v1/models and /v1/models/{model}, both ways."""

from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import quote

import orjson
from attrs import evolve

from gateway.errors import BackendFailed
from gateway.formats.model_cards import context_of, details, newest_first, size_of, text_of
from gateway.formats.times import is_moment
from gateway.model import Engine, JsonObject, LoadedModel, ModelCard
from gateway.rules.model_names import canonical, leaves_the_machine, namespace, shown

# As they write themselves in `owned_by`.
_ENGINES: Final = {"llamacpp": Engine.LLAMA_CPP, "vllm": Engine.VLLM}
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


def read_loaded(body: bytes) -> tuple[LoadedModel, ...]:
    """What a backend has in memory: what it lists, save what llama.cpp would have to load first.

    Raise BackendFailed for what is no list of models.
    """
    cards = read_models(body)
    waiting = {model.get("id") for model in orjson.loads(body)["data"] or [] if _is_waiting(model)}
    return tuple(
        LoadedModel(card.name, size=card.size, context=card.context)
        for card in cards
        if card.name not in waiting
    )


def _is_waiting(model: Any) -> bool:
    status = model.get("status") if isinstance(model, dict) else None
    return isinstance(status, dict) and status.get("value") not in (None, "loaded")


def props_path(model: str) -> str:
    """Where llama.cpp tells the settings of a model; one that is not loaded stays so."""
    return f"/props?model={quote(model, safe='')}&autoload=false"


def read_props(body: bytes, card: ModelCard) -> ModelCard:
    """The card with the context of one slot, which elder builds of llama.cpp tell here only.

    Raise BackendFailed for what tells no settings.
    """
    try:
        context = context_of(orjson.loads(body)["default_generation_settings"]["n_ctx"])
    except (orjson.JSONDecodeError, TypeError, KeyError):
        raise BackendFailed("The model's server does not tell its settings.") from None
    return evolve(card, context=context)


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
    known_as = canonical(name)
    if known_as is None:
        return None
    engine = _ENGINES.get(text_of(model.get("owned_by")))
    meta = model.get("meta")
    meta = meta if isinstance(meta, dict) else {}
    return ModelCard(
        name=name,
        # The engines give the time of the question for the time of the model.
        modified_at=None if engine else _moment(model.get("created")),
        size=size_of(meta.get("size")),
        details=details(siblings.get(name, {}).get("details")),
        owned_by=namespace(name),
        engine=engine,
        context=_context_of(engine, model, meta),
        leaves=leaves_the_machine(known_as),
    )


def _context_of(engine: Engine | None, model: JsonObject, meta: JsonObject) -> int | None:
    """Of one slot of llama.cpp; `n_ctx_train` is what the model was trained for, and bounds nothing."""
    match engine:
        case Engine.LLAMA_CPP:
            return context_of(meta.get("n_ctx"))
        case Engine.VLLM:
            return context_of(model.get("max_model_len"))
        case None:
            # What others mean by their numbers is not known.
            return None


def _entry(card: ModelCard, name: str) -> JsonObject:
    created = int(_LONG_AGO if card.modified_at is None else card.modified_at)
    return {"id": name, "object": "model", "created": created, "owned_by": card.owned_by}


def _moment(created: Any) -> float | None:
    """None also for servers that count milliseconds: their year has five digits."""
    return float(created) if type(created) is int and is_moment(created) else None
