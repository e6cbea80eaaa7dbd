"""Texts, or their tokens by the numbers of the model's vocabulary: what prompts and inputs can be."""

from typing import Any, Final

from gateway.formats.fields import Fields

# No vocabulary has more.
_MAX_TOKEN: Final = 2**31 - 1


def read_texts(fields: Fields, name: str) -> tuple[str | tuple[int, ...], ...]:
    """A text, its tokens, or an array of either; none of them empty. Raise InvalidRequest for all else."""
    given = fields.raw(name)
    texts = given if isinstance(given, list) and not _are_tokens(given) else [given]
    if not texts or not all((isinstance(one, str) and one) or _are_tokens(one) for one in texts):
        raise fields.refuse(
            name, "a string, an array of tokens, or an array of strings or of such arrays; none of them empty"
        )
    return tuple(one if isinstance(one, str) else tuple(one) for one in texts)


def _are_tokens(value: Any) -> bool:
    """One text's tokens, at least one."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(type(token) is int and 0 <= token <= _MAX_TOKEN for token in value)
    )
