"""Fields that are not read: some change nothing, some would and are refused, the rest is named as dropped."""

import re
from collections.abc import Mapping
from typing import Any, Final

from gateway.errors import UnsupportedField
from gateway.formats.fields import Fields

# Accepted and ignored: who asks, where and for how much; hints that change no answer, or only its style.
HARMLESS: Final = frozenset(
    {
        "metadata",
        "prediction",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "user",
        "verbosity",
    }
)

_INSTEAD: Final = {
    "format": "use 'response_format' instead",
    "grammar": "use 'response_format' instead",
    "guided_json": "use 'response_format' instead",
    "images": "send them as parts of a message",
    "json_schema": "use 'response_format' instead",
    "num_predict": "use 'max_completion_tokens' instead",
    "options": "send num_ctx, top_k, min_p and the like beside 'model'",
    "structured_outputs": "use 'response_format' instead",
    "system": "send it as the first message",
}

# Names of dropped fields go into a header: none that could not stand there, and no more than this.
MAX_DROPPED: Final = 32
_PRINTABLE_NAME: Final = re.compile(r"[\w.-]{1,64}", re.ASCII)


def refuse_unsupported(
    fields: Fields, unsupported: dict[str, tuple[Any, ...]], instead: Mapping[str, str] = _INSTEAD
) -> None:
    """Raise UnsupportedField for a field that would change the answer, unless its value asks for nothing.

    `unsupported` has those values beside each name, `instead` what to do in the place of some.
    """
    if not fields.has_any(unsupported.keys()):
        return
    for name in fields.names():
        if name in unsupported and fields.has(name) and fields.raw(name) not in unsupported[name]:
            advice = instead.get(name, "leave it out")
            raise UnsupportedField(f"'{name}' can't be honoured here; {advice}.", param=name)


def dropped(fields: Fields, known: frozenset[str]) -> tuple[str, ...]:
    """The names of fields that nobody here knows."""
    if not fields.has_others(known):
        return ()
    unknown = (name for name in fields.names() if name not in known)
    return tuple(name for name in unknown if _PRINTABLE_NAME.fullmatch(name))[:MAX_DROPPED]
