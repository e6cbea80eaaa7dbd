"""Times on the wire: RFC 3339 in UTC ↔ seconds since the epoch."""

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# The same without its zone, which is written by hand.
_EPOCH_IN_UTC = _EPOCH.replace(tzinfo=None)
_FIRST_S = (datetime.min.replace(tzinfo=UTC) - _EPOCH).total_seconds()
_LAST_S = (datetime.max.replace(microsecond=0, tzinfo=UTC) - _EPOCH).total_seconds()


def rfc3339(epoch_s: float) -> str:
    """`2026-11-23T08:16:03.565756Z`: to the microsecond, always with `Z`."""
    return (_EPOCH_IN_UTC + timedelta(seconds=epoch_s)).isoformat(timespec="microseconds") + "Z"


def is_moment(epoch_s: float) -> bool:
    """Within the years 1 to 9999 in UTC: what `rfc3339` can write."""
    return _FIRST_S <= epoch_s <= _LAST_S


def epoch_of(text: str) -> float | None:
    """Seconds since the epoch, or None for what is no date in UTC. Digits beyond the microsecond are cut."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    # Without an offset it is taken for UTC; astimezone would take it for the server's own time.
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    # An offset may lead out of the years that there are.
    epoch_s = (moment - _EPOCH).total_seconds()
    return epoch_s if is_moment(epoch_s) else None
