"""Renewal: what was decided by old knowledge of the caller is decided anew, before anything is taken for it.

Counters are told of a change by whoever makes it, and so know it at once; a replica reads it a moment later,
or not at all while its database is away. What the counters refuse as outdated has cost nothing so far, so the
layers below are simply asked again: each of them writes its slots of the Exchange, and adds to none.
"""

from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.errors import Outdated
from gateway.middleware.auth import identify
from gateway.middleware.context import exchange_of
from gateway.model import Exchange
from gateway.ports import Allowances, Authenticator

# One is enough, unless there is another change meanwhile.
ROUNDS: Final = 3


class Renewal:
    """Let the request in by what is known now: by other limits, or not at all."""

    def __init__(self, app: ASGIApp, *, authenticator: Authenticator, allowances: Allowances) -> None:
        self.app = app
        self.authenticator = authenticator
        self.allowances = allowances

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = exchange_of(scope)
        for rounds_left in reversed(range(ROUNDS)):
            try:
                if self.authenticator.is_cut_off:
                    await self._confirm(exchange)
                await self.app(scope, receive, send)
            except Outdated as outdated:
                if rounds_left == 0:
                    raise
                await identify(exchange, self.authenticator, outdated.epoch)
            else:
                return

    async def _confirm(self, exchange: Exchange) -> None:
        """What takes nothing meets no counters: while there is nobody else to ask, ask them."""
        principal = exchange.principal
        takes_nothing = exchange.operation is None or not exchange.operation.is_inference
        if takes_nothing and principal is not None:
            await self.allowances.confirm(principal.tenant_id, principal.epoch)
