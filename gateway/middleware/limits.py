"""Limits: plans the takes for requests and tokens per minute and for concurrency; Admission takes them."""

from collections.abc import Awaitable

from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.middleware.context import exchange_of
from gateway.rules import limits


class Limits:
    """Begin the takes with what the policies of tenant and key say. Inference only: lists cost nothing."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        exchange = exchange_of(scope)
        principal = exchange.principal
        if exchange.call is not None and principal is not None:
            exchange.takes = limits.takes(
                principal.tenant_policy, principal.key_policy, principal.tenant_id, principal.key_id
            )
        return self.app(scope, receive, send)
