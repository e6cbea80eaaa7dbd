"""Errors before the first byte of an answer, each in the dialect of its surface.

Clients choose what to do by status and by these words: the types and codes are those that the official
libraries know. Always one line of ASCII: Ollama's own client reads errors line by line.
"""

from collections.abc import Callable
from functools import cache
from typing import Final

from gateway.errors import GatewayError, InsufficientQuota, RateLimited, Unauthenticated
from gateway.formats.ndjson import ascii_json
from gateway.model import JsonObject, Surface

CONTENT_TYPE: Final = b"application/json"

# A sentence may quote a name that the caller sent, of any length.
_MAX_SENTENCE_CHARACTERS: Final = 1_000

_OPENAI_CLIENT_ERROR: Final = "invalid_request_error"
_OPENAI_SERVER_ERROR: Final = "server_error"

_ANTHROPIC_TYPES: Final = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
_ANTHROPIC_CLIENT_ERROR: Final = "invalid_request_error"
_ANTHROPIC_SERVER_ERROR: Final = "api_error"


def render(error: GatewayError, surface: Surface, request_id: str) -> bytes:
    """The whole JSON body of an error in the caller's dialect."""
    if isinstance(error, Unauthenticated) and surface is not Surface.ANTHROPIC:
        return _unauthenticated(surface)
    return ascii_json(_SHAPES[surface](error, request_id))


@cache
def _unauthenticated(surface: Surface) -> bytes:
    """What a flood of wrong keys is told, written once: all alike, and without the request's id."""
    return ascii_json(_SHAPES[surface](Unauthenticated(), ""))


def openai_error(error: GatewayError) -> JsonObject:
    """OpenAI's error object, as a body and as a frame of a stream. All four keys are always there."""
    details = {
        "message": _sentence(error),
        "type": _openai_type(error),
        "param": error.param,
        "code": error.code,
    }
    return {"error": details}


def _openai_type(error: GatewayError) -> str:
    """What ran out where something did; else by the status."""
    if isinstance(error, RateLimited):
        return error.unit
    if isinstance(error, InsufficientQuota):
        return error.code
    return _OPENAI_CLIENT_ERROR if error.status < 500 else _OPENAI_SERVER_ERROR


def ollama_error(error: GatewayError) -> JsonObject:
    """Ollama's error: a string, never an object, or its clients show nothing of it."""
    return {"error": _sentence(error)}


def anthropic_error(error: GatewayError, request_id: str) -> JsonObject:
    """Anthropic's error object, with the id that its clients show."""
    by_status = _ANTHROPIC_CLIENT_ERROR if error.status < 500 else _ANTHROPIC_SERVER_ERROR
    details = {"type": _ANTHROPIC_TYPES.get(error.status, by_status), "message": _sentence(error)}
    return {"type": "error", "error": details, "request_id": request_id}


def _sentence(error: GatewayError) -> str:
    text = error.sentence
    return text if len(text) <= _MAX_SENTENCE_CHARACTERS else text[:_MAX_SENTENCE_CHARACTERS] + "…"


_SHAPES: Final[dict[Surface, Callable[[GatewayError, str], JsonObject]]] = {
    Surface.OPENAI: lambda error, _: openai_error(error),
    Surface.OLLAMA: lambda error, _: ollama_error(error),
    Surface.ANTHROPIC: anthropic_error,
}
