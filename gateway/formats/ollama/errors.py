"""What Ollama says when it fails: a sentence for the caller, and nothing about the backend's insides.

An error of the inner llama.cpp process comes as a string that holds JSON, sometimes twice over.
"""

import re
from typing import Any, Final

import orjson

from gateway.errors import (
    BackendBusy,
    BackendFailed,
    GatewayError,
    InvalidRequest,
    ModelNotFound,
)
from gateway.formats.backend_errors import (
    Complaint,
    complaint_of,
    context_exceeded,
    sentence_of,
    unfit,
)

_MAX_NESTING: Final = 4
# A model's name stands between quotes: `model 'x' not found`, `model "x" not found, try pulling it first`.
_NO_MODEL: Final = re.compile(r"""model ['"]([^'"]{1,200})['"] not found""")
_TOO_LONG: Final = re.compile(
    r"exceed(?:s|ed)?\b.{0,40}\bcontext|context (?:length|size|window).{0,40}\bexceed"
    r"|prompt (?:is )?(?:too long|longer than)|input .{0,40}\btoo large to process",
    re.IGNORECASE,
)


def read_error(status: int, body: bytes) -> GatewayError:
    """What an answer other than 200 means for the caller. Never raises.

    A redirect is a failure: nothing is ever fetched from where a backend points to. The name in a
    ModelNotFound is the backend's; who knows what the caller wrote puts that in its place.
    """
    complaint = _lift(body.decode("utf-8", "replace"))
    if status >= 400 and _is_too_long(complaint):
        return context_exceeded(complaint)
    missing = _NO_MODEL.search(complaint.message)
    if status == 404 and missing:
        return ModelNotFound(missing[1])
    if refused := unfit(complaint):
        return refused
    if status == 400:
        return InvalidRequest(sentence_of("The model's server refused the request", complaint))
    if status == 503:
        return BackendBusy("The model's server is busy or still loading; try again in a few seconds.")
    return BackendFailed(sentence_of("The model's server failed", complaint))


def read_failure(error: Any) -> GatewayError:
    """What an `error` in the middle of an answer means."""
    complaint = _lift(error)
    if _is_too_long(complaint):
        return context_exceeded(complaint)
    if refused := unfit(complaint):
        return refused
    return BackendFailed(sentence_of("The model's server broke off its answer", complaint))


def _lift(value: Any) -> Complaint:
    """Unwrap strings that hold JSON and objects that hold an `error`, a few times at most."""
    for _ in range(_MAX_NESTING):
        if isinstance(value, str):
            value = _parsed(value)
        if not isinstance(value, dict) or "error" not in value:
            return complaint_of(value)
        value = value["error"]
    # An object that is wrapped more often says nothing.
    return complaint_of(value) if isinstance(value, str) else Complaint()


def _parsed(text: str) -> Any:
    if not text.lstrip().startswith("{"):
        return text
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def _is_too_long(complaint: Complaint) -> bool:
    return complaint.type == "exceed_context_size_error" or bool(_TOO_LONG.search(complaint.message))
