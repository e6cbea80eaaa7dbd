"""Names of tenants and keys."""

import pytest

from gateway.rules.names import complaint_about, folded


@pytest.mark.parametrize("name", ["a", "acme", "prod server 1", "Ärzte ohne Grenzen", "東京", "x" * 64])
def test_a_good_name_draws_no_complaint(name):
    """Any script, spaces inside, up to 64 characters."""
    assert complaint_about(name) is None


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("", "A name has 1 to 64 characters; this one has 0."),
        ("x" * 65, "A name has 1 to 64 characters; this one has 65."),
        (" acme", "A name neither begins nor ends with a space."),
        ("acme ", "A name neither begins nor ends with a space."),
        *(
            (name, "A name has printable characters only: no line ends, tabs or other control characters.")
            for name in ("a\nb", "a\tb", "a\x1b[31mb", "a\u202eb", "a\x00", "\ud800")
        ),
    ],
    ids=ascii,
)
def test_a_bad_name_draws_a_sentence(name, complaint):
    """What could forge a line of a table or a log is refused, right-to-left overrides included."""
    assert complaint_about(name) == complaint


def test_names_are_the_same_whatever_their_case_and_width():
    """Beyond ASCII too, which SQLite's NOCASE would not see."""
    assert len({folded(name) for name in ("Ärzte", "ÄRZTE", "ärzte", "A\u0308rzte", "ａ\u0308rzte")}) == 1
    assert folded("acme") != folded("acmf")
