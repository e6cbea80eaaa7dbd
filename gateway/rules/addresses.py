"""Addresses and networks: what is meant by their text, and who is among whom.

An IPv4 address that came over an IPv6 socket (`::ffff:192.0.2.1`) is that IPv4 address: no list has to name
it twice, and none is got around by it.
"""

import ipaddress
from collections.abc import Iterable
from typing import Final

from gateway.model import Network

MAX_NETWORKS: Final = 64
_MAPPED: Final = ipaddress.IPv6Network("::ffff:0:0/96")


def is_address(text: str) -> bool:
    """Whether it is an address that crossed a network: behind a `%` an IPv6 zone may hold any text."""
    return _address(text) is not None


def is_among(address: str, networks: Iterable[Network]) -> bool:
    """Whether an address is in one of these; what is no address is in none."""
    parsed = _address(address)
    return parsed is not None and any(parsed in network for network in networks)


def networks_of(text: str) -> tuple[Network, ...]:
    """A comma list of networks and addresses, each once and in its shortest form.

    Raises ValueError, with a sentence, for an empty list, for what is no network, and for one whose address
    has bits beyond its mask: it may mean the address, or the network.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    networks = tuple(dict.fromkeys(map(_network, parts)))
    if not 1 <= len(networks) <= MAX_NETWORKS:
        raise ValueError(f"expected 1 to {MAX_NETWORKS} networks, such as 10.0.0.0/8 or 2001:db8::/32.")
    return networks


def written(networks: Iterable[Network]) -> str:
    """What `networks_of` reads; "" for none."""
    return ",".join(map(str, networks))


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv4Address):
        return address
    return None if "%" in text else address.ipv4_mapped or address


def is_loopback(host: str) -> bool:
    """Whether this name or address is this machine, reached from nowhere else."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"


def _network(text: str) -> Network:
    try:
        network = ipaddress.ip_network(text)
    except ValueError:
        raise ValueError(f"{text[:64]!a} is no network{_hint(text)}") from None
    if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(_MAPPED):
        shortened = network.prefixlen - _MAPPED.prefixlen
        return ipaddress.IPv4Network((int(network.network_address) & 0xFFFFFFFF, shortened))
    return network


def _hint(text: str) -> str:
    try:
        return f"; did you mean {ipaddress.ip_network(text, strict=False)}?"
    except ValueError:
        return ": expected one such as 10.0.0.0/8, 192.0.2.7 or 2001:db8::/32."
