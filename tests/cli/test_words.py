"""The moments and numbers that people write."""

from datetime import UTC, datetime, timedelta

import pytest

from gateway.accounting import MAX_TOKENS
from gateway.cli.words import bound, moment

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("90m", NOW + timedelta(minutes=90)),
        ("12h", NOW + timedelta(hours=12)),
        ("30d", NOW + timedelta(days=30)),
        ("4w", NOW + timedelta(weeks=4)),
        ("2027-01-31", datetime(2027, 1, 31, tzinfo=UTC)),
        ("2027-01-31T18:30", datetime(2027, 1, 31, 18, 30, tzinfo=UTC)),
        ("2027-01-31T18:30+02:00", datetime(2027, 1, 31, 16, 30, tzinfo=UTC)),
        ("2027-01-31T18:30:00Z", datetime(2027, 1, 31, 18, 30, tzinfo=UTC)),
    ],
)
def test_durations_and_dates_are_moments(text, meant):
    """Without a zone it is UTC; a date is its first second."""
    assert moment(text, NOW) == meant


@pytest.mark.parametrize("text", ["", "12", "h", "1y", "tomorrow", "2027-13-01", "٣d"])
def test_what_is_no_moment_is_told_with_examples(text):
    """Both ways to write one."""
    with pytest.raises(
        ValueError, match="is no time; expected a duration such as 12h or 30d, or a date such as"
    ):
        moment(text, NOW)


@pytest.mark.parametrize("text", ["0h", "2026-11-23", "99999999w", "9999-12-31", "0001-01-01"])
def test_what_is_past_or_absurdly_far_is_told(text):
    """Most likely a slip."""
    with pytest.raises(ValueError, match="is not in the future, or more than a century away"):
        moment(text, NOW)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("0", 0),
        ("60", 60),
        ("007", 7),
        ("1_000_000", 1_000_000),
        ("9_007_199_254_740_991", MAX_TOKENS),
        ("none", None),
    ],
)
def test_bounds_are_whole_numbers_or_none(text, meant):
    """With underscores between digits, as programmers write them."""
    assert bound(text) == meant


@pytest.mark.parametrize(
    "text",
    [
        *("", "-1", "+1", "1.5", "1e6", "10k", "1,000", "_1", "1__0", "1_", " 1", "1\n", "١", "None"),
        "9007199254740992",
        pytest.param("9" * 5000, id="more digits than Python reads"),
    ],
)
def test_what_is_no_bound_is_told_with_the_range(text):
    """The largest is what a double still counts to."""
    with pytest.raises(ValueError, match="expected a whole number from 0 to 9_007_199_254_740_991, such as"):
        bound(text)
