"""The head of a request: what is picked from it, and what refuses it."""

import ipaddress

import pytest

from gateway.errors import MalformedRequest, MisdirectedRequest
from gateway.model import RequestHead, Surface
from gateway.rules.request_head import head_of, patience_of, peer_of, refusal_of, token_of

HOST = (b"host", b"gateway.example")


def test_only_named_headers_are_picked():
    """What is not named is neither used nor forwarded."""
    head = head_of(
        [HOST, (b"cookie", b"a=b"), (b"x-http-method-override", b"DELETE"), (b"user-agent", b"curl")]
    )

    assert head == RequestHead({b"host": b"gateway.example", b"user-agent": b"curl"})


@pytest.mark.parametrize("name", ["host", "authorization", "x-api-key", "content-type", "content-length"])
def test_a_deciding_header_may_come_once(name: str):
    """Twice, and two parsers may each believe another one."""
    headers = [HOST] if name != "host" else []
    head = head_of([*headers, (name.encode(), b"1"), (name.encode(), b"1")])

    assert isinstance(refusal_of(head, "1.1", frozenset()), MalformedRequest)


@pytest.mark.parametrize(
    ("prefer", "patience"),
    [
        (b"wait=10", 10.0),
        (b"respond-async, Wait = 5", 5.0),
        (b"return=minimal; wait=0", 0.0),
        (b"await=10", None),
        (b"wait=soon", None),
        (b"wait=1000000", None),
        (b"", None),
    ],
)
def test_a_caller_may_say_how_long_it_waits(prefer: bytes, patience: float | None):
    """A preference only: what can't be read is no reason to refuse."""
    assert patience_of(head_of([HOST, (b"prefer", prefer)])) == patience
    assert patience_of(head_of([HOST])) is None


def test_length_and_encoding_together_are_refused():
    head = head_of([HOST, (b"content-length", b"3"), (b"transfer-encoding", b"chunked")])

    assert isinstance(refusal_of(head, "1.1", frozenset()), MalformedRequest)


@pytest.mark.parametrize(
    "host", [b"localhost", b"a.example:8080", b"127.0.0.1:1", b"[::1]:8080", b"a_b.example", b"LOCALHOST"]
)
def test_plain_hosts_pass(host: bytes):
    assert refusal_of(head_of([(b"host", host)]), "1.1", frozenset()) is None


@pytest.mark.parametrize(
    "host", [b"", b"a/x?y=", b"a#", b"a\\b", b"user@a", b"a b", b"a,b", b"a:", b"a:123456", b"[::1", b"\xe4"]
)
def test_a_host_that_is_more_than_a_host_is_refused(host: bytes):
    """Starlette's "BadHost" (CVE-2026-48710): a Host that a URL builder reads as a path."""
    assert isinstance(refusal_of(head_of([(b"host", host)]), "1.1", frozenset()), MalformedRequest)


def test_a_missing_host_is_refused_except_in_http_1_0():
    assert isinstance(refusal_of(head_of([]), "1.1", frozenset()), MalformedRequest)
    assert refusal_of(head_of([]), "1.0", frozenset()) is None


def test_only_allowed_hosts_are_served():
    """GATEWAY_ALLOWED_HOSTS: port and case do not matter."""
    allowed = frozenset({"gateway.example"})

    assert refusal_of(head_of([(b"host", b"Gateway.Example:8080")]), "1.1", allowed) is None
    assert isinstance(refusal_of(head_of([(b"host", b"evil.example")]), "1.1", allowed), MisdirectedRequest)


@pytest.mark.parametrize("value", [b"Bearer nz_x", b"bearer nz_x", b"BEARER nz_x"])
def test_the_scheme_is_read_without_regard_to_case(value: bytes):
    """RFC 9110 11.1."""
    assert token_of(head_of([(b"authorization", value)]), Surface.OPENAI) == "nz_x"


@pytest.mark.parametrize(
    "value", [b"", b"Bearer", b"Bearer ", b"Basic nz_x", b"nz_x", b"Bearer\tnz_x", b"Bearer  nz_x",
              b"Bearer nz_x y", b"Bearer nz_x ", b"Bearer nz_\xe4", b" Bearer nz_x"],
)  # fmt: skip
def test_anything_else_is_no_token(value: bytes):
    assert token_of(head_of([(b"authorization", value)]), Surface.ANTHROPIC) is None


@pytest.mark.parametrize(
    ("headers", "surface", "token"),
    [
        pytest.param([(b"x-api-key", b"nz_x")], Surface.ANTHROPIC, "nz_x", id="Anthropic's own"),
        pytest.param([(b"authorization", b"Bearer nz_x")], Surface.ANTHROPIC, "nz_x", id="bearer there too"),
        pytest.param([(b"x-api-key", b"nz_x")], Surface.OPENAI, None, id="nowhere else"),
        pytest.param(
            [(b"x-api-key", b"nz_y"), (b"authorization", b"Bearer nz_x")],
            Surface.OPENAI,
            "nz_x",
            id="elsewhere it is no credential",
        ),
        pytest.param([(b"x-api-key", b"")], Surface.ANTHROPIC, None, id="an empty one"),
        pytest.param([(b"x-api-key", b"nz_x y")], Surface.ANTHROPIC, None, id="more than a key"),
        pytest.param([(b"x-api-key", b"Bearer nz_x")], Surface.ANTHROPIC, None, id="a scheme"),
    ],
)
def test_anthropics_callers_may_send_the_key_alone(
    headers: list[tuple[bytes, bytes]], surface: Surface, token: str | None
):
    assert token_of(head_of(headers), surface) == token


def test_two_credentials_are_refused_where_both_are_known():
    """They may be of two different callers, also when one is empty or the other's twin."""
    head = head_of([(b"x-api-key", b"nz_x"), (b"authorization", b"Bearer nz_x")])

    assert isinstance(token_of(head, Surface.ANTHROPIC), MalformedRequest)


TRUSTED = (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("::1/128"))


@pytest.mark.parametrize(
    ("connected", "forwarded", "expected"),
    [
        pytest.param("203.0.113.9", "198.51.100.1", "203.0.113.9", id="a stranger's word is not believed"),
        pytest.param("10.0.0.1", "198.51.100.1", "198.51.100.1", id="our proxy's word is"),
        pytest.param(
            "10.0.0.1", "1.2.3.4, 198.51.100.1", "198.51.100.1", id="only what the proxy wrote itself"
        ),
        pytest.param("10.0.0.1", "1.2.3.4, 198.51.100.1, 10.0.0.2", "198.51.100.1", id="through two proxies"),
        pytest.param("10.0.0.1", None, "10.0.0.1", id="no header"),
        pytest.param("10.0.0.1", "nonsense", "10.0.0.1", id="nonsense ends the search"),
        pytest.param("10.0.0.1", "fe80::1%any text", "10.0.0.1", id="a zone is no part of an address"),
        pytest.param("10.0.0.1", "10.0.0.2", "10.0.0.2", id="nobody but proxies"),
        pytest.param("::1", "198.51.100.1", "198.51.100.1", id="IPv6 proxy"),
        pytest.param("", "198.51.100.1", "", id="a socket without an address"),
    ],
)
def test_the_peer_is_the_nearest_address_that_is_no_proxy(
    connected: str, forwarded: str | None, expected: str
):
    assert peer_of(connected, forwarded, TRUSTED) == expected


def test_nobody_is_trusted_unless_named():
    assert peer_of("127.0.0.1", "198.51.100.1", ()) == "127.0.0.1"
