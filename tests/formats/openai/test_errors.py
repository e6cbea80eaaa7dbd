"""gateway.formats.openai.errors: what a backend's refusal means for the caller."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import (
    BackendBusy,
    BackendFailed,
    BackendTimeout,
    ContextLengthExceeded,
    GatewayError,
    InvalidRequest,
    ModelNotFound,
)
from gateway.formats.openai.errors import read_error
from tests.formats.recordings import of_llama_cpp

SERVER_FAILED = "The model's server failed."
BUSY = "The model's server is busy or still loading; try again in a few seconds."
SLOW = "The model's server did not answer in time; try again."
SHUT = "The model's server did not let this gateway in; tell the operator."
NO_MODEL = "The model 'x' does not exist or you have no access to it."
TOO_LONG = "The prompt is longer than the model's context; shorten it."


def said(message: str, **more: Any) -> bytes:
    return orjson.dumps({"error": {"message": message, **more}})


@pytest.mark.parametrize(
    ("name", "status", "kind", "sentence"),
    [
        (
            "error_context",
            400,
            ContextLengthExceeded,
            "The prompt is longer than the model's context "
            "(9006 tokens, and the context has 8192); shorten it.",
        ),
        (
            "error_logprobs_tools",
            400,
            InvalidRequest,
            "The model's server refused the request: logprobs is not supported with tools + stream",
        ),
        ("error_not_found", 404, BackendFailed, "The model's server failed: File Not Found"),
    ],
)
def test_errors_of_llama_cpp(name: str, status: int, kind: type[GatewayError], sentence: str) -> None:
    """As they were recorded."""
    error = read_error(status, of_llama_cpp(name))

    assert (type(error), error.sentence) == (kind, sentence)


def test_json_that_llama_cpp_cannot_read_is_no_fault_of_the_caller() -> None:
    """It was written by us."""
    assert type(read_error(400, of_llama_cpp("error_json"))) is BackendFailed


@pytest.mark.parametrize(
    ("status", "body", "kind", "sentence"),
    [
        pytest.param(
            400,
            said("min_p must be in [0, 1], got 2.", type="BadRequestError", code=400),
            InvalidRequest,
            "The model's server refused the request: min_p must be in [0, 1], got 2.",
            id="vLLM: a value it does not take",
        ),
        pytest.param(
            400,
            said("This model's maximum context length is 10 tokens. However, you requested 20.", code=400),
            ContextLengthExceeded,
            TOO_LONG,
            id="vLLM: too long",
        ),
        pytest.param(
            400,
            said("?", code="context_length_exceeded"),
            ContextLengthExceeded,
            TOO_LONG,
            id="OpenAI: too long",
        ),
        pytest.param(
            404, said("The model `x` does not exist.", code=404), ModelNotFound, NO_MODEL, id="vLLM: no model"
        ),
        pytest.param(
            404,
            b'{"detail":"Not Found"}',
            BackendFailed,
            "The model's server failed: Not Found",
            id="no route",
        ),
        pytest.param(
            422, b'{"detail":[]}', InvalidRequest, "The model's server refused the request.", id="FastAPI"
        ),
        pytest.param(
            401, said("Incorrect API key: sk-secret"), BackendFailed, SHUT, id="our credential is wrong"
        ),
        pytest.param(403, said("forbidden"), BackendFailed, SHUT, id="our credential is not enough"),
        pytest.param(429, said("slow down"), BackendBusy, BUSY, id="too many requests"),
        pytest.param(503, said("Loading model", type="unavailable_error"), BackendBusy, BUSY, id="loading"),
        pytest.param(504, b"<html>", BackendTimeout, SLOW, id="a proxy gave up"),
        pytest.param(500, b"<html>Secret</html>", BackendFailed, SERVER_FAILED, id="a page"),
        pytest.param(500, b"", BackendFailed, SERVER_FAILED, id="nothing"),
        pytest.param(
            500,
            said("failed to open /srv/models/secret.gguf at http://10.0.0.1:8000/x"),
            BackendFailed,
            "The model's server failed: failed to open … at …",
            id="insides are left out",
        ),
        pytest.param(
            500,
            said("image input is not supported - hint: you may need to provide the mmproj"),
            InvalidRequest,
            "This model takes text only: leave out images and sounds.",
            id="llama.cpp: an image for a model without eyes",
        ),
        pytest.param(307, b"", BackendFailed, SERVER_FAILED, id="a redirect"),
    ],
)
def test_an_error_is_told_in_the_house_s_words(
    status: int, body: bytes, kind: type[GatewayError], sentence: str
) -> None:
    """A backend's 401 is never the caller's: its key is good."""
    error = read_error(status, body)

    assert (type(error), error.sentence) == (kind, sentence)


@given(
    status=st.integers(300, 599), body=st.binary() | st.from_regex(rb'\{"error":(".*"|\{"message":".*"\})\}')
)
def test_no_body_makes_it_raise(status: int, body: bytes) -> None:
    """What it reads comes from a server that has just failed."""
    error = read_error(status, body)

    assert isinstance(error, GatewayError)
    assert len(error.sentence) < 400


def test_a_long_message_is_cut() -> None:
    """An error is a sentence."""
    assert len(read_error(400, said("x" * 10_000)).sentence) < 400
