"""Windows of budgets: days and months in a tenant's time zone, whatever its clocks do."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.accounting import Period, Window
from gateway.rules.windows import periods, zone_of


def epoch(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@pytest.mark.parametrize(
    ("zone", "now", "turns"),
    [
        pytest.param(
            "UTC",
            "2026-11-23T16:20:00Z",
            ("2026-11-23", "2026-11-24T00:00:00Z", "2026-11-24", "2026-11-25T00:00:00Z"),
            id="an ordinary day",
        ),
        pytest.param(
            "UTC",
            "2026-11-24T00:00:00Z",
            ("2026-11-24", "2026-11-25T00:00:00Z", "2026-11-25", "2026-11-26T00:00:00Z"),
            id="midnight begins the new day",
        ),
        pytest.param(
            "Europe/Berlin",
            "2026-11-23T23:30:00Z",
            ("2026-11-24", "2026-11-24T23:00:00Z", "2026-11-25", "2026-11-25T23:00:00Z"),
            id="tomorrow already, east of Greenwich",
        ),
        pytest.param(
            "America/Los_Angeles",
            "2026-11-23T07:59:59Z",
            ("2026-11-22", "2026-11-23T08:00:00Z", "2026-11-23", "2026-11-24T08:00:00Z"),
            id="yesterday still, west of it",
        ),
        pytest.param(
            "Europe/Berlin",
            "2026-03-29T10:00:00Z",
            ("2026-03-29", "2026-03-29T22:00:00Z", "2026-03-30", "2026-03-30T22:00:00Z"),
            id="23 hours, from 23:00Z",
        ),
        pytest.param(
            "Europe/Berlin",
            "2026-10-24T22:00:00Z",
            ("2026-10-25", "2026-10-25T23:00:00Z", "2026-10-26", "2026-10-26T23:00:00Z"),
            id="25 hours, from 22:00Z",
        ),
        pytest.param(
            "Africa/Cairo",
            "2024-04-25T12:00:00Z",
            ("2024-04-25", "2024-04-25T22:00:00Z", "2024-04-26", "2024-04-26T21:00:00Z"),
            id="a day whose midnight does not exist",
        ),
        pytest.param(
            "America/Havana",
            "2026-11-01T04:30:00Z",
            ("2026-11-01", "2026-11-02T05:00:00Z", "2026-11-02", "2026-11-03T05:00:00Z"),
            id="a day whose midnight comes twice",
        ),
        pytest.param(
            "America/St_Johns",
            "2010-11-07T03:00:00Z",
            ("2010-11-07", "2010-11-08T03:30:00Z", "2010-11-08", "2010-11-09T03:30:00Z"),
            id="a day that began is not taken back",
        ),
        pytest.param(
            "Pacific/Apia",
            "2011-12-30T09:00:00Z",
            ("2011-12-29", "2011-12-30T10:00:00Z", "2011-12-31", "2011-12-31T10:00:00Z"),
            id="a date that was left out",
        ),
        pytest.param(
            "UTC",
            "2028-02-28T12:00:00Z",
            ("2028-02-28", "2028-02-29T00:00:00Z", "2028-02-29", "2028-03-01T00:00:00Z"),
            id="the leap day is a day",
        ),
        pytest.param(
            "Asia/Kathmandu",
            "2026-12-31T18:14:59Z",
            ("2026-12-31", "2026-12-31T18:15:00Z", "2027-01-01", "2027-01-01T18:15:00Z"),
            id="a year ends at a quarter past",
        ),
    ],
)
def test_a_day_is_the_tenants_own(zone, now, turns):
    """From local midnight to local midnight, however many hours lie between."""
    day, ends_at, next_day, next_ends_at = turns

    assert periods(Window.DAY, epoch(now), zone_of(zone)) == (
        Period(day, epoch(ends_at)),
        Period(next_day, epoch(next_ends_at)),
    )


@pytest.mark.parametrize(
    ("zone", "now", "turns"),
    [
        pytest.param(
            "UTC",
            "2026-11-30T23:59:59Z",
            ("2026-11", "2026-12-01T00:00:00Z", "2026-12", "2027-01-01T00:00:00Z"),
            id="its last second",
        ),
        pytest.param(
            "Europe/Berlin",
            "2026-12-31T23:00:00Z",
            ("2027-01", "2027-01-31T23:00:00Z", "2027-02", "2027-02-28T23:00:00Z"),
            id="new year, an hour before Greenwich",
        ),
        pytest.param(
            "UTC",
            "2028-01-31T12:00:00Z",
            ("2028-01", "2028-02-01T00:00:00Z", "2028-02", "2028-03-01T00:00:00Z"),
            id="the 31st, before a short month",
        ),
        pytest.param(
            "America/New_York",
            "2026-03-01T05:00:00Z",
            ("2026-03", "2026-04-01T04:00:00Z", "2026-04", "2026-05-01T04:00:00Z"),
            id="the clocks change within",
        ),
    ],
)
def test_a_month_is_the_tenants_own(zone, now, turns):
    """From its first local midnight to the next month's."""
    month, ends_at, next_month, next_ends_at = turns

    assert periods(Window.MONTH, epoch(now), zone_of(zone)) == (
        Period(month, epoch(ends_at)),
        Period(next_month, epoch(next_ends_at)),
    )


def test_the_total_never_turns():
    """There is one of it, and no next."""
    assert periods(Window.TOTAL, epoch("2026-11-23T16:20:00Z"), UTC) == (Period("total", None),)


ZONES = [
    *("UTC", "Europe/Berlin", "America/St_Johns", "America/Havana", "America/Nuuk", "America/Toronto"),
    *("Africa/Cairo", "Asia/Kathmandu", "Asia/Beirut", "Australia/Lord_Howe", "Pacific/Apia", "Etc/GMT+12"),
]


@given(
    zone=st.sampled_from(ZONES).map(zone_of),
    window=st.sampled_from([Window.DAY, Window.MONTH]),
    now=st.floats(epoch("1900-01-01T00:00:00Z"), epoch("2199-01-01T00:00:00Z")),
)
def test_turns_follow_each_other_without_gap_or_overlap(zone, window, now):
    """The next turn is current from the moment the current one ends; ids grow, so none comes back."""
    current, following = periods(window, now, zone)

    assert current.ends_at is not None
    assert following.ends_at is not None
    assert now < current.ends_at < following.ends_at
    assert current.id < following.id
    assert periods(window, current.ends_at, zone)[0] == following


@given(
    zone=st.sampled_from(ZONES).map(zone_of),
    times=st.lists(st.floats(epoch("1900-01-01T00:00:00Z"), epoch("2199-01-01T00:00:00Z")), min_size=2),
)
def test_a_later_moment_is_never_in_an_earlier_turn(zone, times):
    """Also where clocks are set back over midnight."""
    for window in (Window.DAY, Window.MONTH):
        ids = [periods(window, now, zone)[0].id for now in sorted(times)]
        assert ids == sorted(ids)


def test_a_day_is_the_date_on_the_wall():
    """Where clocks change as they do today, the id is the local date, every hour of a year."""
    zone, new_year = ZoneInfo("Europe/Berlin"), epoch("2026-01-01T00:00:00Z")
    hours = [new_year + 3600 * hour for hour in range(24 * 366)]

    ids = [periods(Window.DAY, now, zone)[0].id for now in hours]

    assert ids == [f"{datetime.fromtimestamp(now, zone):%Y-%m-%d}" for now in hours]


@pytest.mark.parametrize("name", ["UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "Etc/GMT+5"])
def test_a_zone_is_known_by_its_name(name):
    """As the IANA database writes it."""
    assert str(zone_of(name)) == name


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("Europe/Berln", "There is no time zone 'Europe/Berln'; did you mean 'Europe/Berlin'?"),
        ("europe/berlin", "There is no time zone 'europe/berlin'; did you mean 'Europe/Berlin'?"),
        ("Tokyo", "There is no time zone 'Tokyo'; did you mean 'Asia/Tokyo'?"),
        ("utc", "There is no time zone 'utc'; did you mean 'UTC'?"),
        *(
            (name, f"There is no time zone '{name}': use an IANA name, such as 'UTC' or 'Europe/Berlin'.")
            for name in ("", "\0", "/etc/localtime", "../../etc/passwd", "x" * 64)
        ),
    ],
    ids=ascii,
)
def test_an_unknown_zone_is_refused_with_the_nearest(name, sentence):
    """No file outside the database is opened, whatever the name says."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 — the whole sentence is compared
        zone_of(name)

    assert str(caught.value) == sentence


@pytest.mark.parametrize("name", ["localtime", "Factory", "posixrules", "right/UTC", "posix/UTC", "Europe"])
def test_a_file_that_is_no_zone_is_refused(name):
    """The machine's own setting, placeholders, leap seconds and folders lie beside the zones."""
    with pytest.raises(ValueError, match="There is no time zone"):
        zone_of(name)
