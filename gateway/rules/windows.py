"""Windows of budgets: which turn of one a moment falls into, in a tenant's time zone.

A law: at every moment, in every zone, exactly one day and one month are current, and they never come back.
A turn begins at its first local midnight, so a day has 23 or 25 hours where the clocks change.
"""

import difflib
import zoneinfo
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import cache, lru_cache
from math import floor
from typing import Final

from gateway.accounting import Period, Window

# The total never turns.
TOTAL: Final = Period("total", None)

_DAY: Final = timedelta(days=1)
# Zone files that mean a machine's own setting, nothing at all, or a time with leap seconds.
_NO_ZONES: Final = frozenset({"localtime", "posixrules", "Factory"})
_NO_ZONES_BELOW: Final = ("posix/", "right/")


def periods(window: Window, now: float, zone: tzinfo) -> tuple[Period, ...]:
    """The current turn of a window and the next one; the total has only itself.

    `now` is seconds since the epoch. A turn ends where the next begins: at `ends_at` it is over.
    """
    if window is Window.TOTAL:
        return (TOTAL,)
    turns = _turns(window, datetime.fromtimestamp(now, zone).date(), zone)
    ahead = [turn for turn, ends_at in turns if ends_at > now]
    return ahead[0], ahead[1]


def turns_at(now: float, zone: tzinfo) -> tuple[tuple[Period, ...], ...]:
    """`periods` of each window."""
    return _turns_in(floor(now), zone)


# Turns begin and end with whole seconds: within one, all requests of a zone find the same.
@lru_cache(maxsize=1024)
def _turns_in(second: int, zone: tzinfo) -> tuple[tuple[Period, ...], ...]:
    return tuple(periods(window, second, zone) for window in Window)


def zone_of(name: str) -> tzinfo:
    """The time zone of a name of the IANA database, such as `Europe/Berlin`.

    Raise ValueError, with a sentence that has the nearest name, for what is none.
    """
    if name == "UTC":
        return UTC  # known also where no database is installed
    zone = _zone(name)
    if zone is None:
        raise ValueError(f"There is no time zone '{name[:64]}'{_hint(name)}")
    return zone


def _zone(name: str) -> zoneinfo.ZoneInfo | None:
    if name in _NO_ZONES or name.startswith(_NO_ZONES_BELOW):
        return None
    try:
        return zoneinfo.ZoneInfo(name)
    # A folder such as "Europe", and a path that leads elsewhere, are errors of their own.
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return None


def _hint(name: str) -> str:
    names = _names_by_lower_case()
    near = difflib.get_close_matches(name.lower()[:64], names, n=1)
    if not near:
        return ": use an IANA name, such as 'UTC' or 'Europe/Berlin'."
    return f"; did you mean '{names[near[0]]}'?"


@cache
def _names_by_lower_case() -> dict[str, str]:
    """Also by the city alone, as people write it. Costs a tenth of a second, once, and only for a mistake."""
    known = sorted({"UTC", *zoneinfo.available_timezones()} - _NO_ZONES)
    by_city = {name.rpartition("/")[2].lower(): name for name in known if "/" in name}
    return by_city | {name.lower(): name for name in known}


# Asked for by every request, and the same for all of a day.
@lru_cache(maxsize=4096)
def _turns(window: Window, today: date, zone: tzinfo) -> tuple[tuple[Period, float], ...]:
    """The turns around a local date, with their ends: one before, and at least two from it on."""
    # Clocks that are set back over midnight make yesterday's date come twice: begin there.
    day = today - _DAY
    turns: dict[float, Period] = {}
    while len(turns) < 4:
        following = _first_after(window, day)
        ends_at = datetime.combine(following, time.min, zone).timestamp()
        # A date that a zone left out, such as 2011-12-30 in Apia, has no length: the first of an end stays.
        turns.setdefault(ends_at, Period(_id_of(window, day), ends_at))
        day = following
    return tuple((turn, ends_at) for ends_at, turn in turns.items())


def _first_after(window: Window, day: date) -> date:
    """The first date of the next turn."""
    if window is Window.DAY:
        return day + _DAY
    # 32 days after the first of any month are in the next one.
    return (day.replace(day=1) + timedelta(days=32)).replace(day=1)


def _id_of(window: Window, day: date) -> str:
    return day.isoformat() if window is Window.DAY else day.isoformat()[: len("2026-11")]
