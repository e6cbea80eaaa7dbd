"""What Ollama says when it fails: a sentence for the caller, and nothing about the backend's insides.

An error of the inner llama.cpp process comes as a string that holds JSON, sometimes twice over.
"""

import re
from typing import Any, Final

import orjson
from attrs import frozen

from gateway.errors import (
    BackendBusy,
    BackendFailed,
    ContextLengthExceeded,
    GatewayError,
    InvalidRequest,
    ModelNotFound,
)

_MAX_NESTING: Final = 4
_MAX_READ_CHARACTERS: Final = 2_000
_MAX_SENTENCE_CHARACTERS: Final = 300
# A model's name stands between quotes: `model 'x' not found`, `model "x" not found, try pulling it first`.
_NO_MODEL: Final = re.compile(r"""model ['"]([^'"]{1,200})['"] not found""")
_TOO_LONG: Final = re.compile(
    r"exceed(?:s|ed)?\b.{0,40}\bcontext|context (?:length|size|window).{0,40}\bexceed"
    r"|prompt (?:is )?too long",
    re.IGNORECASE,
)

# What is left out of a backend's words, in this order.
_INSIDES: Final = (
    # Ollama's own long form of a name: the name alone is what the caller knows.
    (re.compile(r"registry\.ollama\.ai/(?:library/)?"), ""),
    (re.compile(r"\b[a-z][a-z0-9+.-]*://\S+", re.IGNORECASE), "…"),
    # Paths of files, of Unix and of Windows.
    (re.compile(r"(?<![\w.…/])~?(?:/[\w.@+~-]+){2,}/?"), "…"),
    (re.compile(r"\b[A-Za-z]:\\\S+"), "…"),
    # Addresses: an IP, a name with a port, IPv6 in brackets.
    (re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b"), "…"),
    (re.compile(r"\[[0-9a-fA-F:]{2,}\](?::\d+)?"), "…"),
    (re.compile(r"\b[A-Za-z][\w.-]*:\d{4,5}\b"), "…"),
    # Digests of blobs, and pointers.
    (re.compile(r"\b(?:sha256[:-])?[0-9a-fA-F]{40,}\b|\b0x[0-9a-fA-F]+\b"), "…"),
)


@frozen
class Complaint:
    """What a backend said, taken out of its wrappings. The counts are there when a prompt was too long."""

    message: str = ""
    type: str = ""
    prompt_tokens: int | None = None
    context_tokens: int | None = None


def read_error(status: int, body: bytes) -> GatewayError:
    """What an answer other than 200 means for the caller. Never raises.

    A redirect is a failure: nothing is ever fetched from where a backend points to. The name in a
    ModelNotFound is the backend's; who knows what the caller wrote puts that in its place.
    """
    complaint = _lift(body.decode("utf-8", "replace"))
    if status >= 400 and _is_too_long(complaint):
        return _context_exceeded(complaint)
    missing = _NO_MODEL.search(complaint.message)
    if status == 404 and missing:
        return ModelNotFound(missing[1])
    if status == 400:
        return InvalidRequest(_sentence("The model's server refused the request", complaint))
    if status == 503:
        return BackendBusy("The model's server is busy or still loading; try again in a few seconds.")
    return BackendFailed(_sentence("The model's server failed", complaint))


def read_failure(error: Any) -> GatewayError:
    """What an `error` in the middle of an answer means."""
    complaint = _lift(error)
    if _is_too_long(complaint):
        return _context_exceeded(complaint)
    return BackendFailed(_sentence("The model's server broke off its answer", complaint))


def tame(text: str) -> str:
    """One bounded line of a backend's words, without addresses, paths, digests and stack traces."""
    line = text.strip().partition("\n")[0]
    line = "".join(character if character.isprintable() else " " for character in line)
    for pattern, replacement in _INSIDES:
        line = pattern.sub(replacement, line)
    return line if len(line) <= _MAX_SENTENCE_CHARACTERS else line[:_MAX_SENTENCE_CHARACTERS] + "…"


def _lift(value: Any) -> Complaint:
    """Unwrap strings that hold JSON and objects that hold an `error`, a few times at most."""
    for _ in range(_MAX_NESTING):
        if isinstance(value, str):
            value = _parsed(value)
        if not isinstance(value, dict):
            break
        if "error" not in value:
            return _complaint(value)
        value = value["error"]
    return Complaint(value[:_MAX_READ_CHARACTERS]) if isinstance(value, str) else Complaint()


def _parsed(text: str) -> Any:
    if not text.lstrip().startswith("{"):
        return text
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def _complaint(value: dict[str, Any]) -> Complaint:
    message, kind = value.get("message"), value.get("type")
    return Complaint(
        message=message[:_MAX_READ_CHARACTERS] if isinstance(message, str) else "",
        type=kind if isinstance(kind, str) else "",
        prompt_tokens=_count(value.get("n_prompt_tokens")),
        context_tokens=_count(value.get("n_ctx")),
    )


def _count(value: Any) -> int | None:
    return value if type(value) is int and value >= 0 else None


def _is_too_long(complaint: Complaint) -> bool:
    return complaint.type == "exceed_context_size_error" or bool(_TOO_LONG.search(complaint.message))


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
