"""The route table: (method, exact path) → Route, and default deny for everything else.

Decided on the raw bytes of the target, never on a decoded path or a URL object: whatever a later
parser could read differently is refused here. Mutations are refused first, in every spelling that a
lenient server might fold onto them (SPEC 3; security.md A).
"""

import re
import unicodedata
from typing import Final
from urllib.parse import unquote, unquote_to_bytes

from gateway.errors import GatewayError, MalformedRequest, MethodNotAllowed, MutationBlocked, RouteNotFound
from gateway.model import Operation, Route, Surface

_GET: Final = ("GET",)
_GET_HEAD: Final = ("GET", "HEAD")
_POST: Final = ("POST",)

# One row for each path: methods, what it does, in whose dialect.
ROUTES: Final = {
    b"/": (_GET_HEAD, Route(Operation.ROOT, Surface.OLLAMA)),
    b"/docs": (_GET_HEAD, Route(Operation.DOCS, Surface.OPENAI)),
    b"/openapi.json": (_GET_HEAD, Route(Operation.OPENAPI, Surface.OPENAI)),
    b"/api/version": (_GET_HEAD, Route(Operation.VERSION, Surface.OLLAMA)),
    b"/api/tags": (_GET_HEAD, Route(Operation.TAGS, Surface.OLLAMA)),
    b"/api/ps": (_GET_HEAD, Route(Operation.PS, Surface.OLLAMA)),
    b"/api/show": (_POST, Route(Operation.SHOW, Surface.OLLAMA)),
    b"/api/chat": (_POST, Route(Operation.CHAT, Surface.OLLAMA)),
    b"/api/generate": (_POST, Route(Operation.GENERATE, Surface.OLLAMA)),
    b"/api/embed": (_POST, Route(Operation.EMBED, Surface.OLLAMA)),
    b"/api/embeddings": (_POST, Route(Operation.LEGACY_EMBEDDINGS, Surface.OLLAMA)),
    b"/v1/chat/completions": (_POST, Route(Operation.CHAT_COMPLETIONS, Surface.OPENAI)),
    b"/v1/completions": (_POST, Route(Operation.COMPLETIONS, Surface.OPENAI)),
    b"/v1/embeddings": (_POST, Route(Operation.EMBEDDINGS, Surface.OPENAI)),
    b"/v1/responses": (_POST, Route(Operation.RESPONSES, Surface.OPENAI)),
    b"/v1/messages": (_POST, Route(Operation.MESSAGES, Surface.ANTHROPIC)),
    b"/v1/messages/count_tokens": (_POST, Route(Operation.COUNT_TOKENS, Surface.ANTHROPIC)),
    b"/v1/models": (_GET, Route(Operation.MODELS, Surface.OPENAI)),
    b"/v1/usage": (_GET, Route(Operation.USAGE, Surface.OPENAI)),
    b"/healthz": (_GET_HEAD, Route(Operation.HEALTH, Surface.OPENAI)),
    b"/readyz": (_GET_HEAD, Route(Operation.READINESS, Surface.OPENAI)),
}
# The one pattern: the rest of the path is a model's name, which may hold `/` or, as SDKs send it, `%2F`.
_MODEL_PREFIX: Final = b"/v1/models/"

# Ollama's routes that change its models, as first and second segment of the path.
MUTATIONS: Final = frozenset({"pull", "push", "create", "copy", "delete", "blobs"})

_PATH: Final = re.compile(rb"/[A-Za-z0-9._~/:@%-]*")
_QUERY: Final = re.compile(rb"[!-~]*")
_DOT_SEGMENT: Final = re.compile(rb"//|/\.{1,2}(?:/|\Z)")
_MODEL: Final = re.compile(rb"[A-Za-z0-9_.:@-]+(?:/[A-Za-z0-9_.:@-]+)*")

# More layers of percent-encoding than any proxy peels off; what is still encoded then is refused anyway.
_MAX_DECODINGS: Final = 5


def route_of(method: str, path: bytes, query: bytes = b"") -> Route | GatewayError:
    """What the target means, or why it is refused. `path` is as received, before the `?`."""
    row = ROUTES.get(path)
    if row is None:
        return _unlisted(method, path, query)
    if not _QUERY.fullmatch(query):
        return _malformed()
    methods, route = row
    return route if method in methods else MethodNotAllowed(", ".join(methods))


def surface_of(path: bytes) -> Surface:
    """In whose dialect to answer, by the prefix of the path as a lenient server would read it."""
    row = ROUTES.get(path)
    if row is not None:
        return row[1].surface
    segments = _folded(path)
    if segments[:1] == ["api"]:
        return Surface.OLLAMA
    if segments[:2] == ["v1", "messages"]:
        return Surface.ANTHROPIC
    return Surface.OPENAI


def _unlisted(method: str, path: bytes, query: bytes) -> Route | GatewayError:
    if _is_mutation(path):
        return MutationBlocked()
    if not _PATH.fullmatch(path) or not _QUERY.fullmatch(query) or _DOT_SEGMENT.search(path):
        return _malformed()
    if path.startswith(_MODEL_PREFIX) and len(path) > len(_MODEL_PREFIX):
        return _model_route(method, path[len(_MODEL_PREFIX) :])
    return _malformed() if b"%" in path else RouteNotFound()


def _model_route(method: str, segment: bytes) -> Route | GatewayError:
    name = unquote_to_bytes(segment)
    # A second layer of `%`, a dot segment or an odd byte would be another model to another parser.
    if not _MODEL.fullmatch(name) or _DOT_SEGMENT.search(b"/" + name):
        return _malformed()
    if method not in _GET:
        return MethodNotAllowed(", ".join(_GET))
    return Route(Operation.MODEL, Surface.OPENAI, model=name.decode("ascii"))


def _is_mutation(path: bytes) -> bool:
    segments = _folded(path)
    return len(segments) > 1 and segments[0] == "api" and segments[1] in MUTATIONS


def _folded(path: bytes) -> list[str]:
    """The path's segments as the most lenient server imaginable would read them."""
    text = path.decode("latin-1")
    for _ in range(_MAX_DECODINGS):
        # IIS's %uXXXX and overlong UTF-8 have stood for a slash before.
        plain = re.sub(r"(?i)%u00([0-9a-f]{2})", r"%\1", text)
        plain = unquote(re.sub(r"(?i)%c0%af|%e0%80%af", "/", plain), errors="replace")
        if plain == text:
            break
        text = plain
    text = unicodedata.normalize("NFKC", text).casefold().replace("\\", "/")
    text = re.sub(r"^[a-z][a-z0-9+.-]*:/*[^/]*|[\x00-\x20\x7f-\xa0]", "", text)
    segments: list[str] = []
    for segment in re.split(r"[?#]", text, maxsplit=1)[0].split("/"):
        if segment == "..":
            del segments[-1:]
        elif name := segment.partition(";")[0].rstrip("."):
            segments.append(name)
    return segments


def _malformed() -> GatewayError:
    return MalformedRequest(
        "The request target is ambiguous: send the plain path, "
        "without encoded slashes, dot segments or empty segments."
    )
