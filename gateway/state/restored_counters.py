"""Counters that ask the ledger about tenants that they do not know: it is the truth, they are a view."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Final, TypeVar

from loguru import logger

from gateway.accounting import BudgetTake, Cold, Outlook, Plan, Refused, Scope, Stale, Sum, Taken
from gateway.errors import LimitsUnavailable, Outdated
from gateway.ports import Counters, Drainage, KeyStore, LedgerStore

# A caller waits so long for a tenant to be restored; it goes on without the caller.
PATIENCE_S: Final = 2.0
_TOTAL: Final = "total"

_T = TypeVar("_T")


class RestoredCounters:
    """`take` and `look` of a store that may be empty: after a restart, or when it lost its memory.

    `drainage` makes sure that the ledger has what any process has noted.
    """

    def __init__(
        self,
        counters: Counters,
        ledger: LedgerStore,
        keys: KeyStore,
        drainage: Drainage,
        *,
        lease_s: float,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._counters = counters
        self._ledger = ledger
        self._keys = keys
        self._drainage = drainage
        self._lease_s = lease_s
        self._patience_s = patience_s
        self._restoring: dict[str, asyncio.Task[None]] = {}
        # The last plan of each tenant since `forget_what_is_behind` was called.
        self._recent: dict[str, Plan] = {}

    async def take(self, plan: Plan) -> Taken | Refused:
        """As `ports.Allowances.take`."""
        self._recent[plan.tenant_id] = plan
        verdict = await self._counters.take(plan)
        if isinstance(verdict, Taken):
            return verdict
        return await self._known(verdict, plan, self._counters.take)

    async def look(self, plan: Plan) -> Outlook:
        """As `ports.Allowances.look`."""
        return await self._known(await self._counters.look(plan), plan, self._counters.look)

    async def confirm(self, tenant_id: str, epoch: int) -> None:
        """As `ports.Allowances.confirm`."""
        nothing = Plan(tenant_id, "", (), tokens_needed=0, tokens_wanted=0, lease_s=0.0, epoch=epoch)
        answer = await self._counters.look(nothing)
        if isinstance(answer, Cold | Stale):
            raise _refusal(answer)

    async def forget_what_is_behind(self) -> None:
        """Of each tenant that took something since the last time: forget it, if the ledger knows of more.

        The next take finds it cold. As when Redis came back from an earlier copy, and no process is left that
        saw what it lost. Raises StoreUnavailable.
        """
        recent, self._recent = self._recent, {}
        for tenant_id, plan in recent.items():
            if await self._is_behind(plan):
                logger.error(f"the counters of the tenant {tenant_id} know less than the ledger: restored")
                await self._counters.forget(tenant_id)

    async def _is_behind(self, plan: Plan) -> bool:
        """Whether the ledger has more than what is spent and reserved here.

        The ledger is read first: what it has by then has ended, and is at least reserved here still.
        """
        by_ledger = _total_of(await self._ledger.sums(plan.tenant_id, [_TOTAL]))
        outlook = await self._counters.look(plan)
        if by_ledger is None or not isinstance(outlook, Outlook):
            return False
        return any(
            by_ledger.spent > standing.used + standing.reserved
            for standing in outlook.standings
            if isinstance(standing.take, BudgetTake)
            and standing.take.scope is Scope.TENANT
            and standing.take.periods[0].id == _TOTAL
        )

    # ── restoring ────────────────────────────────────────────────────────────────────────

    async def _known(
        self, answer: _T | Cold | Stale, plan: Plan, ask: Callable[[Plan], Awaitable[_T | Cold | Stale]]
    ) -> _T:
        """The answer, or one of counters that were told of the tenant. Raises Outdated, LimitsUnavailable."""
        if isinstance(answer, Cold):
            await self._restore(plan, answer)
            answer = await ask(plan)
        if isinstance(answer, Cold | Stale):
            raise _refusal(answer)
        return answer

    async def _restore(self, plan: Plan, cold: Cold) -> None:
        """Once for all who ask about the same tenant at the same time. Raises LimitsUnavailable."""
        task = self._restoring.get(plan.tenant_id)
        if task is None:
            task = self._restoring[plan.tenant_id] = asyncio.create_task(self._tell(plan, cold))
            task.add_done_callback(partial(self._told, plan.tenant_id))
        await asyncio.wait([task], timeout=self._patience_s)
        if not task.done():
            raise LimitsUnavailable
        task.result()

    async def _tell(self, plan: Plan, cold: Cold) -> None:
        takes = [take for take in plan.takes if isinstance(take, BudgetTake)]
        periods = sorted({period.id for take in takes for period in take.periods})
        if cold.lost:
            await self._drainage.drained()
        sums, intents = await self._ledger.snapshot(plan.tenant_id, periods)
        # The last thing to be read: whatever was raised before the store lost it is not newer.
        epoch = await self._keys.revision()
        await self._counters.restore(plan.tenant_id, sums, intents, self._lease_s, epoch)

    def _told(self, tenant_id: str, task: asyncio.Task[None]) -> None:
        del self._restoring[tenant_id]
        if not task.cancelled():
            task.exception()  # seen, also when everybody who waited has left


def _total_of(sums: Iterable[Sum]) -> Sum | None:
    """What the tenant as a whole has spent and reserved ever."""
    return next((one for one in sums if one.scope is Scope.TENANT), None)


def _refusal(answer: Cold | Stale) -> LimitsUnavailable:
    return Outdated(answer.epoch) if isinstance(answer, Stale) else LimitsUnavailable()
