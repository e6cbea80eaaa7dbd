"""The kinds of values that commands take, checked before anything is opened."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self

import click
from attrs import frozen

from gateway.accounting import MAX_TOKENS
from gateway.config import MAX_RETENTION_DAYS
from gateway.formats.durations import seconds_of
from gateway.model import Network
from gateway.rules import access, keys, model_names, names
from gateway.rules.addresses import networks_of
from gateway.rules.windows import zone_of

_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_MAX_LIFETIME: Final = timedelta(days=36_525)
# More than any number in range has, and less than Python refuses to read.
_MAX_NUMBER_CHARACTERS: Final = 100


class Name(click.ParamType[str]):
    """A name that a tenant or key may have."""

    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        complaint = names.complaint_about(value)
        if complaint is not None:
            self.fail(complaint, param, ctx)
        return str(value)


class Prefix(click.ParamType[str]):
    """A key's public prefix. A whole key is refused without being repeated: it does not belong in a log."""

    name = "prefix"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not keys.is_prefix(value):
            self.fail("expected the public prefix of a key, 11 characters such as nz_abc12345.", param, ctx)
        return str(value)


class Bound(click.ParamType[int | None]):
    """A number of requests or tokens, or `none`, which is None."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        try:
            return bound(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Days(click.ParamType[int | None]):
    """A number of days, or `default`, which is None."""

    name = "days"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        if value is None or value == "default":
            return None
        text = str(value).removesuffix("d")
        if not (text.isascii() and text.isdecimal() and 1 <= int(text[:9]) <= MAX_RETENTION_DAYS):
            self.fail(f"expected days, 1 to {MAX_RETENTION_DAYS}, or `default`.", param, ctx)
        return int(text)


class Cap(click.ParamType[int | None]):
    """A number of tokens above 0, or `none`, which is None."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        try:
            cap = bound(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if cap == 0:
            self.fail("expected at least 1, or `none`; `--rpm 0` denies all requests.", param, ctx)
        return cap


class Models(click.ParamType[tuple[str, ...] | None]):
    """Names and patterns of models, in canonical form, or `none`, which is None."""

    name = "patterns"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...] | None:
        try:
            return None if value == "none" else access.patterns_of(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class ModelName(click.ParamType[str]):
    """A model's name, in any of its spellings; kept as it is written."""

    name = "model"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if model_names.canonical(value) is None:
            self.fail(f"{value!a} is no name of a model.", param, ctx)
        return str(value).strip()


class Option(click.ParamType[tuple[str, Any]]):
    """NAME=VALUE, the value a number, true, false or a text."""

    name = "option"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, Any]:
        name, equal, text = value.partition("=")
        if not equal or not name.strip() or not text.strip():
            self.fail("expected NAME=VALUE, such as num_ctx=32768.", param, ctx)
        try:
            return name.strip(), json.loads(text)
        except ValueError:
            return name.strip(), text


class Duration(click.ParamType[float]):
    """Seconds, or a duration such as 90s, 30m, 1h30m: above 0."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds = float(value) if re.fullmatch(r"[0-9]{1,9}", value) else seconds_of(value)
        if not seconds or seconds <= 0:
            self.fail("expected seconds above 0, or a duration such as 90s, 30m or 24h.", param, ctx)
        return seconds


class Zone(click.ParamType[str]):
    """A time zone by its IANA name."""

    name = "zone"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            # The sentence repeats what was written: nothing that a terminal would obey.
            zone_of(value if value.isprintable() else ascii(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return str(value)


# When something ends, by what time it is: both seconds since the epoch; None for never.
Ending = Callable[[float], float | None]


class Moment(click.ParamType[Ending]):
    """A time to come: a duration (90m, 12h, 30d, 4w) or an ISO date; or `none`, where that may be said.

    A duration is counted from the time by the database's clock, which is not known yet.
    """

    name = "when"

    def __init__(self, *, or_none: bool = False) -> None:
        self._or_none = or_none

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Ending:
        if callable(value):
            return value  # type: ignore[no-any-return]
        if value == "none" and self._or_none:
            return lambda _: None
        now = datetime.now(UTC)
        try:
            meant = moment(value, now)
        except (ValueError, OverflowError) as error:
            self.fail(str(error), param, ctx)
        if _duration(value) is None:
            return lambda _: meant.timestamp()
        return lambda current: current + (meant - now).total_seconds()


class Zoneless(float):
    """A date or time that was given without a zone: as that of UTC, until it is known whose is meant."""

    wall: datetime

    @classmethod
    def of(cls, wall: datetime) -> Self:
        made = cls(wall.replace(tzinfo=UTC).timestamp())
        made.wall = wall.replace(tzinfo=None)
        return made


def in_zone(moment: float, zone: str) -> float:
    """A moment; of what was given without a zone, that of this one."""
    return moment.wall.replace(tzinfo=zone_of(zone)).timestamp() if isinstance(moment, Zoneless) else moment


class Past(click.ParamType[float]):
    """A time gone by: so long ago (90m, 12h, 30d, 4w), or an ISO date. Seconds since the epoch.

    An ISO date without a zone is Zoneless, and of UTC where nobody asks `in_zone`.
    """

    name = "when"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        now = datetime.now(UTC)
        try:
            ago = _duration(value)
            if ago is not None:
                return (now - ago).timestamp()
            return _parsed(value).timestamp() if _has_zone(value) else Zoneless.of(_parsed(value))
        except (ValueError, OverflowError) as error:
            self.fail(f"{error}", param, ctx)


class Grace(click.ParamType[float]):
    """A duration, or 0. Seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        grace = timedelta(0) if value == "0" else _duration(value)
        if grace is None or grace > _MAX_LIFETIME:
            self.fail(f"'{value}' is no duration such as 30m, 24h or 7d, and not 0.", param, ctx)
        return grace.total_seconds()


@frozen
class Keeping:
    """For how many seconds something is kept; None: not at all."""

    seconds: int | None


class LogPrompts(click.ParamType[Keeping]):
    """A duration from a minute to a year, or `off`."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Keeping:
        if isinstance(value, Keeping):
            return value
        if value == "off":
            return Keeping(None)
        span = _duration(value)
        if span is None or not timedelta(minutes=1) <= span <= timedelta(days=366):
            self.fail(
                f"{value!a} is no duration from 1m to 366d, such as 12h or 7d, and not `off`.", param, ctx
            )
        return Keeping(round(span.total_seconds()))


class Networks(click.ParamType[tuple[Network, ...]]):
    """A comma list of networks and addresses, or `none`, which is an empty one."""

    name = "network"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[Network, ...]:
        if isinstance(value, tuple):
            return value
        try:
            return () if value == "none" else networks_of(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Statuses(click.ParamType[tuple[int, int]]):
    """One status of HTTP, or a class of them: from the least to the most."""

    name = "status"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        if not re.fullmatch("[1-5]([0-9][0-9]|xx)", value, re.ASCII):
            self.fail(
                f"{value!a} is no status such as 200 or 429, and no class of them such as 4xx.", param, ctx
            )
        return int(value.replace("x", "0")), int(value.replace("x", "9"))


def bound(text: str) -> int | None:
    """The number that a text means, None for `none`. Raises ValueError, with a sentence."""
    if text == "none":
        return None
    is_number = re.fullmatch(r"[0-9]+(_[0-9]+)*", text, re.ASCII) and len(text) <= _MAX_NUMBER_CHARACTERS
    if not is_number or int(text) > MAX_TOKENS:
        raise ValueError(
            f"expected a whole number from 0 to {MAX_TOKENS:_}, such as 60 or 1_000_000, or `none`."
        )
    return int(text)


def span(seconds: int) -> str:
    """As `_duration` reads it, in the largest unit that is whole: 604800 → 7d."""
    for unit, of_one in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds % of_one == 0:
            return f"{seconds // of_one}{unit}"
    return f"{seconds}s"


def moment(text: str, now: datetime) -> datetime:
    """The moment that a text means. A date is its first second, and without a zone UTC.

    Raises ValueError, with a sentence, for what is no moment, is past, or is over a century away.
    """
    duration = _duration(text)
    lifetime = _parsed(text) - now if duration is None else duration
    if not timedelta(0) < lifetime <= _MAX_LIFETIME:
        raise ValueError(f"'{text}' is not in the future, or more than a century away.")
    return now + lifetime


def _duration(text: str) -> timedelta | None:
    found = re.fullmatch(r"([0-9]{1,8})([mhdw])", text)
    return timedelta(**{_UNITS[found[2]]: int(found[1])}) if found else None


def _has_zone(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


def _parsed(text: str) -> datetime:
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f"'{text}' is no time; expected a duration such as 12h or 30d, or a date such as 2027-01-31."
        ) from None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
