"""Auth: nothing that costs or reveals comes before knowing who asks."""

from collections.abc import Awaitable

from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.errors import Unauthenticated
from gateway.middleware.context import exchange_of
from gateway.model import Exchange, Principal
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

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        exchange = exchange_of(scope)
        if exchange.operation is not None and exchange.operation.is_public:
            return self.app(scope, receive, send)
        token = _token_of(exchange)
        known = self.authenticator.at_once(token)
        if known is None:
            return self._asked(exchange, token, scope, receive, send)
        _let_in(exchange, known)
        return self.app(scope, receive, send)

    async def _asked(
        self, exchange: Exchange, token: str, scope: Scope, receive: Receive, send: Send
    ) -> None:
        _let_in(exchange, await self.authenticator.principal_of(token))
        await self.app(scope, receive, send)


async def identify(exchange: Exchange, authenticator: Authenticator, epoch: int) -> None:
    """Say in the Exchange who asks, as it was at the revision `epoch` or is since."""
    _let_in(exchange, await authenticator.principal_of(_token_of(exchange), epoch))


def _token_of(exchange: Exchange) -> str:
    token = token_of(exchange.head, exchange.surface)
    if isinstance(token, str):
        return token
    raise token or Unauthenticated()


def _let_in(exchange: Exchange, found: Principal | Unauthenticated | None) -> None:
    exchange.principal = found if isinstance(found, Principal) else None
    if not isinstance(found, Principal):
        raise found or Unauthenticated()
    refusal = refusal_of(found, exchange.peer)
    if refusal is not None:
        raise refusal
