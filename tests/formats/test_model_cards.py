"""gateway.formats.model_cards: what both protocols' lists of models have in common."""

from gateway.formats.model_cards import details
from tests.formats.samples import NO_DETAILS


def test_details_always_have_six_keys():
    """Whatever a backend says."""
    assert details(None) == details([]) == details({"families": [1], "family": 2, "other": "x"}) == NO_DETAILS
