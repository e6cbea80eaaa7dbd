"""What people read first holds together: no link in README or docs/ leads nowhere."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "deploy").rglob("*.md")])


def anchors(document: Path) -> set[str]:
    """The names under which a page's headings can be linked, as GitHub makes them of their words."""
    headings = re.findall(r"^#+ (.+)$", without_code(document.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


def without_code(text: str) -> str:
    """What is read as text: a `#` in a block of commands begins no heading, and `[a](b)` there is no link."""
    return re.sub(r"^```.*?^```$|^    .*?$", "", text, flags=re.MULTILINE | re.DOTALL)


def links(document: Path) -> Iterator[tuple[str, str]]:
    """Where a page leads within the project: a path, empty for the page itself, and an anchor, if any."""
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(document.read_text())):
        if not re.match(r"[a-z]+:", target):
            path, _, anchor = target.partition("#")
            yield path, anchor


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_link_leads_nowhere(document: Path):
    """Files that are linked are there, and so are the headings that an anchor names."""
    dead = []
    for path, anchor in links(document):
        target = (document.parent / path) if path else document
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(f"{path}#{anchor}")

    assert dead == []


def test_a_dead_link_would_be_found(tmp_path: Path):
    """The reading itself works: headings become anchors, code is no text, links of the web are left alone."""
    page = tmp_path / "page.md"
    page.write_text(
        "# The API\n## Keys, & tenants\n    # no heading\n```\n# none\n[x](y)\n```\n"
        "[a](#the-api) [b](other.md#there) [c](https://example.com/x#y)\n"
    )

    assert anchors(page) == {"the-api", "keys--tenants"}
    assert list(links(page)) == [("", "the-api"), ("other.md", "there")]
