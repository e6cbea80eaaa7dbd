"""Times on the wire: RFC 3339 in UTC ↔ seconds since the epoch."""

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def rfc3339(epoch_s: float) -> str:
    """`2026-11-23T08:16:03.565756Z`: to the microsecond, always with `Z`."""
    moment = _EPOCH + timedelta(seconds=epoch_s)
    return moment.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def epoch_of(text: str) -> float | None:
    """Seconds since the epoch, or None for what is no date. Digits beyond the microsecond are cut."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    # Without an offset it is taken for UTC; astimezone would take it for the server's own time.
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (moment - _EPOCH).total_seconds()
