"""POST /api/show, asked of a backend: the context of a model, and what it puts before a prompt by itself.

For callers the route has a reader of its own: little of this is theirs to see.
"""

from typing import Any, Final

import orjson
from attrs import evolve

from gateway.accounting import PromptSize
from gateway.errors import BackendFailed
from gateway.formats.chat import UpstreamRequest
from gateway.formats.model_cards import capabilities_of, context_of, text_of
from gateway.model import JsonObject, ModelCard

SHOW_PATH: Final = "/api/show"


def write_show(model: str) -> UpstreamRequest:
    return UpstreamRequest(SHOW_PATH, {"model": model})


def read_shown(body: bytes, card: ModelCard) -> ModelCard:
    """The card with the context that the model was trained for, its own words and what it is able to do.

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
        own=_own_of(shown),
        # Since 0.6.4; the list has them only since 0.30.
        capabilities=capabilities_of(shown.get("capabilities")),
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
