"""The head of a request: the few headers that decide anything, each there at most once.

What is not named here is neither used nor forwarded (security.md B).
"""

import re
from collections.abc import Iterable
from typing import Final

from gateway.errors import GatewayError, MalformedRequest, MisdirectedRequest
from gateway.model import Network, RequestHead, Surface
from gateway.rules.addresses import is_address, is_among

Headers = Iterable[tuple[bytes, bytes]]

# Twice any of these, and two parsers may each pick another one.
_ONCE: Final = frozenset(
    {
        b"host",
        b"authorization",
        b"x-api-key",
        b"content-type",
        b"content-length",
        b"content-encoding",
        b"transfer-encoding",
    }
)
_NAMED: Final = _ONCE | {b"accept", b"user-agent", b"x-request-id", b"x-forwarded-for", b"prefer"}

# RFC 9110 7.2: host and port alone; user information, a path or white space would be another authority.
_HOST: Final = re.compile(rb"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_BEARER: Final = re.compile(r"(?i:bearer) ([!-~]+)")
_TOKEN: Final = re.compile(r"[!-~]+")


def head_of(headers: Headers) -> RequestHead:
    """Pick the headers that are used. `headers` has lower-case names, in the order received."""
    fields: dict[bytes, bytes] = {}
    repeated = None
    for name, value in headers:
        if name not in _NAMED:
            continue
        if name not in fields:
            fields[name] = value
        elif name in _ONCE:
            repeated = name
        elif name == b"x-forwarded-for":
            fields[name] += b"," + value
    return RequestHead(fields, repeated)


# RFC 7240 4.3. Five digits are more than a day.
_WAIT: Final = re.compile(rb"(?:^|[,;\s])wait\s*=\s*([0-9]{1,5})(?![0-9])", re.IGNORECASE)


def patience_of(head: RequestHead) -> float | None:
    """For how many seconds the caller wants to wait in a queue (`Prefer: wait=10`); None where it does not
    say.

    A preference: what can't be read is as if it was not there.
    """
    found = _WAIT.search(head.fields.get(b"prefer", b""))
    return None if found is None else float(found[1])


def refusal_of(head: RequestHead, http_version: str, allowed_hosts: frozenset[str]) -> GatewayError | None:
    """Why this head can't be served, or None. An empty `allowed_hosts` allows any."""
    if head.repeated is not None:
        return MalformedRequest(f"The header '{head.repeated.decode()}' came more than once; send it once.")
    if b"content-length" in head.fields and b"transfer-encoding" in head.fields:
        return MalformedRequest("Content-Length and Transfer-Encoding came together; send one of them.")
    host = head.fields.get(b"host")
    if host is None:
        return None if http_version == "1.0" else MalformedRequest("The Host header is missing.")
    if not _HOST.fullmatch(host):
        return MalformedRequest("The Host header is not a host name with an optional port.")
    if allowed_hosts and _name_of(host) not in allowed_hosts:
        return MisdirectedRequest()
    return None


def token_of(head: RequestHead, surface: Surface) -> str | MalformedRequest | None:
    """What stands behind `Authorization: Bearer`, unchecked; None for anything else.

    Anthropic's callers may send it as `x-api-key` instead. Not both: they may be of two different callers.
    """
    if surface is Surface.ANTHROPIC and b"x-api-key" in head.fields:
        if b"authorization" in head.fields:
            return MalformedRequest("Authorization and x-api-key came together; send one of them.")
        key = head.text(b"x-api-key") or ""
        return key if _TOKEN.fullmatch(key) else None
    match = _BEARER.fullmatch(head.text(b"authorization") or "")
    return match[1] if match else None


def peer_of(connected: str, forwarded_for: str | None, trusted: tuple[Network, ...]) -> str:
    """The address that a request came from: the nearest one that is no trusted proxy.

    X-Forwarded-For is read from the right, where our own proxies wrote; what stands further left
    is the caller's word. Anything that is no address ends the search.
    """
    if forwarded_for is None or not trusted:
        return connected
    peer = connected
    hops = forwarded_for.split(",")
    while hops and is_among(peer, trusted):
        hop = hops.pop().strip()
        if not is_address(hop):
            break
        peer = hop
    return peer


def _name_of(host: bytes) -> str:
    return re.sub(r":[0-9]+\Z", "", host.decode("ascii")).lower()
