"""GET /api/tags, both ways, and /api/version."""

import re
from collections.abc import Iterable
from hashlib import sha256
from typing import Final

import orjson

from gateway.errors import BackendFailed
from gateway.formats.model_cards import capabilities_of, details, newest_first, size_of, text_of
from gateway.formats.ndjson import ascii_json
from gateway.formats.times import epoch_of, rfc3339
from gateway.model import JsonObject, ModelCard
from gateway.rules.model_names import canonical, leaves_the_machine, namespace, shown, with_tag

_DIGEST: Final = re.compile(r"(?:sha256[:-])?([0-9a-f]{64})")
# ollama-python takes no date but a valid one.
LONG_AGO: Final = 0.0


def read_tags(body: bytes) -> tuple[ModelCard, ...]:
    """A backend's models. Raise BackendFailed for what is no list of models.

    Left out: names that have no canonical form, and entries that can't be read. Models that another machine
    answers for (cloud and remote ones) are marked.
    """
    try:
        models = orjson.loads(body)["models"]
    except (orjson.JSONDecodeError, TypeError, KeyError):
        models = "unreadable"
    if models is not None and not isinstance(models, list):
        raise BackendFailed("The model's server sent no list of models.")
    cards = (_card(model) for model in models or [] if isinstance(model, dict))
    return tuple(card for card in cards if card is not None)


def write_tags(cards: Iterable[ModelCard]) -> bytes:
    """The answer of /api/tags: newest first, as Ollama sorts them."""
    return ascii_json({"models": [_entry(card) for card in newest_first(cards)]})


def write_version(version: str) -> bytes:
    return ascii_json({"version": version})


def _card(model: JsonObject) -> ModelCard | None:
    name = text_of(model.get("model")) or text_of(model.get("name"))
    known_as = canonical(name)
    if known_as is None:
        return None
    digest = _DIGEST.fullmatch(text_of(model.get("digest")))
    return ModelCard(
        name=name,
        modified_at=epoch_of(text_of(model.get("modified_at"))),
        size=size_of(model.get("size")),
        digest=digest[1] if digest else "",
        details=details(model.get("details")),
        owned_by=namespace(name),
        capabilities=capabilities_of(model.get("capabilities")),
        leaves=leaves_the_machine(known_as) or bool(model.get("remote_host") or model.get("remote_model")),
    )


def _entry(card: ModelCard) -> JsonObject:
    moment = rfc3339(LONG_AGO if card.modified_at is None else card.modified_at)
    able = {} if card.capabilities is None else {"capabilities": sorted(card.capabilities)}
    return named(card) | {"modified_at": moment, "size": card.size} | able


def named(card: ModelCard) -> JsonObject:
    """What every list tells of a model, whatever it is a list of."""
    name = with_tag(shown(card.name))
    return {
        "name": name,
        "model": name,
        # A backend that gives no digest still has one model of that name.
        "digest": card.digest or sha256((canonical(card.name) or name).encode()).hexdigest(),
        "details": details(card.details),
    }
