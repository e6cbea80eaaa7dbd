"""Our log: one JSON object a line on standard error, allowed fields only, nothing of the payload."""

import atexit
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, BinaryIO, Final

import orjson
from attrs import define
from loguru import logger

from gateway.model import AuditRow
from gateway.sinks.line_writer import LineWriter

if TYPE_CHECKING:
    from loguru import Message

# What else a log call may bind: anything not named here does not reach the log.
_EXTRA: Final = frozenset(
    {
        "request_id",
        "backend",
        "models",
        "addresses",
        "rows",
        "in_flight",
        "request",
        "added",
        "removed",
        "changed",
    }
)


_STANDARD_ERROR: Final = 2


@define
class _Destination:
    """Where lines go, as `configure` has said: one for the process, as loguru's are. None: nowhere."""

    put: Callable[[bytes], object] | None = None


_of_requests: Final = _Destination()


def configure(level: str, stream: BinaryIO | None = None) -> None:
    """Send all of our log to `stream` as JSON lines. Levels: DEBUG, INFO, WARNING, ERROR.

    Without a stream to standard error, by a thread of its own: whoever logs never waits for whoever reads.
    """
    put = stream.write if stream is not None else _standard_error()
    _of_requests.put = put if logger.level(level).no <= logger.level("INFO").no else None

    def write(message: "Message") -> None:
        record = message.record
        line = {
            "time": record["time"].astimezone(UTC).isoformat(timespec="milliseconds"),
            "level": record["level"].name,
            "message": record["message"],
            **{name: value for name, value in record["extra"].items() if name in _EXTRA},
        }
        if record["exception"] is not None:
            line["exception"] = _trace(record["exception"].type, record["exception"].traceback)
        put(_encoded(line))

    logger.remove()
    # diagnose would print the values of local variables: keys and prompts among them.
    logger.add(write, level=level, format="{message}", diagnose=False, backtrace=False)


def _standard_error() -> Callable[[bytes], None]:
    writer = LineWriter(_STANDARD_ERROR, _lost)
    atexit.register(writer.close)
    return writer.put


def _lost(lines: int) -> bytes:
    told = "lines of this log are lost: nobody read them in time"
    return _encoded({"time": _now(), "level": "WARNING", "message": told, "rows": lines})


def _now() -> str:
    """In UTC, to the millisecond."""
    second, millisecond = divmod(time.time_ns() // 1_000_000, 1000)
    return f"{_told_second(second)}.{millisecond:03}+00:00"


# Many lines are of one second.
@lru_cache(maxsize=1)
def _told_second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _encoded(line: Mapping[str, object]) -> bytes:
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE, default=str)


class RequestLog:
    """A line for each finished request: the audit row, which is metadata only.

    Written past loguru, which would cost several times as much: the fields are ours, nothing was raised.
    """

    is_full = False

    def record(self, row: AuditRow) -> None:
        if _of_requests.put is None:
            return
        known = {name: value for name, value in vars(row).items() if value is not None}
        line = {"time": _now(), "level": "INFO", "message": "request", "request": known}
        _of_requests.put(_encoded(line))


def _trace(kind: type[BaseException] | None, traceback: object) -> list[str]:
    """The exception's type and where it came from: file, line and function, but not its text or any value."""
    frames = [kind.__name__ if kind else "unknown"]
    while traceback is not None:
        code = traceback.tb_frame.f_code  # type: ignore[attr-defined]
        frames.append(f"{code.co_filename}:{traceback.tb_lineno} {code.co_name}")  # type: ignore[attr-defined]
        traceback = traceback.tb_next  # type: ignore[attr-defined]
    return frames
