"""Limits and budgets counted in this process: the store of a gateway that runs alone.

No call waits for anything, so each is atomic.
"""

from collections.abc import Sequence

from gateway.accounting import Cold, Expired, LedgerEntry, Outlook, Plan, Stale, Sum, Taken, Verdict
from gateway.ports import Clock
from gateway.state.accounts import to_us
from gateway.state.local_tenant import Tenant


class LocalCounters:
    """The adapter behind `ports.Counters` without Redis."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tenants: dict[str, Tenant] = {}
        # Those with leases, or with charges that can still be corrected.
        self._busy: dict[str, Tenant] = {}
        # Also of tenants that are cold.
        self._epochs: dict[str, int] = {}

    async def take(self, plan: Plan) -> Verdict:
        tenant = self._tenants.get(plan.tenant_id)
        if tenant is None:
            return Cold()
        verdict = tenant.take(plan, self._epochs.get(plan.tenant_id, 0), self._time_us())
        if isinstance(verdict, Taken):
            self._busy[plan.tenant_id] = tenant
        return verdict

    async def settle(self, tenant_id: str, reservation_id: str, tokens: int) -> None:
        self.settle_at_once(tenant_id, reservation_id, tokens)

    def settle_at_once(self, tenant_id: str, reservation_id: str, tokens: int) -> bool:
        if tenant := self._tenants.get(tenant_id):
            tenant.settle(reservation_id, tokens, self._time_us())
        return True

    async def renew(self, tenant_id: str, reservation_ids: Sequence[str], lease_s: float) -> None:
        if tenant := self._tenants.get(tenant_id):
            tenant.renew(reservation_ids, to_us(lease_s), self._time_us())

    async def expired(self) -> list[Expired]:
        told: list[Expired] = []
        for tenant_id, tenant in list(self._busy.items()):
            told += tenant.expired(tenant_id, self._time_us())
            if not tenant.is_busy:
                del self._busy[tenant_id]
        return told

    async def heard(self, expired: Sequence[Expired]) -> None:
        for each in expired:
            if tenant := self._tenants.get(each.tenant_id):
                tenant.heard([each.reservation_id])

    async def is_my_turn(self, period_s: float) -> bool:  # noqa: ARG002 - nobody else is there
        return True

    async def raise_epoch(self, tenant_id: str, epoch: int) -> None:
        self._epochs[tenant_id] = max(epoch, self._epochs.get(tenant_id, 0))

    async def restore(
        self,
        tenant_id: str,
        sums: Sequence[Sum],
        intents: Sequence[LedgerEntry],
        lease_s: float,
        epoch: int = 0,
    ) -> None:
        await self.raise_epoch(tenant_id, epoch)
        is_cold = tenant_id not in self._tenants
        tenant = self._tenants.setdefault(tenant_id, Tenant())
        tenant.restore(sums, intents if is_cold else (), to_us(lease_s), self._time_us())
        if tenant.is_busy:
            self._busy[tenant_id] = tenant

    async def forget(self, tenant_id: str) -> None:
        self._tenants.pop(tenant_id, None)
        self._busy.pop(tenant_id, None)
        self._epochs.pop(tenant_id, None)

    async def look(self, plan: Plan) -> Outlook | Cold | Stale:
        tenant = self._tenants.get(plan.tenant_id)
        if tenant is None:
            return Cold()
        return tenant.look(plan, self._epochs.get(plan.tenant_id, 0), self._time_us())

    def _time_us(self) -> int:
        return to_us(self._clock.now())
