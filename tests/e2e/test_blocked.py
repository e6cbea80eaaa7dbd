"""Over a raw socket: what changes models is refused to everyone, and nothing of it reaches a backend."""

import json
import socket

import pytest

from tests.doubles import Double, answer, chat_frame
from tests.gateways import Gateway
from tests.spellings import BLOCKED_PATHS, SPELLINGS

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


def exchange(gateway: Gateway, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send bytes as they are; read one answer until the server closes or the body is complete."""
    host, port = gateway.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(request)
        file = connection.makefile("rb")
        status = int(file.readline().split()[1])
        headers = {}
        while line := file.readline().rstrip(b"\r\n"):
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        is_head = request.startswith(b"HEAD ")
        body = b"" if is_head else file.read(int(headers.get("content-length", "0")))
        return status, headers, body


def request_of(method: str, target: bytes, *headers: str, body: bytes = b"") -> bytes:
    lines = [f"Host: gateway.example\r\nContent-Length: {len(body)}", *headers]
    return (
        method.encode() + b" " + target + b" HTTP/1.1\r\n" + "\r\n".join(lines).encode() + b"\r\n\r\n" + body
    )


@pytest.mark.parametrize("with_key", [False, True], ids=["without a key", "with a key"])
@pytest.mark.parametrize("path", BLOCKED_PATHS.values(), ids=BLOCKED_PATHS)
def test_a_mutation_is_forbidden_to_everyone(gateway: Gateway, double: Double, path: bytes, with_key: bool):
    """Same status, same body, for every method."""
    credentials = [f"Authorization: Bearer {gateway.key}"] if with_key else []
    before = len(double.inference)

    answers = [
        exchange(gateway, request_of(method, path, *credentials, body=b'{"model":"x"}')) for method in METHODS
    ]

    assert {status for status, _, _ in answers} == {403}
    assert len({body for _, _, body in answers if body}) == 1
    assert len(double.inference) == before


@pytest.mark.parametrize("target", SPELLINGS.values(), ids=SPELLINGS)
def test_a_mutation_is_forbidden_in_every_spelling(gateway: Gateway, double: Double, target: bytes):
    """Without a key, and in Ollama's dialect; a redirect would be an invitation."""
    before = len(double.inference)

    status, headers, body = exchange(gateway, request_of("POST", target))

    assert status == 403
    assert "location" not in headers
    assert isinstance(json.loads(body)["error"], str)
    assert len(double.inference) == before


def test_a_blocked_request_is_audited(gateway: Gateway):
    _, headers, _ = exchange(gateway, request_of("DELETE", b"/api/%64elete"))

    row = gateway.row_of(headers["x-request-id"])

    assert (row["status"], row["error_code"], row["outcome"]) == (403, "blocked_mutation", "refused")
    assert (row["method"], row["path"], row["tenant_id"]) == ("DELETE", "/api/%64elete", None)


OVERRIDES = [
    "X-HTTP-Method-Override: DELETE",
    "X-Method-Override: DELETE",
    "X-Original-URL: /api/pull",
    "X-Rewrite-URL: /api/pull",
    "X-Forwarded-Prefix: /api/pull",
    "X-Forwarded-Path: /api/pull",
    "Connection: Authorization, X-Request-Id",
    "Upgrade: websocket\r\nConnection: Upgrade",
    "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__",
]


@pytest.mark.parametrize("header", OVERRIDES, ids=lambda header: header.split(":")[0] + header.split()[1])
def test_headers_that_would_override_the_request_do_nothing(gateway: Gateway, double: Double, header: str):
    """They are not read, and they don't go upstream: what the backend gets is made from scratch."""
    double.scripts["/api/chat"] = answer(200, chat_frame("fine", done=True))
    body = json.dumps(
        {"model": "double", "stream": False, "messages": [{"role": "user", "content": "x"}]}
    ).encode()

    status, headers, _ = exchange(
        gateway,
        request_of(
            "POST", b"/api/chat?_method=DELETE", f"Authorization: Bearer {gateway.key}", header, body=body
        ),
    )

    received = double.inference[-1]
    assert status == 200
    assert headers["x-request-id"].startswith("req_")
    assert (received.method, received.target) == ("POST", "/api/chat")
    assert set(received.headers) <= {"host", "content-type", "content-length", "user-agent", "x-request-id"}


@pytest.mark.parametrize("host", ["a/x?y=", "a#", "a\\b", "user@a", ""])
@pytest.mark.parametrize("target", [b"/api/pull", b"/v1/models"])
def test_an_odd_host_changes_no_decision(gateway: Gateway, host: str, target: bytes):
    """CVE-2026-48710: the route is decided on the target; a Host that is none may be refused before."""
    request = b"POST " + target + b" HTTP/1.1\r\nHost: " + host.encode() + b"\r\nContent-Length: 0\r\n\r\n"

    status, _, _ = exchange(gateway, request)

    assert status in ({403, 400} if target == b"/api/pull" else {405, 400})


CASES = {
    "other folding of a name": (b'{"model":"double","MODEL":"other","messages":[]}', 400),
    "a long s": ('{"model":"double","me\u017fsages":[{"role":"user","content":"x"}]}'.encode(), 400),
    "a Kelvin sign": ('{"model":"double","\u212aeep_alive":0,"messages":[]}'.encode(), 400),
    "other folding inside options": (b'{"model":"double","messages":[],"options":{"Num_Predict":9}}', 400),
    "a name twice": (b'{"model":"double","model":"other","messages":[]}', 400),
    "a name twice, deep": (b'{"model":"double","messages":[],"options":{"seed":1,"seed":2}}', 400),
    "deep nesting": (b'{"model":' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400),
    "a second object": (b'{"model":"double"}{"model":"other"}', 400),
    "no object": (b"[]", 400),
    "nothing": (b"", 400),
    "white space": (b" " * 1_000_000, 400),
    "NaN": (b'{"model":"double","messages":[],"options":{"temperature":NaN}}', 400),
    "a number beyond all bounds": (b'{"model":"double","messages":[],"options":{"seed":1e999}}', 400),
    "5,000 digits": (b'{"model":"double","messages":[],"options":{"seed":' + b"1" * 5000 + b"}}", 400),
    "true for a number": (b'{"model":"double","messages":[],"options":{"seed":true}}', 400),
    "UTF-16": ('{"model":"double"}'.encode("utf-16"), 400),
    "half a surrogate": (b'{"model":"double","messages":[{"role":"user","content":"\\ud800"}]}', 400),
    "a cloud model": (b'{"model":"gpt-oss:120b-cloud","messages":[{"role":"user","content":"x"}]}', 404),
    "a model that is a URL": (
        b'{"model":"http://evil.example/x","messages":[{"role":"user","content":"x"}]}',
        404,
    ),
}


@pytest.mark.parametrize(("body", "status"), CASES.values(), ids=CASES)
def test_a_body_that_could_be_read_in_two_ways_is_refused(
    gateway: Gateway, double: Double, body: bytes, status: int
):
    """security.md D: and nothing of it reaches the backend."""
    before = len(double.inference)

    with gateway.client() as client:
        answered = client.post("/api/chat", content=body)

    assert answered.status_code == status
    assert isinstance(answered.json()["error"], str)
    assert len(double.inference) == before


def test_options_that_reload_a_model_are_dropped_and_named(gateway: Gateway, double: Double):
    double.scripts["/api/chat"] = answer(200, chat_frame("fine", done=True))
    options = {"num_gpu": 99, "num_thread": 64, "use_mmap": False, "temperature": 0.5, "num_predict": 7}

    with gateway.client() as client:
        answered = client.post(
            "/api/chat",
            json={
                "model": "double",
                "stream": False,
                "messages": [{"role": "user", "content": "x"}],
                "options": options,
                "_debug_render_only": True,
            },
        )

    sent = double.inference[-1].json()
    assert sent["options"] == {"temperature": 0.5, "num_predict": 7}
    assert "_debug_render_only" not in sent
    assert set(answered.headers["x-gateway-dropped-options"].split(", ")) >= {
        "num_gpu",
        "num_thread",
        "use_mmap",
    }


def test_keep_alive_and_context_stay_within_the_operator_s_bounds(gateway: Gateway, double: Double):
    """D17, D18: neither unloaded, nor pinned, nor a context that eats the memory of all."""
    double.scripts["/api/generate"] = answer(200, {"response": "fine", "done": True})
    asked = {"model": "double", "prompt": "x", "stream": False, "options": {"num_ctx": 10**6}}

    with gateway.client() as client:
        unloading = client.post("/api/generate", json={**asked, "keep_alive": 0})
        pinning = client.post("/api/generate", json={**asked, "keep_alive": 1e9})

    first, second = (one.json() for one in double.inference[-2:])
    assert "keep_alive" not in first
    assert second["keep_alive"] == 1800
    assert first["options"] == second["options"] == {"num_ctx": 32768, "num_predict": 32768}
    assert unloading.headers["x-gateway-dropped-options"] == pinning.headers["x-gateway-dropped-options"]
    assert unloading.headers["x-gateway-dropped-options"] == "keep_alive, num_ctx"


@pytest.mark.parametrize("keep_alive", [0, -1, "0s", "-1m"])
def test_a_request_without_messages_neither_loads_nor_unloads(gateway: Gateway, double: Double, keep_alive):
    """D26: the model of all tenants is not one tenant's to evict."""
    before = len(double.inference)

    with gateway.client() as client:
        answered = client.post(
            "/api/chat", json={"model": "double", "messages": [], "keep_alive": keep_alive}
        )

    assert answered.status_code == 200
    assert answered.json()["done"] is True
    assert len(double.inference) == before
