"""Budgets: bounds the prompt, asks for an output, and plans what is reserved; Admission takes it."""

from collections.abc import Awaitable
from math import floor

from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.accounting import Take, Takes
from gateway.formats.sizes import runs_of, size_of
from gateway.middleware.context import exchange_of
from gateway.middleware.zones import zone_for
from gateway.model import Demand, Exchange, Operation, Principal
from gateway.ports import Clock, PromptLore
from gateway.rules import budgets
from gateway.rules.plans import NO_TOKENS, OutputBounds, demand_of, joined, plan_of, without_places
from gateway.rules.prompts import context_of


class Budgets:
    """Add the budgets' takes, and make the plan: all or nothing, for as many tokens as are needed."""

    def __init__(
        self, app: ASGIApp, *, clock: Clock, lore: PromptLore, outputs: OutputBounds, lease_s: float
    ) -> None:
        self.app = app
        self.clock = clock
        self.lore = lore
        self.outputs = outputs
        self.lease_s = lease_s
        # Within a second no window turns: all requests of a caller take the same. By its key's account.
        self._second = 0
        self._takes: dict[str, tuple[Principal, Takes[Take]]] = {}

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        exchange = exchange_of(scope)
        if exchange.call is not None and exchange.principal is not None:
            self._plan(exchange, exchange.principal)
        return self.app(scope, receive, send)

    def _plan(self, exchange: Exchange, principal: Principal) -> None:
        exchange.takes = self._takes_of(principal, exchange.takes)
        if exchange.operation is Operation.COUNT_TOKENS:
            exchange.takes, demand = without_places(exchange.takes), NO_TOKENS
        else:
            demand = self._demand(exchange, principal)
        exchange.demand = demand
        exchange.plan = plan_of(
            principal.tenant_id,
            exchange.request_id,
            exchange.takes,
            demand,
            minimum_output=self.outputs.minimum,
            lease_s=self.lease_s,
            epoch=principal.epoch,
        )

    def _takes_of(self, principal: Principal, of_limits: tuple[Take, ...]) -> Takes[Take]:
        """Of limits and budgets. Raises LimitsUnavailable, as `zone_for`."""
        second = floor(self.clock.now())
        if second != self._second:
            self._second, self._takes = second, {}
        known = self._takes.get(principal.key_id)
        if known is None or known[0] is not principal:
            of_budgets = budgets.takes(
                principal.tenant_policy,
                principal.key_policy,
                principal.tenant_id,
                principal.key_id,
                now=second,
                zone=zone_for(principal),
            )
            known = self._takes[principal.key_id] = principal, joined(of_limits, of_budgets)
        return known[1]

    def _demand(self, exchange: Exchange, principal: Principal) -> Demand:
        call, (backend, card), model = exchange.call, exchange.target, exchange.model or ""
        return demand_of(
            size_of(call, card.own),
            context_of(backend.kind, card.context, call.sampling.num_ctx),
            self.lore.of(backend.kind, model),
            self.lore.floor_of(principal.tenant_id, backend.kind, model),
            asked_max_tokens=call.sampling.max_tokens,
            runs=runs_of(call, backend.kind, card.capabilities),
            takes=exchange.takes,
            outputs=self.outputs.capped(exchange.output_cap),
        )
