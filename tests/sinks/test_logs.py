"""Our log: one JSON object a line, with allowed fields only."""

import atexit
import io
import json
import os
from collections.abc import Callable
from threading import Thread
from typing import Any

import pytest
from loguru import logger

from gateway.rules.audit import row_of
from gateway.sinks import logs
from gateway.sinks.line_writer import MAX_LINES
from gateway.sinks.logs import RequestLog, configure
from tests.asgi import exchange


@pytest.fixture
def log():
    stream = io.BytesIO()
    configure("INFO", stream)
    yield stream
    logger.remove()


def lines(stream: io.BytesIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_request_is_one_line(log: io.BytesIO):
    RequestLog().record(row_of(exchange(status=200, user_agent="curl\n\x1b"), ended=100.0))

    (line,) = lines(log)
    assert line["message"] == "request"
    assert line["request"]["path"] == "/api/chat"
    assert line["request"]["user_agent"] == "curl��"


def test_fields_that_are_not_allowed_do_not_reach_the_log(log: io.BytesIO):
    logger.bind(request_id="r1", prompt="canary").warning("something")

    (line,) = lines(log)
    assert line["request_id"] == "r1"
    assert b"canary" not in log.getvalue()


def test_an_exception_is_told_by_type_and_place_only(log: io.BytesIO):
    """Its text and the values around it may hold a prompt or a key."""
    canary = "canary"
    try:
        raise ValueError(canary)
    except ValueError:
        logger.exception("unhandled error")

    (line,) = lines(log)
    assert line["exception"][0] == "ValueError"
    assert "test_logs.py" in line["exception"][1]
    assert b"canary" not in log.getvalue()


def test_the_level_decides(log: io.BytesIO):
    logger.debug("not shown")

    assert lines(log) == []


def test_whoever_logs_does_not_wait_for_whoever_reads(monkeypatch: pytest.MonkeyPatch):
    """Standard error is a pipe that nobody reads: what does not fit is lost, and that is told later."""
    read_end, write_end = os.pipe()
    monkeypatch.setattr(logs, "_STANDARD_ERROR", write_end)
    closers: list[Callable[[], None]] = []
    monkeypatch.setattr(atexit, "register", closers.append)
    configure("INFO")
    try:
        for _ in range(MAX_LINES + 3000):
            logger.info("x" * 100)
        reader = os.fdopen(read_end, "rb")
        read = Thread(target=lambda: told.extend(reader), daemon=True)
        told: list[bytes] = []
        read.start()
        closers[0]()
    finally:
        logger.remove()
        os.close(write_end)
    read.join(30)
    reader.close()

    lost = [line for line in map(json.loads, told) if line["message"].startswith("lines of this log")]
    assert len(told) - len(lost) + sum(line["rows"] for line in lost) == MAX_LINES + 3000
    assert lost
