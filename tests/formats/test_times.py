"""gateway.formats.times: dates on the wire."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.formats.times import epoch_of, rfc3339


@given(st.integers(0, 4_000_000_000))
def test_a_second_is_written_and_read_back(second):
    """Whole seconds are exact."""
    assert epoch_of(rfc3339(second)) == second


@pytest.mark.parametrize(
    ("text", "epoch_s"),
    [
        ("2026-11-23T08:16:03Z", 1_795_421_763),
        ("2026-11-23T08:16:03.565756048Z", 1_795_421_763.565756),
        ("2026-11-23T09:16:03.5+01:00", 1_795_421_763.5),
        ("2026-11-23T08:16:03", 1_795_421_763),
        ("", None),
        ("yesterday", None),
        ("0001-01-01T00:00:00Z", -62_135_596_800),
        # In UTC these are in the year 0 and in the year 10000.
        ("0001-01-01T00:00:00+23:59", None),
        ("9999-12-31T23:59:59-23:59", None),
    ],
)
def test_dates_of_backends_are_read(text, epoch_s):
    """Nine digits, offsets and none at all; Go's zero date too."""
    assert epoch_of(text) == epoch_s


def test_a_date_is_written_in_utc():
    """ollama-python wants a valid date, and Ollama writes Z."""
    assert rfc3339(1_795_421_763.565756) == "2026-11-23T08:16:03.565756Z"


def test_an_early_date_has_four_digits_of_year():
    """Go's zero date must come out valid as well."""
    assert epoch_of(rfc3339(-62_135_596_800)) == -62_135_596_800
