"""gateway.formats.ollama.errors: what Ollama says when it fails, said to callers."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import (
    BackendBusy,
    BackendFailed,
    ContextLengthExceeded,
    GatewayError,
    InvalidRequest,
    ModelNotFound,
)
from gateway.formats.ollama import read_error
from gateway.formats.ollama.errors import read_failure
from tests.formats.recordings import of_ollama

FAILED = "The model's server failed"
REFUSED = "The model's server refused the request"


def body(message):
    return orjson.dumps({"error": message})


ANSWERS = [
    pytest.param(404, body("model 'tiny' not found"), ModelNotFound("tiny"), id="no model"),
    pytest.param(
        404,
        body('model "a/b:7b" not found, try pulling it first'),
        ModelNotFound("a/b:7b"),
        id="no model, embed",
    ),
    pytest.param(404, b"404 page not found", BackendFailed(f"{FAILED}: 404 page not found"), id="no Ollama"),
    pytest.param(
        400,
        body("registry.ollama.ai/library/tiny:latest does not support tools"),
        InvalidRequest(f"{REFUSED}: tiny:latest does not support tools"),
        id="no tools",
    ),
    pytest.param(
        400,
        body('"tiny" does not support thinking'),
        InvalidRequest(f'{REFUSED}: "tiny" does not support thinking'),
        id="no thinking",
    ),
    pytest.param(400, b"", InvalidRequest(f"{REFUSED}."), id="400 without words"),
    pytest.param(
        400,
        body("the input length exceeds the context length"),
        ContextLengthExceeded("The prompt is longer than the model's context; shorten it."),
        id="too long",
    ),
    pytest.param(
        500,
        of_ollama("context_exceeded.json"),
        ContextLengthExceeded(
            "The prompt is longer than the model's context (919 tokens, and the context has 256); shorten it."
        ),
        id="too long, by llama.cpp",
    ),
    pytest.param(
        400,
        body("the prompt is longer than the context length currently available to the model; shorten it"),
        ContextLengthExceeded("The prompt is longer than the model's context; shorten it."),
        id="too long, and not to be cut",
    ),
    pytest.param(
        500,
        body('{"error":{"code":500,"message":"image input is not supported - hint: mmproj /models/x"}}'),
        InvalidRequest("This model takes text only: leave out images and sounds."),
        id="no images, by llama.cpp",
    ),
    pytest.param(
        400,
        body("registry.ollama.ai/library/tiny:latest does not support vision"),
        InvalidRequest("This model takes text only: leave out images and sounds."),
        id="no images",
    ),
    pytest.param(
        503,
        body("server busy, please try again.  maximum pending requests exceeded"),
        BackendBusy("The model's server is busy or still loading; try again in a few seconds."),
        id="busy",
    ),
    pytest.param(
        500,
        body('option "temperature" must be of type float32'),
        BackendFailed(f'{FAILED}: option "temperature" must be of type float32'),
        id="500",
    ),
    pytest.param(
        500,
        body({"message": "llama runner process has terminated: exit status 2"}),
        BackendFailed(f"{FAILED}: llama runner process has terminated: exit status 2"),
        id="500 with an object",
    ),
    pytest.param(501, body("no embeddings"), BackendFailed(f"{FAILED}: no embeddings"), id="501"),
    pytest.param(502, b"<html>", BackendFailed(f"{FAILED}: <html>"), id="a proxy"),
    pytest.param(302, b"", BackendFailed(f"{FAILED}."), id="a redirect"),
    pytest.param(307, body("model 'x' not found"), BackendFailed(f"{FAILED}: model 'x' not found"), id="307"),
    pytest.param(401, body("unauthorized"), BackendFailed(f"{FAILED}: unauthorized"), id="401"),
    pytest.param(403, b"", BackendFailed(f"{FAILED}."), id="403"),
    pytest.param(418, b"[]", BackendFailed(f"{FAILED}: []"), id="anything else"),
    pytest.param(500, b"\xff\xfe", BackendFailed(f"{FAILED}: \ufffd\ufffd"), id="no UTF-8"),
]


@pytest.mark.parametrize(("status", "answer", "expected"), ANSWERS)
def test_an_error_answer_becomes_an_outcome(status, answer, expected):
    """Only what the caller can mend is a 4xx."""
    error = read_error(status, answer)

    assert (type(error), error.sentence) == (type(expected), expected.sentence)


def test_an_overflow_names_the_messages():
    """OpenAI's clients look there."""
    assert read_error(400, of_ollama("context_exceeded.json")).param == "messages"


NESTED = [
    pytest.param("boom", "boom", id="plain"),
    pytest.param('{"error":"boom"}', "boom", id="an object in a string"),
    pytest.param('{"error":{"message":"boom","code":500}}', "boom", id="an OpenAI error in a string"),
    pytest.param({"message": "boom"}, "boom", id="an object"),
    pytest.param('{"error":"{\\"error\\":{\\"message\\":\\"boom\\"}}"}', "boom", id="twice over"),
    pytest.param('{"error', '{"error', id="a cut object"),
]


@pytest.mark.parametrize(("error", "words"), NESTED)
def test_words_are_unwrapped(error, words):
    """An inner process is quoted by an outer one."""
    assert read_failure(error).sentence == f"The model's server broke off its answer: {words}"


@given(st.integers(100, 599), st.binary(max_size=60))
def test_any_answer_is_some_outcome(status, answer):
    """Reading an error never raises one."""
    assert isinstance(read_error(status, answer), GatewayError)


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.dictionaries(st.sampled_from(["error", "message", "type", "n_ctx"]), inner) | st.lists(inner)
        ),
    )
)
def test_any_error_is_some_failure(error):
    """Whatever stands under `error`."""
    assert isinstance(read_failure(error), GatewayError)
