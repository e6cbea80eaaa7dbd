"""The same over TLS, where no half-close is possible."""

from __future__ import annotations

import ssl
import subprocess
import threading

import pytest

from tests.server.live import Client, happens, read_body, reply, with_lifespan

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    key, cert = folder / "key.pem", folder / "cert.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]
    subprocess.run(
        [*command, "-keyout", key, "-out", cert, "-subj", "/CN=a"], check=True, capture_output=True
    )
    return {"certfile": str(cert), "keyfile": str(key)}


@pytest.fixture
def connect(starting, certificate):
    """connect(function for http scopes) → (a plain client, a client that has done its handshake)."""
    clients: list[Client] = []

    def start(answer):
        config = {**certificate, "insecure_bind": ["127.0.0.1:0"]}
        server = starting(with_lifespan(answer), config=config)
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["h2", "http/1.1"])
        secure, plain = Client(server.addresses[0][1]), Client(server.addresses[1][1])
        secure.sock = context.wrap_socket(secure.sock)
        clients.extend((plain, secure))
        return plain, secure

    yield start
    for client in clients:
        client.leave()


def test_tls_speaks_http_1_1_only(connect):
    """Hypercorn's configuration would offer h2, which nobody here speaks."""

    async def scheme(scope, receive, send):
        await reply(send, scope["scheme"].encode())

    plain, secure = connect(scheme)

    assert secure.sock.selected_alpn_protocol() == "http/1.1"
    assert secure.send(GET).answer()[2] == b"https"
    assert plain.send(GET).answer()[2] == b"http"


def test_a_client_that_leaves_is_noticed(connect):
    at_work, left = threading.Event(), threading.Event()

    async def app(scope, receive, send):
        await read_body(receive)
        at_work.set()
        assert (await receive())["type"] == "http.disconnect"
        left.set()

    _, secure = connect(app)
    secure.send(GET)
    assert happens(at_work)
    secure.leave()

    assert happens(left)


def test_an_early_answer_is_readable(connect):
    async def app(scope, receive, send):
        await reply(send, b"too large", status=413)

    _, secure = connect(app)
    secure.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5000000\r\n\r\n" + bytes(5_000_000))

    assert secure.answer()[::2] == (413, b"too large")


def test_a_malformed_request_is_answered(connect):
    _, secure = connect(read_body)

    assert secure.send(b"GET / HTTP/1.1\r\n\r\n" + GET).answer()[0] == 400
