"""Names of tenants and keys: what is a good one, and when two are the same."""

import unicodedata
from typing import Final

MAX_NAME_CHARACTERS: Final = 64


def complaint_about(name: str) -> str | None:
    """What is wrong with a name, as a sentence; None for a good one."""
    if not 1 <= len(name) <= MAX_NAME_CHARACTERS:
        return f"A name has 1 to {MAX_NAME_CHARACTERS} characters; this one has {len(name)}."
    if not name.isprintable():
        return "A name has printable characters only: no line ends, tabs or other control characters."
    if name != name.strip():
        return "A name neither begins nor ends with a space."
    return None


def folded(name: str) -> str:
    """The name as it is compared: 'Acme', 'ACME' and full-width 'Ａcme' are one."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
