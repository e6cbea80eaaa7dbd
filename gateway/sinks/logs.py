"""Our log: one JSON object a line on standard error, allowed fields only, nothing of the payload."""

import sys
from datetime import UTC
from typing import TYPE_CHECKING, Final, TextIO

import orjson
from attrs import asdict
from loguru import logger

from gateway.model import AuditRow

if TYPE_CHECKING:
    from loguru import Message

# What else a log call may bind: anything not named here does not reach the log.
_EXTRA: Final = frozenset({"request_id", "backend", "models", "addresses", "rows", "in_flight", "request"})


def configure(level: str, stream: TextIO | None = None) -> None:
    """Send all of our log to `stream` (standard error) as JSON lines. Levels: DEBUG, INFO, WARNING, ERROR."""
    target = stream or sys.stderr

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
        target.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE, default=str).decode())
        target.flush()

    logger.remove()
    # diagnose would print the values of local variables: keys and prompts among them.
    logger.add(write, level=level, format="{message}", diagnose=False, backtrace=False)


class RequestLog:
    """A line for each finished request: the audit row, which is metadata only."""

    is_full = False

    def record(self, row: AuditRow) -> None:
        logger.bind(request=asdict(row, filter=_is_known)).info("request")


def _is_known(_: object, value: object) -> bool:
    return value is not None


def _trace(kind: type[BaseException] | None, traceback: object) -> list[str]:
    """The exception's type and where it came from: file, line and function, but not its text or any value."""
    frames = [kind.__name__ if kind else "unknown"]
    while traceback is not None:
        code = traceback.tb_frame.f_code  # type: ignore[attr-defined]
        frames.append(f"{code.co_filename}:{traceback.tb_lineno} {code.co_name}")  # type: ignore[attr-defined]
        traceback = traceback.tb_next  # type: ignore[attr-defined]
    return frames
