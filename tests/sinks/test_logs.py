"""Our log: one JSON object a line, with allowed fields only."""

import io
import json
from typing import Any

import pytest
from loguru import logger

from gateway.rules.audit import row_of
from gateway.sinks.logs import RequestLog, configure
from tests.asgi import exchange


@pytest.fixture
def log():
    stream = io.StringIO()
    configure("INFO", stream)
    yield stream
    logger.remove()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_request_is_one_line(log: io.StringIO):
    RequestLog().record(row_of(exchange(status=200, user_agent="curl\n\x1b"), ended=100.0))

    (line,) = lines(log)
    assert line["message"] == "request"
    assert line["request"]["path"] == "/api/chat"
    assert line["request"]["user_agent"] == "curl��"


def test_fields_that_are_not_allowed_do_not_reach_the_log(log: io.StringIO):
    logger.bind(request_id="r1", prompt="canary").warning("something")

    (line,) = lines(log)
    assert line["request_id"] == "r1"
    assert "canary" not in log.getvalue()


def test_an_exception_is_told_by_type_and_place_only(log: io.StringIO):
    """Its text and the values around it may hold a prompt or a key."""
    canary = "canary"
    try:
        raise ValueError(canary)
    except ValueError:
        logger.exception("unhandled error")

    (line,) = lines(log)
    assert line["exception"][0] == "ValueError"
    assert "test_logs.py" in line["exception"][1]
    assert "canary" not in log.getvalue()


def test_the_level_decides(log: io.StringIO):
    logger.debug("not shown")

    assert lines(log) == []
