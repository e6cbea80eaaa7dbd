"""Addresses and networks: what their text means, in whatever form it comes."""

import re

import pytest
from attrs import evolve

from gateway.errors import AddressNotAllowed, TenantSuspended
from gateway.rules.addresses import MAX_NETWORKS, is_among, networks_of, written
from gateway.rules.entry import refusal_of
from gateway.rules.request_head import peer_of
from tests.asgi import PRINCIPAL


@pytest.mark.parametrize(
    ("address", "networks", "is_in"),
    [
        ("10.1.2.3", "10.0.0.0/8", True),
        ("11.1.2.3", "10.0.0.0/8", False),
        ("192.0.2.7", "10.0.0.0/8,192.0.2.7", True),
        ("::ffff:10.1.2.3", "10.0.0.0/8", True),
        ("::ffff:11.1.2.3", "10.0.0.0/8", False),
        ("10.1.2.3", "::ffff:10.0.0.0/104", True),
        ("2001:db8::7", "2001:db8::/32", True),
        ("2001:DB8:0::7", "2001:db8::7", True),
        ("2001:db9::7", "2001:db8::/32", False),
        ("10.1.2.3", "::/0", False),
        ("2001:db8::7", "0.0.0.0/0", False),
        ("fe80::1%eth0", "::/0", False),
        ("", "0.0.0.0/0,::/0", False),
        ("unknown", "0.0.0.0/0,::/0", False),
        ("010.1.2.3", "0.0.0.0/0", False),
    ],
)
def test_an_address_is_in_a_network_in_whatever_form_it_comes(address, networks, is_in):
    """IPv4 in IPv6 is IPv4; what is no address is nowhere."""
    assert is_among(address, networks_of(networks)) is is_in


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("10.0.0.0/8", "10.0.0.0/8"),
        (" 192.0.2.7 , 10.0.0.0/8,192.0.2.7/32,", "192.0.2.7/32,10.0.0.0/8"),
        ("2001:DB8::/32", "2001:db8::/32"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("::ffff:192.0.2.7", "192.0.2.7/32"),
        ("::/0", "::/0"),
    ],
)
def test_networks_are_kept_once_and_in_their_shortest_form(text, kept):
    """And what is kept is read as the same."""
    assert written(networks_of(text)) == kept
    assert networks_of(kept) == networks_of(text)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("10.0.0.1/8", "'10.0.0.1/8' is no network; did you mean 10.0.0.0/8?"),
        ("example.com", "'example.com' is no network: expected one such as 10.0.0.0/8"),
        ("10.0.0.0/33", "'10.0.0.0/33' is no network: expected"),
        ("\x1b[31m", r"'\x1b[31m' is no network"),
        (",", f"expected 1 to {MAX_NETWORKS} networks"),
        (",".join(f"10.0.0.{n}" for n in range(65)), f"expected 1 to {MAX_NETWORKS} networks"),
    ],
)
def test_what_is_no_network_is_told(text, sentence):
    """With the one that was most likely meant, and nothing that a terminal would obey."""
    with pytest.raises(ValueError, match="^" + re.escape(sentence)):
        networks_of(text)


def test_a_proxy_on_a_socket_for_both_families_is_trusted_by_its_ipv4_address():
    """The kernel shows it as ::ffff:127.0.0.1."""
    trusted = networks_of("127.0.0.0/8")

    assert peer_of("::ffff:127.0.0.1", "192.0.2.9", trusted) == "192.0.2.9"
    assert peer_of("::ffff:128.0.0.1", "192.0.2.9", trusted) == "::ffff:128.0.0.1"


def test_a_good_key_comes_in_from_where_it_may():
    """Without a list, from anywhere, whatever the peer."""
    listed = evolve(PRINCIPAL, allow_ip=networks_of("10.0.0.0/8"))

    assert refusal_of(PRINCIPAL, "") is None
    assert refusal_of(listed, "10.0.0.1") is None
    assert isinstance(refusal_of(listed, "192.0.2.1"), AddressNotAllowed)
    assert isinstance(refusal_of(listed, ""), AddressNotAllowed)


def test_a_suspended_tenant_is_told_first():
    """Another address would not help."""
    principal = evolve(PRINCIPAL, is_suspended=True, allow_ip=networks_of("10.0.0.0/8"))

    assert isinstance(refusal_of(principal, "192.0.2.1"), TenantSuspended)
