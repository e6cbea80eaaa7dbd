"""The commands of docs/DEPLOYMENT.md, as they stand there."""

import re
from pathlib import Path
from typing import Final

GUIDE: Final = Path(__file__).parents[2] / "docs" / "DEPLOYMENT.md"


def commands(subject: str, what: str) -> str:
    """The block below the sentence that begins with this word and this name."""
    text = GUIDE.read_text()
    found = re.search(rf"^{what} {subject}.*?:\n\n((?:    .*\n)+)", text, re.MULTILINE | re.IGNORECASE)
    assert found is not None, f"no commands to {what} {subject} in {GUIDE.name}"
    return re.sub(r"^    ", "", found[1], flags=re.MULTILINE)
