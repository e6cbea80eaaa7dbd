"""Budgets: bounds the prompt, asks for an output, and plans what is reserved; Admission takes it."""

from collections.abc import Iterable

from attrs import frozen
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.accounting import BucketTake, BudgetTake, Plan, Take
from gateway.formats.sizes import runs_of, size_of
from gateway.middleware.context import exchange_of
from gateway.middleware.zones import zone_for
from gateway.model import Demand, Exchange
from gateway.ports import Clock
from gateway.rules import budgets
from gateway.rules.limits import limit_of


@frozen
class OutputBounds:
    """Tokens of output: the most, what is reserved unless the caller says, and the least worth having."""

    cap: int
    default: int
    """Only where tokens are limited: an unbounded caller has no reason to ask for less than the cap."""
    minimum: int


class Budgets:
    """Add the budgets' takes, and make the plan: all or nothing, for as many tokens as are needed."""

    def __init__(self, app: ASGIApp, *, clock: Clock, outputs: OutputBounds, lease_s: float) -> None:
        self.app = app
        self.clock = clock
        self.outputs = outputs
        self.lease_s = lease_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            exchange = exchange_of(scope)
            if exchange.call is not None and exchange.principal is not None:
                self._plan(exchange)
        await self.app(scope, receive, send)

    def _plan(self, exchange: Exchange) -> None:
        principal = exchange.principal
        if principal is None:
            return
        exchange.takes += budgets.takes(
            principal.tenant_policy,
            principal.key_policy,
            principal.tenant_id,
            principal.key_id,
            now=self.clock.now(),
            zone=zone_for(principal),
        )
        exchange.demand = demand = self._demand(exchange)
        exchange.plan = Plan(
            tenant_id=principal.tenant_id,
            reservation_id=exchange.request_id,
            takes=exchange.takes,
            tokens_needed=budgets.tokens_needed(
                demand.prompt_bound, demand.output, self.outputs.minimum, demand.runs
            ),
            tokens_wanted=budgets.tokens_wanted(demand.prompt_bound, demand.output, demand.runs),
            lease_s=self.lease_s,
        )

    def _demand(self, exchange: Exchange) -> Demand:
        call, (backend, _) = exchange.call, exchange.target
        asked, cap = call.sampling.max_tokens, self.outputs.cap
        default = self.outputs.default if _limits_tokens(exchange.takes) else cap
        return Demand(
            # No context: the caller's own num_ctx would let it name its bound, where a backend has another.
            prompt_bound=budgets.prompt_bound(size_of(call), context=None),
            output=budgets.output_wanted(asked, cap, min(default, cap)),
            runs=runs_of(call, backend.kind),
        )


def _limits_tokens(takes: Iterable[Take]) -> bool:
    return any(limit_of(take) is not None for take in takes if isinstance(take, BucketTake | BudgetTake))
