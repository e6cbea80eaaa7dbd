"""Access: which models a tenant and its keys may use, by patterns over canonical names.

What a tenant allows and what its key allows both apply. A model that is not allowed looks to the caller like
one that does not exist. Models that leave the box are for tenants only that were opted in, whatever the
patterns say.
"""

import re
from functools import lru_cache
from typing import Final

from gateway.model import ModelPolicy, Principal
from gateway.rules.model_names import canonical

MAX_PATTERNS: Final = 64
_MAX_CHARACTERS: Final = 256
_ANY: Final = "*"
_WILD: Final = re.compile(r"[a-z0-9_.:/*-]+")
_DEFAULTS: Final = ("registry.ollama.ai/", "library/")


def may_use(principal: Principal, name: str, *, leaves: bool) -> bool:
    """Whether the model of this canonical name is there for the caller. `leaves`: another machine answers."""
    if leaves and not principal.allow_cloud:
        return False
    return _allows(principal.tenant_models, name) and _allows(principal.key_models, name)


def least(*bounds: int | None) -> int | None:
    """The bound that holds where all of these apply; None where there is none."""
    known = [bound for bound in bounds if bound is not None]
    return min(known) if known else None


def patterns_of(text: str) -> tuple[str, ...]:
    """A comma list of names and patterns, in canonical form. Raises ValueError, with a sentence."""
    patterns = tuple(dict.fromkeys(_pattern(part) for part in text.split(",") if part.strip()))
    if not 1 <= len(patterns) <= MAX_PATTERNS:
        raise ValueError(f"expected 1 to {MAX_PATTERNS} names or patterns, such as 'llama3*,qwen3:8b'.")
    return patterns


def matches(name: str, pattern: str) -> bool:
    """Whether a canonical name is meant; `*` stands for any characters, also for none. Linear in the name."""
    head, *rest = pattern.split(_ANY)
    if not rest:
        return name == head
    *middle, tail = rest
    start, end = len(head), len(name) - len(tail)
    if start > end or not name.startswith(head) or not name.endswith(tail):
        return False
    for piece in middle:
        found = name.find(piece, start, end)
        if found < 0:
            return False
        start = found + len(piece)
    return True


def _allows(policy: ModelPolicy, name: str) -> bool:
    return policy.models is None or _is_among(name, policy.models)


# Asked with every request, of few names and fewer lists. A flood of names only pushes answers out.
@lru_cache(maxsize=4096)
def _is_among(name: str, patterns: tuple[str, ...]) -> bool:
    return any(matches(name, pattern) for pattern in patterns)


def _pattern(text: str) -> str:
    """Without `*` a model's canonical name; with it as written, less what Ollama leaves out."""
    pattern = text.strip()
    if _ANY not in pattern:
        name = canonical(pattern)
        if name is None or len(name) > _MAX_CHARACTERS:
            raise ValueError(f"{pattern!a} is no name of a model.")
        return name
    pattern = re.sub(r"\*+", _ANY, pattern.lower())
    for default in _DEFAULTS:
        pattern = pattern.removeprefix(default)
    if not _WILD.fullmatch(pattern) or len(pattern) > _MAX_CHARACTERS:
        raise ValueError(f"{text.strip()!a} is no pattern: names have letters, digits, and any of _.:/-")
    return pattern
