"""What both protocols' lists of models have in common."""

from collections.abc import Iterable
from typing import Any, Final

from gateway.model import JsonObject, ModelCard

# Clients read all six, so all six are always there.
_DETAIL_TEXTS: Final = ("parent_model", "format", "family", "parameter_size", "quantization_level")

# Beyond it a number is no context, but a way to say that there is no bound.
_MAX_CONTEXT: Final = 2**30


def details(given: Any = None) -> JsonObject:
    """Ollama's six details of a model, empty where nothing is known."""
    given = given if isinstance(given, dict) else {}
    families = given.get("families")
    families = families if isinstance(families, list) else []
    known: JsonObject = {name: text_of(given.get(name)) for name in _DETAIL_TEXTS}
    return known | {"families": [family for family in families if isinstance(family, str)]}


def newest_first(cards: Iterable[ModelCard]) -> list[ModelCard]:
    """As Ollama sorts its models. One without a time counts as of 1970; those of one time go by name."""
    return sorted(cards, key=lambda card: (-(card.modified_at or 0), card.name))


def size_of(value: Any) -> int:
    """In bytes; 0 where it is unknown."""
    return value if type(value) is int and value >= 0 else 0


def context_of(value: Any) -> int | None:
    """In tokens; None for what no context can be."""
    return value if type(value) is int and 0 < value <= _MAX_CONTEXT else None


def capabilities_of(value: Any) -> frozenset[str] | None:
    """Ollama's words for what a model can do; None where they are not told."""
    return frozenset(map(text_of, value)) if isinstance(value, list) else None


def text_of(value: Any) -> str:
    return value if isinstance(value, str) else ""
