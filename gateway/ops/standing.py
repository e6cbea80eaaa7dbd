"""How one process stands, by its resources."""

from collections.abc import Iterable

from gateway.model import BackendState
from gateway.ops.budgets import BudgetLeft, BudgetsLeft
from gateway.ops.gauges import PromptLogState, Running, SpoolState
from gateway.proxy.station import StationState
from gateway.resources import Resources


class ProcessStanding:
    """The adapter behind `gauges.Standing`."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self.lifecycle = resources.lifecycle
        self.readiness = resources
        self._budgets = BudgetsLeft(resources.tenants, resources.ledger, resources.clock)

    def backends(self) -> Iterable[BackendState]:
        return self._resources.catalogue.states()

    def stations(self) -> Iterable[StationState]:
        return self._resources.router.states()

    def spool(self) -> SpoolState:
        spool = self._resources.spool
        return SpoolState(
            waiting_bytes=spool.waiting_bytes,
            waiting_records=spool.waiting_records,
            max_bytes=self._resources.config.spool_max_bytes,
            ledger_lag_s=spool.ledger_lag_s,
            disk_lag_s=spool.lag_s,
            is_full=spool.is_full,
            dropped=spool.dropped,
            set_aside=spool.drainer.set_aside,
            lost_bytes=spool.drainer.lost_bytes,
        )

    def prompt_log(self) -> PromptLogState:
        log = self._resources.prompt_log
        return PromptLogState(log.waiting_bytes, log.kept, log.dropped)

    def running(self) -> Iterable[Running]:
        intents = tuple(self._resources.settler.running())
        holders = self._resources.keys.holders_of({intent.key_id for intent in intents})
        for intent in intents:
            tenant, prefix = holders.get(intent.key_id, (intent.tenant_id, ""))
            yield Running(tenant, prefix, intent.model)

    def settling(self) -> int:
        return self._resources.settler.settling

    async def budgets(self) -> Iterable[BudgetLeft]:
        return await self._budgets.of(list(self._resources.metrics.tenants))
