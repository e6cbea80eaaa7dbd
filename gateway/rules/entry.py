"""Entry: may a caller whose key is good come in?"""

from gateway.errors import AddressNotAllowed, GatewayError, TenantSuspended
from gateway.model import Principal
from gateway.rules.addresses import is_among


def refusal_of(principal: Principal, peer: str) -> GatewayError | None:
    """Why not, or None. `peer` is the address that the request came from, past our own proxies."""
    if principal.is_suspended:
        return TenantSuspended()
    if principal.allow_ip and not is_among(peer, principal.allow_ip):
        return AddressNotAllowed(peer)
    return None
