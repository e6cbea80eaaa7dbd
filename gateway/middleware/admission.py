"""Admission: one atomic call takes all that was planned, or nothing; a settler ends what was taken."""

from collections.abc import Awaitable, Iterable
from functools import lru_cache

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.accounting import (
    BucketTake,
    BudgetTake,
    Evidence,
    LedgerEntry,
    Plan,
    Refused,
    Standing,
    Taken,
    settled,
)
from gateway.errors import GatewayError
from gateway.formats.chat import bounded
from gateway.middleware.context import exchange_of
from gateway.middleware.counting import Counting
from gateway.middleware.settler import Settler
from gateway.model import Exchange, Principal
from gateway.ports import Allowances
from gateway.rules import budgets, limits
from gateway.rules.audit import row_of
from gateway.rules.quota_headers import headers_of, headers_of_taken


class Admission:
    """Take the plan, clamp the output to what was granted, and let the settler have the rest.

    The end of an answer waits for the counters for `settling_s` at most.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        allowances: Allowances,
        settler: Settler,
        counting: Counting,
        settling_s: float,
    ) -> None:
        self.app = app
        self.allowances = allowances
        self.settler = settler
        self.counting = counting
        self.settling_s = settling_s

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        exchange = exchange_of(scope)
        if exchange.plan is None or exchange.principal is None:
            return self.app(scope, receive, send)
        return self._admitted(exchange.plan, exchange.principal, scope, receive, send)

    async def _admitted(
        self, plan: Plan, principal: Principal, scope: Scope, receive: Receive, send: Send
    ) -> None:
        exchange = exchange_of(scope)
        taken = await self.allowances.take(plan)
        if isinstance(taken, Refused):
            taken = await self._taken_after_all(exchange, principal, taken)
        intent = _intent_of(exchange, principal, plan, taken)
        self.settler.begin(intent, row_of(exchange, exchange.started))
        exchange.is_admitted = True
        told = _Told(send, self, exchange, taken, intent)
        try:
            await self._clamp(exchange, principal, taken)
            await self.app(scope, receive, told)
        finally:
            # No await in here: whatever ended the request, what it reserved is settled.
            told.settle()

    async def _taken_after_all(self, exchange: Exchange, principal: Principal, refused: Refused) -> Taken:
        """What was refused for its tokens may be less once it is counted. Raises what the caller is told."""
        verdict = await self._take_counted(exchange, refused) if _counts_tokens(refused.standing) else refused
        if isinstance(verdict, Refused):
            raise self._refusal(exchange, principal, verdict)
        return verdict

    async def _take_counted(self, exchange: Exchange, refused: Refused) -> Taken | Refused:
        """Count and ask again: so far nothing was taken."""
        spared = exchange.plan.spared if exchange.plan else 0
        took_s = await self.counting.recount(exchange, free=limits.room_of(refused.standing, spared))
        if took_s is None or exchange.plan is None:
            return refused
        verdict = await self.allowances.take(exchange.plan)
        if isinstance(verdict, Refused):
            self.counting.was_in_vain(exchange.plan.tenant_id, took_s)
        return verdict

    async def _clamp(self, exchange: Exchange, principal: Principal, taken: Taken) -> None:
        """Send upstream what was granted, not what was asked."""
        if exchange.plan and taken.tokens < exchange.plan.tokens_wanted:
            # What the prompt does not need is the output's; or the prompt needs more than was thought.
            await self.counting.recount(exchange, free=taken.tokens)
            if taken.tokens < exchange.plan.tokens_needed:
                raise self._refusal(exchange, principal, Refused(_tightest(taken.standings), taken.now, None))
        if (demand := exchange.demand) is None:
            return
        exchange.output_allowed = budgets.clamped_output(
            taken.tokens, demand.prompt_bound, demand.output, demand.runs
        )
        exchange.call = bounded(exchange.call, await self.counting.fitting(exchange))

    def _refusal(self, exchange: Exchange, principal: Principal, refused: Refused) -> GatewayError:
        exchange.headers = headers_of((refused.standing,), refused.now)
        return limits.refusal_of(
            refused,
            key=principal.key,
            tenant=principal.tenant,
            tokens_needed=exchange.plan.tokens_needed if exchange.plan else 0,
            spared=exchange.plan.spared if exchange.plan else 0,
            at_least=self.counting.least_needed(exchange),
        )


class _Told:
    """The `send` of an admitted request: its head says what is left, and before its end it is settled.

    So a caller that has the whole answer, or the last frame of a stream, finds what it did not use given
    back and its slot free, at every replica.
    """

    __slots__ = ("admission", "exchange", "intent", "is_settled", "send", "settlement", "taken")

    def __init__(
        self, send: Send, admission: Admission, exchange: Exchange, taken: Taken, intent: LedgerEntry
    ) -> None:
        self.send = send
        self.admission = admission
        self.exchange = exchange
        self.taken = taken
        self.intent = intent
        self.is_settled = False
        # Of a whole answer it is known, and told, when its head goes out.
        self.settlement: budgets.Settlement | None = None

    def __call__(self, message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            message["headers"].extend(headers_of_taken(self.taken, self._given_back()))
        elif not self.is_settled and (self.exchange.is_all_counted or not message.get("more_body", False)):
            # Nothing can come any more that costs; of a stream also before the frame that says so.
            settling = self.admission.settler.end_within(
                self.admission.settling_s, self._ended(), self.exchange.busy_s
            )
            if settling is not None:
                return self._send_after(settling, message)
        return self.send(message)

    async def _send_after(self, settling: Awaitable[None], message: Message) -> None:
        await settling
        await self.send(message)

    def settle(self) -> None:
        """Settle by what the exchange knows, unless that is done; wait for nothing."""
        if not self.is_settled:
            self.admission.settler.end(self._ended(), self.exchange.busy_s)

    def _ended(self) -> LedgerEntry:
        """What it has cost."""
        self.is_settled = True
        self.admission.counting.compare(self.exchange)
        settlement = self.settlement or _settlement(self.exchange, self.taken.tokens)
        return settled(
            self.intent,
            prompt_tokens=settlement.prompt_tokens,
            completion_tokens=settlement.completion_tokens,
            estimated=settlement.estimated,
            backend=self.exchange.backend or "",
        )

    def _given_back(self) -> int | None:
        """What a whole answer did not use; of a stream nothing is known yet."""
        if self.exchange.stream:
            return None
        self.settlement = _settlement(self.exchange, self.taken.tokens)
        return max(0, self.taken.tokens - self.settlement.tokens)


def _tightest(standings: Iterable[Standing]) -> Standing:
    """Of what limits tokens, where the fewest are left."""
    return min(filter(_counts_tokens, standings), key=lambda standing: limits.remaining_of(standing) or 0)


def _counts_tokens(standing: Standing) -> bool:
    is_counted = isinstance(standing.take, BucketTake | BudgetTake)
    return is_counted and limits.limit_of(standing.take) is not None


def _settlement(exchange: Exchange, reserved: int) -> budgets.Settlement:
    if not exchange.is_dispatched or exchange.demand is None:
        return budgets.FREE
    return budgets.settlement(exchange.demand.prompt_bound, exchange.counted, exchange.pieces, reserved)


def _intent_of(exchange: Exchange, principal: Principal, plan: Plan, taken: Taken) -> LedgerEntry:
    day, month = _day_and_month(taken.periods)
    return LedgerEntry(
        reservation_id=plan.reservation_id,
        tenant_id=principal.tenant_id,
        key_id=principal.key_id,
        model=exchange.model or "",
        admitted_at=taken.now,
        day=day,
        month=month,
        reserved=taken.tokens,
        tokens=taken.tokens,
        prompt_tokens=0,
        completion_tokens=0,
        estimated=True,
        evidence=Evidence.INTENT,
    )


# Most requests are charged to the same periods as the one before.
@lru_cache(maxsize=256)
def _day_and_month(periods: tuple[str, ...]) -> tuple[str, str]:
    """Of the periods that were charged, known by how they are written."""
    by_length = {len(period): period for period in periods}
    return by_length[len("2026-11-23")], by_length[len("2026-11")]
