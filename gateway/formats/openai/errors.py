"""What vLLM and llama.cpp say when they fail: a sentence for the caller, and nothing about their insides."""

import re
from typing import Any, Final

import orjson
from attrs import frozen

from gateway.errors import (
    BackendBusy,
    BackendFailed,
    BackendTimeout,
    ContextLengthExceeded,
    GatewayError,
    InvalidRequest,
    ModelNotFound,
)
from gateway.formats.backend_errors import tame

_MAX_READ_CHARACTERS: Final = 2_000

# The former is llama.cpp's type, the latter OpenAI's code; vLLM says it in its message alone.
_TOO_LONG_WORDS: Final = frozenset({"exceed_context_size_error", "context_length_exceeded"})
_TOO_LONG: Final = re.compile(
    r"maximum context length|maximum model length|context (?:size|length|window).{0,40}\bexceed"
    r"|exceed(?:s|ed)?\b.{0,40}\bcontext|prompt (?:is )?too long",
    re.IGNORECASE,
)
# The model 'x' does not exist. / The model `x` does not exist.
_NO_MODEL: Final = re.compile(
    r"""\bmodel ['"`]([^'"`]{1,200})['"`] (?:does not exist|not found|is not found)""", re.I
)
# llama.cpp answers 500 there, though it is the request that is wrong for the model.
_NO_MEDIA: Final = re.compile(r"(?:image|audio|video) input is not supported", re.IGNORECASE)
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


@frozen
class Complaint:
    """What a backend said. The counts are there when llama.cpp found a prompt too long."""

    message: str = ""
    words: frozenset[str] = frozenset()
    """Type and code."""
    status: int | None = None
    prompt_tokens: int | None = None
    context_tokens: int | None = None


def read_error(status: int, body: bytes) -> GatewayError:
    """What an answer other than 200 means for the caller. Never raises.

    401 and 403 are about our credential, not the caller's: a failure of the backend. The name in a
    ModelNotFound is the backend's; who knows what the caller wrote puts that in its place.
    """
    return _meaning(status, _complaint(_parsed(body)), "The model's server failed")


def read_failure(error: Any) -> GatewayError:
    """What an `error` in the middle of an answer means."""
    complaint = _complaint({"error": error})
    return _meaning(complaint.status or 500, complaint, "The model's server broke off its answer")


def _meaning(status: int, complaint: Complaint, failure: str) -> GatewayError:
    if status >= 400 and _is_too_long(complaint):
        return _context_exceeded(complaint)
    if _NO_MEDIA.search(complaint.message):
        return InvalidRequest("This model takes text only: leave out images.", param="messages")
    missing = _NO_MODEL.search(complaint.message)
    if status == 404 and missing:
        return ModelNotFound(missing[1])
    if status in (400, 413, 422) and not complaint.message.startswith(_UNREAD):
        return InvalidRequest(_sentence("The model's server refused the request", complaint))
    if status in _PLAIN:
        kind, sentence = _PLAIN[status]
        return kind(sentence)
    return BackendFailed(_sentence(failure, complaint))


def _parsed(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        # A proxy's page, or plain text: nothing that was meant for the caller.
        return None


def _complaint(value: Any) -> Complaint:
    """`{"error": {…}}`, `{"error": "…"}`, FastAPI's `{"detail": "…"}`, or the elder vLLM's bare object."""
    if isinstance(value, dict):
        value = value.get("error") or value.get("detail") or value
    if isinstance(value, str):
        return Complaint(value[:_MAX_READ_CHARACTERS])
    if not isinstance(value, dict):
        return Complaint()
    message, code = value.get("message"), value.get("code")
    return Complaint(
        message=message[:_MAX_READ_CHARACTERS] if isinstance(message, str) else "",
        words=frozenset(word for word in (value.get("type"), code) if isinstance(word, str)),
        status=code if type(code) is int and 400 <= code <= 599 else None,
        prompt_tokens=_count(value.get("n_prompt_tokens")),
        context_tokens=_count(value.get("n_ctx")),
    )


def _count(value: Any) -> int | None:
    return value if type(value) is int and value >= 0 else None


def _is_too_long(complaint: Complaint) -> bool:
    return bool(complaint.words & _TOO_LONG_WORDS or _TOO_LONG.search(complaint.message))


def _context_exceeded(complaint: Complaint) -> ContextLengthExceeded:
    counts = ""
    if complaint.prompt_tokens is not None and complaint.context_tokens is not None:
        counts = f" ({complaint.prompt_tokens} tokens, and the context has {complaint.context_tokens})"
    return ContextLengthExceeded(
        f"The prompt is longer than the model's context{counts}; shorten it.", param="messages"
    )


def _sentence(what: str, complaint: Complaint) -> str:
    said = tame(complaint.message)
    return f"{what}: {said}" if said else f"{what}."
