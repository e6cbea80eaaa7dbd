"""Counters that ask the ledger about tenants that they do not know: it is the truth, they are a view."""

import asyncio
from functools import partial

from gateway.accounting import BudgetTake, Cold, Outlook, Plan, Refused, Stale, Taken
from gateway.errors import LimitsUnavailable, Outdated
from gateway.ports import Counters, KeyStore, LedgerStore


class RestoredCounters:
    """`take` and `look` of a store that may be empty: after a restart, or when it lost its memory."""

    def __init__(self, counters: Counters, ledger: LedgerStore, keys: KeyStore, lease_s: float) -> None:
        self._counters = counters
        self._ledger = ledger
        self._keys = keys
        self._lease_s = lease_s
        self._restoring: dict[str, asyncio.Task[None]] = {}

    async def take(self, plan: Plan) -> Taken | Refused:
        """As `ports.Allowances.take`."""
        verdict = await self._counters.take(plan)
        if isinstance(verdict, Cold):
            await self._restore(plan)
            verdict = await self._counters.take(plan)
        if isinstance(verdict, Cold | Stale):
            raise _refusal(verdict)
        return verdict

    async def look(self, plan: Plan) -> Outlook:
        """As `ports.Allowances.look`."""
        outlook = await self._counters.look(plan)
        if isinstance(outlook, Cold):
            await self._restore(plan)
            outlook = await self._counters.look(plan)
        if isinstance(outlook, Cold | Stale):
            raise _refusal(outlook)
        return outlook

    async def confirm(self, tenant_id: str, epoch: int) -> None:
        """As `ports.Allowances.confirm`."""
        nothing = Plan(tenant_id, "", (), tokens_needed=0, tokens_wanted=0, lease_s=0.0, epoch=epoch)
        answer = await self._counters.look(nothing)
        if isinstance(answer, Cold | Stale):
            raise _refusal(answer)

    async def _restore(self, plan: Plan) -> None:
        """Once for all who ask about the same tenant at the same time."""
        task = self._restoring.get(plan.tenant_id)
        if task is None:
            task = self._restoring[plan.tenant_id] = asyncio.create_task(self._tell(plan))
            task.add_done_callback(partial(self._told, plan.tenant_id))
        await asyncio.shield(task)

    async def _tell(self, plan: Plan) -> None:
        takes = [take for take in plan.takes if isinstance(take, BudgetTake)]
        periods = sorted({period.id for take in takes for period in take.periods})
        sums, intents = await self._ledger.snapshot(plan.tenant_id, periods)
        # The last thing to be read: whatever was raised before the store lost it is not newer.
        epoch = await self._keys.revision()
        await self._counters.restore(plan.tenant_id, sums, intents, self._lease_s, epoch)

    def _told(self, tenant_id: str, task: asyncio.Task[None]) -> None:
        del self._restoring[tenant_id]
        if not task.cancelled():
            task.exception()  # seen, also when everybody who waited has left


def _refusal(answer: Cold | Stale) -> LimitsUnavailable:
    return Outdated(answer.epoch) if isinstance(answer, Stale) else LimitsUnavailable()
