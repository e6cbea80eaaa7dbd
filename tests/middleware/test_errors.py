"""Errors: one place renders, in the caller's dialect, with what belongs to the outcome."""

import json

import pytest
from loguru import logger

from gateway.errors import (
    ClientLeft,
    Draining,
    InvalidRequest,
    LimitsUnavailable,
    MethodNotAllowed,
    RateLimited,
    StoreUnavailable,
    Unauthenticated,
)
from gateway.middleware.context import open_exchange
from gateway.middleware.errors import Errors
from tests.asgi import Answered, call, exchange, nobody, scope_of


async def told(error: Exception, path: str = "/api/chat", chance: float = 0.0) -> Answered:
    async def app(scope, receive, send):
        raise error

    scope = scope_of("POST", path)
    open_exchange(scope, exchange(path=path))
    return await call(Errors(app, chance=lambda: chance), scope=scope)


async def test_ollama_callers_are_told_in_a_string():
    answered = await told(InvalidRequest("'model' must be given.", param="model"))

    assert (answered.status, answered.json()) == (400, {"error": "'model' must be given."})
    assert answered.headers["content-type"] == "application/json"


async def test_openai_callers_are_told_in_an_object():
    answered = await told(InvalidRequest("'model' must be given.", param="model"), "/v1/chat/completions")

    assert answered.json()["error"]["param"] == "model"
    assert answered.json()["error"]["message"] == "'model' must be given."


@pytest.mark.parametrize(
    ("error", "name", "value"),
    [
        (Unauthenticated(), "www-authenticate", "Bearer"),
        (MethodNotAllowed("GET, HEAD"), "allow", "GET, HEAD"),
        (Draining(), "retry-after", "5"),
    ],
)
async def test_headers_belong_to_the_outcome(error: Exception, name: str, value: str):
    assert (await told(error)).headers[name] == value


@pytest.mark.parametrize(
    ("error", "waits"),
    [
        (Draining(), ["5", "7", "8", "10"]),
        (StoreUnavailable(), ["5", "7", "8", "10"]),
        (LimitsUnavailable(), ["2", "3", "3", "4"]),
        (RateLimited("Slow down.", retry_after_s=5), ["5", "5", "5", "5"]),
    ],
    ids=["draining", "no-store", "no-limits", "a-limit"],
)
async def test_who_is_refused_by_one_outage_does_not_come_back_in_one_second(
    error: Exception, waits: list[str]
):
    """SPEC 3: of a 503. Never sooner, nor later than twice as long; what a limit says is exact."""
    told_waits = [
        (await told(error, chance=chance)).headers["retry-after"] for chance in (0.0, 0.34, 0.5, 0.999)
    ]

    assert told_waits == waits


async def test_a_defect_of_ours_is_a_503_without_details():
    """SPEC 3: never 500. The log has where it happened, the caller only the request id."""
    lines: list[str] = []
    handler = logger.add(lines.append, format="{message} {extra}")

    answered = await told(ZeroDivisionError("secret detail"))

    logger.remove(handler)
    assert answered.status == 503
    assert "secret detail" not in answered.body.decode()
    assert "retry-after" in answered.headers
    assert "r1" in "".join(lines)


async def test_after_the_first_byte_only_the_cut_can_tell():
    """The server aborts the connection when the app raises in mid-answer."""

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise ZeroDivisionError

    scope = scope_of()
    started = exchange()
    open_exchange(scope, started)

    async def send(message):
        started.status = message["status"]

    with pytest.raises(ZeroDivisionError):
        await Errors(app, chance=float)(scope, nobody, send)


async def test_a_client_that_left_is_told_nothing():
    async def app(scope, receive, send):
        raise ClientLeft

    scope = scope_of()
    open_exchange(scope, exchange())

    with pytest.raises(ClientLeft):
        await Errors(app, chance=float)(scope, nobody, nobody)


async def test_every_error_is_one_line_of_ascii_json():
    """The Ollama CLI reads errors of streaming calls line by line."""
    answered = await told(InvalidRequest("'modèle'\n is odd"))

    assert answered.body.isascii()
    assert b"\n" not in answered.body.rstrip(b"\n")
    assert json.loads(answered.body)


async def test_a_defect_in_a_layer_that_only_decides_is_told_alike():
    def broken(*_):
        raise ZeroDivisionError

    scope = scope_of()
    open_exchange(scope, exchange())

    assert (await call(Errors(broken, chance=float), scope=scope)).status == 503
