"""What vLLM and llama.cpp say when they fail: a sentence for the caller, and nothing about their insides."""

import re
from typing import Any, Final

import orjson

from gateway.errors import (
    BackendBusy,
    BackendFailed,
    BackendTimeout,
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

# The former is llama.cpp's type, the latter OpenAI's code; vLLM says it in its message alone.
_TOO_LONG_WORDS: Final = frozenset({"exceed_context_size_error", "context_length_exceeded"})
_TOO_LONG: Final = re.compile(
    r"maximum context length|maximum model length|context (?:size|length|window).{0,40}\bexceed"
    r"|exceed(?:s|ed)?\b.{0,40}\bcontext|prompt (?:is )?(?:too long|longer than)"
    # llama.cpp, of what is to become a vector: its batch is the bound there.
    r"|input .{0,40}\btoo large to process",
    re.IGNORECASE,
)
# The model 'x' does not exist. / The model `x` does not exist.
_NO_MODEL: Final = re.compile(
    r"""\bmodel ['"`]([^'"`]{1,200})['"`] (?:does not exist|not found|is not found)""", re.I
)
# nlohmann::json's own words: what it could not read is what we wrote, so it is no fault of the caller.
_UNREAD: Final = "[json.exception"

# Statuses that say all there is to say.
_REFUSED: Final = (BackendFailed, "The model's server did not let this gateway in; tell the operator.")
_BUSY: Final = (BackendBusy, "The model's server is busy or still loading; try again in a few seconds.")
_SLOW: Final = (BackendTimeout, "The model's server did not answer in time; try again.")
_PLAIN: Final[dict[int, tuple[type[GatewayError], str]]] = {
    401: _REFUSED,
    403: _REFUSED,
    408: _SLOW,
    429: _BUSY,
    503: _BUSY,
    504: _SLOW,
}


def read_error(status: int, body: bytes) -> GatewayError:
    """What an answer other than 200 means for the caller. Never raises.

    401 and 403 are about our credential, not the caller's: a failure of the backend. The name in a
    ModelNotFound is the backend's; who knows what the caller wrote puts that in its place.
    """
    return _meaning(status, complaint_of(_unwrapped(_parsed(body))), "The model's server failed")


def read_failure(error: Any) -> GatewayError:
    """What an `error` in the middle of an answer means."""
    complaint = complaint_of(_unwrapped({"error": error}))
    return _meaning(_status_of(complaint), complaint, "The model's server broke off its answer")


def _meaning(status: int, complaint: Complaint, failure: str) -> GatewayError:
    if status >= 400 and _is_too_long(complaint):
        return context_exceeded(complaint)
    if refused := unfit(complaint):
        return refused
    missing = _NO_MODEL.search(complaint.message)
    if status == 404 and missing:
        return ModelNotFound(missing[1])
    if status in (400, 413, 422) and not complaint.message.startswith(_UNREAD):
        return InvalidRequest(sentence_of("The model's server refused the request", complaint))
    if status in _PLAIN:
        kind, sentence = _PLAIN[status]
        return kind(sentence)
    return BackendFailed(sentence_of(failure, complaint))


def _parsed(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        # A proxy's page, or plain text: nothing that was meant for the caller.
        return None


def _unwrapped(value: Any) -> Any:
    """`{"error": {…}}`, `{"error": "…"}`, FastAPI's `{"detail": "…"}`, or the elder vLLM's bare object."""
    return value.get("error") or value.get("detail") or value if isinstance(value, dict) else value


def _status_of(complaint: Complaint) -> int:
    """The one that vLLM and llama.cpp give as the code, else 500."""
    code = complaint.code
    return code if isinstance(code, int) and 400 <= code <= 599 else 500


def _is_too_long(complaint: Complaint) -> bool:
    said = complaint.type in _TOO_LONG_WORDS or complaint.code in _TOO_LONG_WORDS
    return said or bool(_TOO_LONG.search(complaint.message))
