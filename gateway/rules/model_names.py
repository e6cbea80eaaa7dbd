"""Names of models: the many spellings of one model, and the one that decides.

Ollama takes `tiny`, `TINY:latest` and `registry.ollama.ai/library/tiny` for the same model, so lists of
allowed models, budgets and routing compare canonical names only. The backend is sent its own spelling.
"""

import re
from functools import lru_cache
from typing import Final

LATEST: Final = "latest"
LOCAL: Final = "local"
CLOUD: Final = "cloud"

_DEFAULT_HOST: Final = "registry.ollama.ai"
_DEFAULT_NAMESPACE: Final = "library"

# Ollama's bounds (types/model/name.go). Other servers' names have up to a handful of segments.
_MAX_HOST_CHARACTERS: Final = 350
_MAX_SEGMENTS: Final = 8
_SEGMENT: Final = re.compile(r"[a-z0-9_][a-z0-9_.-]{0,79}")
_HOST: Final = re.compile(r"[a-z0-9_][a-z0-9_.:-]*")
_MAX_CHARACTERS: Final = 1024
_WHITE_SPACE: Final = " \t\n\v\f\r"


def canonical(name: str) -> str | None:
    """The one spelling of a model's name: lower case, with its tag; None for what is not served under any.

    None are: names with a scheme, and what Ollama calls invalid. A path of a file, as llama.cpp names its
    model, is known by its last segment: the directories are nobody's business.
    """
    # Each request asks several times, for one of a few names; of longer texts none is kept.
    return _remembered(name) if len(name) <= _MAX_CHARACTERS else _canonical(name)


def _canonical(name: str) -> str | None:
    name = name.strip(_WHITE_SPACE)
    # Lower case folds some letters beyond ASCII onto ASCII ones: U+212A is no `k`.
    if len(name) > _MAX_CHARACTERS or not name.isascii() or "://" in name:
        return None
    name = name.lower()
    segments, tag = _parts(_without_directory(name))
    if tag in (LOCAL, CLOUD) and _has_tag(segments[-1]):
        # `m:7b:local` and `m:7b:cloud` name the source after the tag; there is one source at most.
        source, (segments, tag) = tag, _parts("/".join(segments))
        if tag == LOCAL or _is_cloud(tag):
            return None
        tag = tag if source == LOCAL else _in_cloud(tag)
    tag = LATEST if tag == LOCAL else tag
    segments = _without_defaults(segments)
    return f"{'/'.join(segments)}:{tag}" if _valid(segments, tag) else None


_remembered: Final = lru_cache(maxsize=1024)(_canonical)


@lru_cache(maxsize=1024)
def leaves_the_machine(name: str) -> bool:
    """Whether Ollama has another machine answer for the model of this canonical name (`m:7b-cloud`)."""
    return _is_cloud(name.rpartition(":")[2])


def shown(name: str) -> str:
    """A backend's spelling as callers may see it: without the directories of a file."""
    return _without_directory(name.strip())


def with_tag(name: str) -> str:
    """A name with its tag, as Ollama's lists show it."""
    return name if _has_tag(name.rpartition("/")[2]) else f"{name}:{LATEST}"


def namespace(name: str) -> str:
    """Who made the model: the segment before the last one, or Ollama's `library`."""
    segments, _ = _parts(_without_directory(name.strip()))
    return segments[-2] if len(segments) > 1 else _DEFAULT_NAMESPACE


def _without_directory(name: str) -> str:
    return name.rpartition("/")[2] if name.startswith("/") else name


def _has_tag(last_segment: str) -> bool:
    return ":" in last_segment


def _parts(name: str) -> tuple[list[str], str]:
    *segments, last = name.split("/")
    model, colon, tag = last.rpartition(":")
    return ([*segments, model], tag) if colon else ([*segments, last], LATEST)


def _is_cloud(tag: str) -> bool:
    return tag == CLOUD or tag.endswith(f"-{CLOUD}")


def _in_cloud(tag: str) -> str:
    return CLOUD if tag == LATEST else f"{tag}-{CLOUD}"


def _valid(segments: list[str], tag: str) -> bool:
    if len(segments) > _MAX_SEGMENTS or not _SEGMENT.fullmatch(tag):
        return False
    if len(segments) == 3:
        # Only a registry may have a port and a long name.
        host, *segments = segments
        if len(host) > _MAX_HOST_CHARACTERS or not _HOST.fullmatch(host):
            return False
    if segments[:-1] == [_DEFAULT_HOST]:
        return False
    return all(_SEGMENT.fullmatch(segment) for segment in segments)


def _without_defaults(segments: list[str]) -> list[str]:
    if len(segments) == 3 and segments[0] == _DEFAULT_HOST:
        segments = segments[1:]
    if len(segments) == 2 and segments[0] == _DEFAULT_NAMESPACE:
        segments = segments[1:]
    return segments
