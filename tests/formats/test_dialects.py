"""gateway.formats.dialects: one error, three dialects."""

import inspect
import json

import pytest

from gateway import errors
from gateway.errors import (
    BackendTimeout,
    ContextLengthExceeded,
    GatewayError,
    InvalidRequest,
    ModelNotFound,
    Unauthenticated,
)
from gateway.formats.dialects import render
from gateway.model import Surface

RENDERED = [
    pytest.param(
        InvalidRequest("'stream' must be true or false.", param="stream"),
        ("invalid_request_error", "stream", "invalid_request"),
        "invalid_request_error",
        id="400",
    ),
    pytest.param(
        ContextLengthExceeded("Too long.", param="messages"),
        ("invalid_request_error", "messages", "context_length_exceeded"),
        "invalid_request_error",
        id="400 context",
    ),
    pytest.param(
        Unauthenticated(),
        ("invalid_request_error", None, "invalid_api_key"),
        "authentication_error",
        id="401",
    ),
    pytest.param(
        errors.MutationBlocked(),
        ("invalid_request_error", None, "blocked_mutation"),
        "permission_error",
        id="403",
    ),
    pytest.param(
        ModelNotFound("tiny"),
        ("invalid_request_error", "model", "model_not_found"),
        "not_found_error",
        id="404 model",
    ),
    pytest.param(
        errors.BodyTooLarge(20),
        ("invalid_request_error", None, "request_too_large"),
        "request_too_large",
        id="413",
    ),
    pytest.param(
        errors.RequestTooExpensive("Too much."),
        ("invalid_request_error", None, "request_too_expensive"),
        "invalid_request_error",
        id="400 too expensive",
    ),
    pytest.param(
        errors.RateLimited("Slow down.", retry_after_s=12),
        ("requests", None, "rate_limit_exceeded"),
        "rate_limit_error",
        id="429 requests",
    ),
    pytest.param(
        errors.RateLimited("Slow down.", retry_after_s=12, unit="tokens"),
        ("tokens", None, "rate_limit_exceeded"),
        "rate_limit_error",
        id="429 tokens",
    ),
    pytest.param(
        errors.InsufficientQuota("All gone.", retry_after_s=3600),
        ("insufficient_quota", None, "insufficient_quota"),
        "rate_limit_error",
        id="429 quota",
    ),
    pytest.param(
        errors.BackendFailed("It broke."), ("server_error", None, "backend_failed"), "api_error", id="502"
    ),
    pytest.param(errors.Draining(), ("server_error", None, "draining"), "overloaded_error", id="503"),
    pytest.param(
        BackendTimeout("It slept."), ("server_error", None, "backend_timeout"), "timeout_error", id="504"
    ),
]


@pytest.mark.parametrize(("error", "openai", "anthropic"), RENDERED)
def test_an_error_speaks_the_callers_dialect(error, openai, anthropic):
    """The types and codes are those that the official clients choose their exceptions and retries by."""
    kind, param, code = openai

    assert json.loads(render(error, Surface.OPENAI, "req-1")) == {
        "error": {"message": error.sentence, "type": kind, "param": param, "code": code}
    }
    assert json.loads(render(error, Surface.OLLAMA, "req-1")) == {"error": error.sentence}
    assert json.loads(render(error, Surface.ANTHROPIC, "req-1")) == {
        "type": "error",
        "error": {"type": anthropic, "message": error.sentence},
        "request_id": "req-1",
    }


@pytest.mark.parametrize("surface", Surface)
def test_an_error_is_one_bounded_line_of_ascii(surface):
    """Ollama's own client reads errors line by line; and a model's name may be anything."""
    body = render(ModelNotFound("ü\n\u2028" * 10_000), surface, "req-1")

    assert body.isascii()
    assert b"\n" not in body
    assert len(body) < 7_000


@pytest.mark.parametrize(
    "kind",
    [
        kind
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, GatewayError) and kind is not Unauthenticated
    ],
)
@pytest.mark.parametrize("surface", Surface)
def test_every_error_has_a_shape_in_every_dialect(kind, surface):
    """Whoever adds an error need not think of dialects."""
    error = kind.__new__(kind)
    GatewayError.__init__(error, "What happened.")

    assert "What happened." in render(error, surface, "req-1").decode()


@pytest.mark.parametrize("surface", Surface)
def test_a_wrong_key_is_told_the_one_sentence(surface):
    """It is written once; where it names the request, once for each."""
    told = [json.loads(render(Unauthenticated(), surface, request_id)) for request_id in ("req-1", "req-2")]

    shaped = [one["error"] if surface is Surface.OLLAMA else one["error"]["message"] for one in told]
    assert shaped == [Unauthenticated().sentence] * 2
    assert [one.get("request_id") for one in told] == (
        ["req-1", "req-2"] if surface is Surface.ANTHROPIC else [None, None]
    )


@pytest.mark.parametrize(
    ("error", "headers"),
    [
        pytest.param(
            errors.RateLimited("Slow down.", retry_after_s=12), [(b"retry-after", b"12")], id="a rate: later"
        ),
        pytest.param(
            errors.RateLimited("Never.", retry_after_s=86_400, may_retry=False),
            [(b"retry-after", b"86400"), (b"x-should-retry", b"false")],
            id="a limit of 0: not by itself",
        ),
        pytest.param(
            errors.InsufficientQuota("All gone.", retry_after_s=3600),
            [(b"retry-after", b"3600"), (b"x-should-retry", b"false")],
            id="a budget: not by itself",
        ),
        pytest.param(errors.RequestTooExpensive("Too much."), [], id="too much: never"),
    ],
)
def test_a_refusal_tells_clients_whether_and_when_to_try_again(error, headers):
    """OpenAI's clients wait as long as Retry-After says, unless x-should-retry forbids it."""
    assert error.headers() == headers
