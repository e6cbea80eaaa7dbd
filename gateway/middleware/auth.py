"""Auth: nothing that costs or reveals comes before knowing who asks."""

from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.errors import MalformedRequest, Unauthenticated
from gateway.middleware.context import exchange_of
from gateway.model import Exchange
from gateway.ports import Authenticator
from gateway.rules.entry import refusal_of
from gateway.rules.request_head import token_of


class Auth:
    """Put the Principal into the Exchange, or raise Unauthenticated: one sentence for every bad key.

    A good key of a suspended tenant, or from an address that it is not for, is told so: 403.
    """

    def __init__(self, app: ASGIApp, *, authenticator: Authenticator) -> None:
        self.app = app
        self.authenticator = authenticator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = exchange_of(scope)
        if exchange.operation is None or not exchange.operation.is_public:
            await identify(exchange, self.authenticator)
        await self.app(scope, receive, send)


async def identify(exchange: Exchange, authenticator: Authenticator, epoch: int = 0) -> None:
    """Say in the Exchange who asks, as it was at the revision `epoch` or is since."""
    token = token_of(exchange.head, exchange.surface)
    if isinstance(token, MalformedRequest):
        raise token
    exchange.principal = await authenticator.principal_of(token, epoch) if token else None
    if exchange.principal is None:
        raise Unauthenticated
    refusal = refusal_of(exchange.principal, exchange.peer)
    if refusal is not None:
        raise refusal
