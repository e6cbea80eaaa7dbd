"""MutationBlock: what the route table refuses is refused here, before anything is read or looked up."""

from collections.abc import Awaitable

from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.errors import GatewayError
from gateway.middleware.context import exchange_of


class MutationBlock:
    """403 for every route that changes models, for everyone; and the table's default deny for the rest."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        exchange = exchange_of(scope)
        if isinstance(exchange.route, GatewayError):
            raise exchange.route
        exchange.operation = exchange.route.operation
        return self.app(scope, receive, send)
