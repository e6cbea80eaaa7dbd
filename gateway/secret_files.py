"""Secrets from files: `NAME_FILE` names a file that has the value of `NAME`, as containers have them."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

SUFFIX: Final = "_FILE"


def with_files_read(values: Mapping[str, str], names: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """`values` with what the files have that `NAME_FILE` names, for these names; then the mistakes.

    Line ends and spaces around a file's text are not part of it. What `NAME_FILE` says is told in mistakes,
    never what the file has.
    """
    read = dict(values)
    mistakes: list[str] = []
    for name in names:
        path = read.pop(name + SUFFIX, "").strip()
        if path:
            try:
                read[name] = _text_of(path, taken=bool(values.get(name)))
            except (OSError, ValueError) as error:
                reason = error.strerror if isinstance(error, OSError) else error
                mistakes.append(f"{name}{SUFFIX} is {path!r}, but not usable: {reason}.")
    return read, mistakes


def _text_of(path: str, *, taken: bool) -> str:
    """Raises OSError, or ValueError with the reason."""
    if taken:
        raise ValueError("its value is set beside it; one of the two is enough")
    try:
        text = Path(path).read_text(encoding="utf-8").strip()
    except UnicodeDecodeError:
        raise ValueError("the file is not UTF-8") from None
    if not text:
        raise ValueError("the file is empty")
    return text
