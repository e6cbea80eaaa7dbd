"""POST /api/show, both ways: what a backend tells of a model, and what callers are told of it.

Callers see what the model is and can do. Its template, system prompt, examples and license are the
operator's, and a Modelfile names the paths of files: none of these is kept, so none can be shown.
"""

from math import isfinite
from typing import Any, Final

import orjson
from attrs import evolve

from gateway.accounting import PromptSize
from gateway.errors import BackendFailed
from gateway.formats.chat import UpstreamRequest
from gateway.formats.fields import Fields
from gateway.formats.model_cards import capabilities_of, context_of, details, text_of
from gateway.formats.ndjson import ascii_json
from gateway.formats.ollama.models import LONG_AGO
from gateway.formats.times import rfc3339
from gateway.model import JsonObject, ModelCard

SHOW_PATH: Final = "/api/show"

_FIELDS: Final = frozenset({"model", "name", "verbose", "system", "template", "options"})

# Of what describes a model only this much is kept, of every one for as long as it is listed.
_MAX_INFO: Final = 256
_MAX_TEXT_CHARACTERS: Final = 512
_MAX_PARAMETERS_CHARACTERS: Final = 4096
_TEMPLATES: Final = "tokenizer.chat_template"
_ANY_ARCHITECTURE: Final = "unknown"

# ── from a backend ───────────────────────────────────────────────────────────────────────


def write_show(model: str) -> UpstreamRequest:
    return UpstreamRequest(SHOW_PATH, {"model": model})


def read_shown(body: bytes, card: ModelCard) -> ModelCard:
    """The card with the context that the model was trained for, what it can do, and what it says first.

    Raise BackendFailed for what describes no model. What can't be read of it stays unknown.
    """
    try:
        shown = orjson.loads(body)
    except orjson.JSONDecodeError:
        shown = None
    if not isinstance(shown, dict):
        raise BackendFailed("The model's server does not describe its model.")
    return evolve(
        card,
        context=_context_of(shown.get("model_info")),
        capabilities=capabilities_of(shown.get("capabilities")),
        own=_own_of(shown),
        info=_info_of(shown.get("model_info")),
        parameters=text_of(shown.get("parameters"))[:_MAX_PARAMETERS_CHARACTERS],
    )


def _context_of(info: Any) -> int | None:
    """`<architecture>.context_length`."""
    if not isinstance(info, dict):
        return None
    return context_of(info.get(f"{text_of(info.get('general.architecture'))}.context_length"))


def _own_of(shown: JsonObject) -> PromptSize:
    """The system prompt that the model has where the caller gives none, and the turns before the first."""
    messages = shown.get("messages")
    texts = [shown.get("system"), *map(_content_of, messages if isinstance(messages, list) else ())]
    own = [text.encode("utf-8", "replace") for text in map(text_of, texts) if text]
    return PromptSize(text_bytes=sum(map(len, own)), messages=len(own))


def _content_of(message: Any) -> Any:
    return message.get("content") if isinstance(message, dict) else None


def _info_of(info: Any) -> JsonObject:
    """Single values of a model's file. Its vocabulary and the like come as null, unless one asks for more."""
    if not isinstance(info, dict):
        return {}
    kept = {name: value for name, value in info.items() if _is_kept(name, value)}
    return dict(list(kept.items())[:_MAX_INFO])


def _is_kept(name: str, value: Any) -> bool:
    if len(name) > _MAX_TEXT_CHARACTERS or name.startswith(_TEMPLATES):
        return False
    if isinstance(value, str):
        return len(value) <= _MAX_TEXT_CHARACTERS
    return isinstance(value, int | float) and isfinite(value)


# ── with callers ─────────────────────────────────────────────────────────────────────────


def read_show(body: JsonObject) -> str:
    """The model's name. Raise InvalidRequest without one. All other fields change nothing that is shown."""
    fields = Fields(body)
    fields.refuse_look_alikes(_FIELDS)
    return fields.string("model") or fields.string("name") or fields.required_string("model")


def write_shown(card: ModelCard) -> bytes:
    """What is known of a model: clients look for its capabilities, and for its context in `model_info`."""
    written: JsonObject = {
        "details": details(card.details),
        "model_info": _with_context(card),
        "capabilities": sorted(card.capabilities or {"completion"}),
        "modified_at": rfc3339(LONG_AGO if card.modified_at is None else card.modified_at),
    }
    return ascii_json({"parameters": card.parameters} | written if card.parameters else written)


def _with_context(card: ModelCard) -> JsonObject:
    """Clients find the context by the architecture; where a backend has told none, it has any."""
    architecture = card.info.get("general.architecture") or text_of(card.details.get("family"))
    architecture = architecture or _ANY_ARCHITECTURE
    context = {} if card.context is None else {f"{architecture}.context_length": card.context}
    return {"general.architecture": architecture} | context | card.info
