"""Auth: nothing that costs or reveals comes before knowing who asks."""

from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.errors import MalformedRequest, Unauthenticated
from gateway.middleware.context import exchange_of
from gateway.ports import Authenticator
from gateway.rules.request_head import token_of


class Auth:
    """Put the Principal into the Exchange, or raise Unauthenticated: one sentence for every bad key."""

    def __init__(self, app: ASGIApp, *, authenticator: Authenticator) -> None:
        self.app = app
        self.authenticator = authenticator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            exchange = exchange_of(scope)
            if exchange.operation is None or not exchange.operation.is_public:
                token = token_of(exchange.head, exchange.surface)
                if isinstance(token, MalformedRequest):
                    raise token
                exchange.principal = await self.authenticator.principal_of(token) if token else None
                if exchange.principal is None:
                    raise Unauthenticated
        await self.app(scope, receive, send)
