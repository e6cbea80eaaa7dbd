"""What the server refuses before the pipeline sees it is in the audit log all the same."""

import re
import socket

from tests.gateways import Gateway

CHAT = b"POST /api/chat HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
HEADS = {
    "two hosts": (b"GET /api/tags?secret=1 HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "GET", "/api/tags"),
    "CONNECT": (b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", 501, "CONNECT", "a:443"),
    "unknown method": (b"PULL /x HTTP/1.1\r\nHost: a\r\n\r\n", 501, "PULL", "/x"),
    "long target": (b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n" % (b"a" * 9000), 414, "GET", "/" + "a" * 199),
    "large head": (b"GET /x HTTP/1.1\r\nHost: a\r\nX: %b\r\n\r\n" % (b"y" * 40_000), 431, "GET", "/x"),
    "HTTP/2.0": (b"GET /x HTTP/2.0\r\nHost: a\r\n\r\n", 505, "GET", "/x"),
    "two framings": (CHAT + b"Content-Length: 4\r\n\r\n0\r\n\r\n", 400, "POST", "/api/chat"),
    "bad chunk": (CHAT + b"\r\n+5\r\nhello\r\n", 400, "POST", "/api/chat"),
}


def connected(gateway: Gateway) -> socket.socket:
    host, _, port = gateway.url.removeprefix("http://").rpartition(":")
    return socket.create_connection((host, int(port)), timeout=10)


def read_to_the_end(connection: socket.socket) -> tuple[int, str, bytes]:
    """Status, request id and body of the answer after which the server closes."""
    answered = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = answered.partition(b"\r\n\r\n")
    found = re.search(rb"\r\nx-request-id: (\S+)", head)
    assert found, head
    return int(head.split(b" ")[1]), found[1].decode(), body


def test_each_refused_head_leaves_a_row(own_gateway: Gateway):
    """The row is found by the x-request-id of the answer, and holds no query."""
    for what, (sent, status, method, path) in HEADS.items():
        with connected(own_gateway) as connection:
            connection.sendall(sent)
            answered, request_id, body = read_to_the_end(connection)
        row = own_gateway.row_of(request_id)

        assert answered == status, what
        assert (row["status"], row["outcome"], row["error_code"]) == (status, "refused", "malformed_request")
        assert (row["method"], row["path"], row["peer"]) == (method, path, "127.0.0.1"), what
        assert (row["tenant_id"], row["bytes_out"]) == (None, len(body)), what
    assert len(own_gateway.rows()) == len(HEADS)


def test_a_body_that_breaks_under_way_has_one_row_with_what_was_answered(
    own_gateway: Gateway,
):
    """Not 499: the client was there, and was told 400."""
    key = own_gateway.key.encode()
    fields = b"Authorization: Bearer %b\r\nContent-Type: application/json\r\nExpect: 100-continue\r\n" % key
    with connected(own_gateway) as connection:
        connection.sendall(CHAT + fields + b"\r\n")
        assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"nonsense\r\n")
        answered, request_id, _ = read_to_the_end(connection)
    row = own_gateway.row_of(request_id)

    assert answered == 400
    assert (row["status"], row["outcome"], row["error_code"]) == (400, "refused", "malformed_request")
    assert row["key_prefix"] == own_gateway.key[:11]
    assert len(own_gateway.rows()) == 1
