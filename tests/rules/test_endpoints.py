"""The route table: what a target means, and that everything else is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import GatewayError, MalformedRequest, MethodNotAllowed, MutationBlocked, RouteNotFound
from gateway.model import Operation, Route, Surface
from gateway.rules.endpoints import MUTATIONS, ROUTES, route_of, surface_of
from tests.spellings import BLOCKED_PATHS, SPELLINGS

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PULL", "post"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("path", BLOCKED_PATHS.values(), ids=BLOCKED_PATHS)
def test_a_mutation_is_blocked_for_every_method(method: str, path: bytes):
    """403 before anything else is decided."""
    assert isinstance(route_of(method, path), MutationBlocked)


@pytest.mark.parametrize("path", SPELLINGS.values(), ids=SPELLINGS)
def test_a_mutation_is_blocked_in_every_spelling(path: bytes):
    """Whatever a lenient server would fold onto the route is the route."""
    assert isinstance(route_of("POST", path), MutationBlocked)


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", b"/", Route(Operation.ROOT, Surface.OLLAMA)),
        ("HEAD", b"/", Route(Operation.ROOT, Surface.OLLAMA)),
        ("GET", b"/api/version", Route(Operation.VERSION, Surface.OLLAMA)),
        ("HEAD", b"/api/tags", Route(Operation.TAGS, Surface.OLLAMA)),
        ("POST", b"/api/chat", Route(Operation.CHAT, Surface.OLLAMA)),
        ("POST", b"/api/generate", Route(Operation.GENERATE, Surface.OLLAMA)),
        ("POST", b"/v1/chat/completions", Route(Operation.CHAT_COMPLETIONS, Surface.OPENAI)),
        ("GET", b"/api/ps", Route(Operation.PS, Surface.OLLAMA)),
        ("HEAD", b"/api/ps", Route(Operation.PS, Surface.OLLAMA)),
        ("POST", b"/api/show", Route(Operation.SHOW, Surface.OLLAMA)),
        ("POST", b"/api/embed", Route(Operation.EMBED, Surface.OLLAMA)),
        ("POST", b"/api/embeddings", Route(Operation.LEGACY_EMBEDDINGS, Surface.OLLAMA)),
        ("POST", b"/v1/embeddings", Route(Operation.EMBEDDINGS, Surface.OPENAI)),
        ("POST", b"/v1/responses", Route(Operation.RESPONSES, Surface.OPENAI)),
        ("POST", b"/v1/messages", Route(Operation.MESSAGES, Surface.ANTHROPIC)),
        ("POST", b"/v1/messages/count_tokens", Route(Operation.COUNT_TOKENS, Surface.ANTHROPIC)),
        ("GET", b"/v1/models", Route(Operation.MODELS, Surface.OPENAI)),
        ("GET", b"/v1/models/llama3:8b", Route(Operation.MODEL, Surface.OPENAI, "llama3:8b")),
        ("GET", b"/v1/models/ns/a:c", Route(Operation.MODEL, Surface.OPENAI, "ns/a:c")),
        ("GET", b"/v1/models/ns%2Fa:c", Route(Operation.MODEL, Surface.OPENAI, "ns/a:c")),
        ("GET", b"/healthz", Route(Operation.HEALTH, Surface.OPENAI)),
        ("GET", b"/readyz", Route(Operation.READINESS, Surface.OPENAI)),
    ],
)
def test_the_table_serves(method: str, path: bytes, expected: Route):
    assert route_of(method, path) == expected


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", b"/api/chat", "POST"),
        ("post", b"/api/chat", "POST"),
        ("DELETE", b"/v1/models", "GET"),
        ("DELETE", b"/v1/models/llama3", "GET"),
        ("HEAD", b"/v1/models", "GET"),
        ("OPTIONS", b"/api/tags", "GET, HEAD"),
        ("POST", b"/", "GET, HEAD"),
    ],
)
def test_a_known_path_says_which_methods_it_has(method: str, path: bytes, allow: str):
    """405 with Allow; a method in lower case is another method."""
    refusal = route_of(method, path)

    assert isinstance(refusal, MethodNotAllowed)
    assert (b"allow", allow.encode()) in refusal.headers()


@pytest.mark.parametrize(
    "path",
    [
        b"/api", b"/api/", b"/api/chat/", b"/api/chats", b"/API/CHAT", b"/Api/chat", b"/api/me",
        b"/api/signout",
        b"/api/user/keys/x", b"/api/experimental/web_search", b"/api/status", b"/v1", b"/v1/", b"/v1/models/",
        b"/v1/audio/transcriptions", b"/v1/images/generations", b"/v1/files",
        b"/metrics", b"/slots", b"/props", b"/x",
    ],
)  # fmt: skip
def test_what_is_not_in_the_table_is_not_found(path: bytes):
    """Default deny: new routes of a backend stay closed until someone adds a row."""
    assert isinstance(route_of("POST", path), RouteNotFound)


@pytest.mark.parametrize(
    ("path", "query"),
    [
        pytest.param(b"", b"", id="empty"),
        pytest.param(b"*", b"", id="asterisk form"),
        pytest.param(b"/api/%63hat", b"", id="encoded letter"),
        pytest.param(b"/api%2fchat", b"", id="encoded slash"),
        pytest.param(b"//api/chat", b"", id="double slash"),
        pytest.param(b"/./api/chat", b"", id="dot segment"),
        pytest.param(b"/v1/models/..", b"", id="dot segment at the end"),
        pytest.param(b"/v1/models/../models", b"", id="parent segment"),
        pytest.param(b"/api\\chat", b"", id="backslash"),
        pytest.param(b"/api/chat;x", b"", id="path parameter"),
        pytest.param(b"/api/chat#/../pull", b"", id="fragment"),
        pytest.param(b"http://evil.example/api/chat", b"", id="absolute form"),
        pytest.param(b"/api/chat\x01", b"", id="control byte"),
        pytest.param(b"/api/ch\xc3\xa4t", b"", id="not ASCII"),
        pytest.param(b"/v1/models/a%252fb", b"", id="model encoded twice"),
        pytest.param(b"/v1/models/a%2e%2e%2fb%2f..", b"", id="model with dot segment"),
        pytest.param(b"/v1/models/%2e%2e%2fchat", b"", id="model that climbs"),
        pytest.param(b"/v1/models/a%00", b"", id="model with nul"),
        pytest.param(b"/v1/models/a%0a", b"", id="model with newline"),
        pytest.param(b"/v1/models/a%", b"", id="cut escape"),
        pytest.param(b"/v1/models/a%2", b"", id="half an escape"),
        pytest.param(b"/v1/models//a", b"", id="model with empty segment"),
        pytest.param(b"/v1/models", b"\xff", id="query not ASCII"),
        pytest.param(b"/v1/models", b"a b", id="query with a space"),
    ],
)
def test_what_can_be_read_in_two_ways_is_malformed(path: bytes, query: bytes):
    assert isinstance(route_of("GET", path, query), MalformedRequest)


def test_a_query_decides_nothing():
    """`?/../pull` and `?_method=DELETE` are text behind a question mark."""
    assert route_of("POST", b"/api/chat", b"/../pull&_method=DELETE") == Route(Operation.CHAT, Surface.OLLAMA)


@pytest.mark.parametrize(
    ("path", "surface"),
    [
        (b"/", Surface.OLLAMA),
        (b"/api/chat", Surface.OLLAMA),
        (b"/api/unknown", Surface.OLLAMA),
        (b"//API/pull", Surface.OLLAMA),
        (b"/v1/models/x", Surface.OPENAI),
        (b"/v1/messages", Surface.ANTHROPIC),
        (b"/v1/messages/count_tokens", Surface.ANTHROPIC),
        (b"/elsewhere", Surface.OPENAI),
        (b"*", Surface.OPENAI),
    ],
)
def test_errors_speak_the_dialect_of_the_prefix(path: bytes, surface: Surface):
    assert surface_of(path) == surface


def test_every_operation_has_a_route():
    """An operation without a row could never be asked for."""
    assert {route.operation for _, route in ROUTES.values()} == set(Operation) - {Operation.MODEL}


@given(st.binary(max_size=60))
def test_no_target_makes_it_raise(path: bytes):
    """Whatever the bytes, there is a verdict, and only the table's paths are served."""
    verdict = route_of("POST", path)

    assert isinstance(verdict, GatewayError) or path in ROUTES


PIECES = [
    "/",
    "//",
    "\\",
    "%2f",
    "%5c",
    ".",
    "..",
    "%2e",
    ";",
    "%00",
    "%25",
    "api",
    "v1",
    "models",
    *sorted(MUTATIONS),
]


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join), st.sampled_from(METHODS))
def test_no_combination_of_tricks_reaches_a_mutation(path: str, method: str):
    """Only table rows and plain model names are ever served."""
    verdict = route_of(method, path.encode())

    if isinstance(verdict, Route):
        assert path.encode() in ROUTES or verdict.operation is Operation.MODEL
        assert verdict.model is None or not set(verdict.model.split("/")) & {"", ".", ".."}
