"""How long a model stays loaded: Ollama's `keep_alive`, a number of seconds or a Go duration string."""

import re
from typing import Final

from gateway.formats.fields import Fields

# Go keeps durations as int64 nanoseconds: 292 years. What is longer wraps around there.
MAX_SECONDS: Final = (2**63 - 1) // 10**9

_UNITS_S: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}
_PART: Final = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_DURATION: Final = re.compile(rf"([+-]?)(0|(?:{_PART.pattern})+)")
_MAX_CHARACTERS: Final = 64


def seconds_of(text: str) -> float | None:
    """What Go's `time.ParseDuration` reads (`5m`, `1h30m`, `-1s`, `0`), in seconds; else None."""
    match = _DURATION.fullmatch(text) if len(text) <= _MAX_CHARACTERS else None
    if match is None:
        return None
    total = sum(float(number) * _UNITS_S[unit] for number, unit in _PART.findall(match[2]))
    if total > MAX_SECONDS:
        return None
    return -total if match[1] == "-" else total


def read_keep_alive(fields: Fields) -> float | None:
    """The field `keep_alive` in seconds: 0 means unload at once, a negative one never; None: the default.

    Only read here; how far a caller may go is a rule's business.
    """
    if not isinstance(fields.raw("keep_alive"), str):
        return fields.number("keep_alive", -MAX_SECONDS, MAX_SECONDS)
    seconds = seconds_of(fields.text("keep_alive"))
    if seconds is None:
        raise fields.refuse("keep_alive", "a number of seconds, or a duration such as '5m' or '1h30m'")
    return seconds
