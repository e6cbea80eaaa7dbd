"""Ollama's `think`, which every surface takes: whether the model thinks before it answers, or how hard."""

from typing import Final

from gateway.formats.fields import Fields

LEVELS: Final = ("low", "medium", "high", "max")


def read_think(fields: Fields) -> bool | str | None:
    """None where it is absent: the model's default."""
    think = fields.raw("think")
    if think is None or isinstance(think, bool) or (isinstance(think, str) and think in LEVELS):
        return think
    raise fields.refuse("think", "true, false, or one of " + ", ".join(LEVELS))
