"""Counters in Redis, made anew: read, forgotten, told by the ledger, and compared with it."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final

import click
from attrs import frozen

from gateway.accounting import BudgetTake, Cold, Outlook, Plan, Scope, SlotTake, Stale, Take
from gateway.cli.standings import counted_by_ledger, field_of, look_at, restored, takes_for
from gateway.cli.stores import Stores, shared_counters
from gateway.model import Key, Tenant
from gateway.spool.fleet import FleetSpools

if TYPE_CHECKING:
    from gateway.state.redis_counters import RedisCounters

# So many tenants share one wait for what gateways have spooled.
_ABREAST: Final = 50
# How many takes are looked at in one call.
_TAKES: Final = 200
# For so long counters may be ahead of the ledger, which running gateways write to moments after the fact.
_PATIENCE_S: Final = 3.0
_LOOK_S: Final = 0.2

Numbers = tuple[int, int]
"""Used and reserved."""
_Look = Callable[[Plan], Awaitable[Outlook | Cold | Stale]]


@frozen
class Account:
    """What is counted of one budget, or of the requests at the same time, before and after."""

    name: str
    """Of the tenant, or the key's prefix."""
    take: Take
    before: Numbers
    after: Numbers
    by_ledger: Numbers

    @property
    def has_changed(self) -> bool:
        return self.before != self.after or self.after != self.by_ledger

    @property
    def is_lower(self) -> bool:
        """It would allow again what the ledger has as spent. To be ahead of the ledger is no fault."""
        return self.after[0] < self.by_ledger[0]


@frozen
class Rebuilt:
    """What became of a tenant's counters. `was_counted`: Redis knew the tenant before."""

    tenant: Tenant
    was_counted: bool
    accounts: Sequence[Account]

    @property
    def changed(self) -> list[Account]:
        return [account for account in self.accounts if account.has_changed]

    @property
    def is_equal(self) -> bool:
        return all(account.after == account.by_ledger for account in self.accounts)


@frozen
class _Forgotten:
    """A tenant whose counters were dropped, and what they were: nothing, if Redis did not know it."""

    tenant: Tenant
    keys: Sequence[Key]
    before: list[Numbers]


async def rebuild(stores: Stores, name: str | None, tell: Callable[[str], None]) -> list[Rebuilt]:
    """Rebuild what is counted of the tenant of this name, or of all; `tell` is told how far it is.

    Raises NoSuchTenant, RedisUnusable, StoreUnavailable: who is forgotten by then is told of with the next
    request.
    """
    address = stores.config.redis
    if address is None:
        raise click.ClickException(
            "Without REDIS_URL there is nothing to rebuild: the serving process counts by itself, and is "
            "told by the ledger at each start. Nothing was changed."
        )
    tenants = await stores.tenants.all() if name is None else [await stores.tenants.by_name(name)]
    rebuilt: list[Rebuilt] = []
    async with shared_counters(address) as counters:
        for first in range(0, len(tenants), _ABREAST):
            tell(f"Rebuilding what is counted of {len(tenants):,} tenants, {first:,} are done …")
            some = [await _forget(stores, counters, one) for one in tenants[first : first + _ABREAST]]
            await _drained(stores)
            for one in some:
                rebuilt.append(await _told_again(stores, counters, one))
                await _noted(stores, rebuilt[-1])
    return rebuilt


async def _noted(stores: Stores, rebuilt: Rebuilt) -> None:
    """Who had it counted anew, and what was changed by that: used, and reserved."""
    changes = {
        f"{account.name} {field_of(account.take)}": (list(account.before), list(account.after))
        for account in rebuilt.changed
    }
    await stores.actions.note("rebuild_counters", rebuilt.tenant, changes)


async def _forget(stores: Stores, counters: "RedisCounters", tenant: Tenant) -> _Forgotten:
    keys = await stores.keys.all(tenant)
    before = await _counted(counters.look, _accounts_of(tenant, keys, time.time()), tenant)
    await counters.forget(tenant.id)
    return _Forgotten(tenant, keys, before)


async def _told_again(stores: Stores, counters: "RedisCounters", forgotten: _Forgotten) -> Rebuilt:
    """Have it told by the ledger, unless a gateway was faster, and compare until they tell the same."""
    until_s = time.monotonic() + _PATIENCE_S
    while True:
        now = time.time()
        takes = _accounts_of(forgotten.tenant, forgotten.keys, now)
        # The ledger first: what it knows is counted before it knows it.
        by_ledger = await _counted(counted_by_ledger(stores, now).look, takes, forgotten.tenant)
        after = await _counted(restored(stores, counters).look, takes, forgotten.tenant)
        rebuilt = _rebuilt(forgotten, takes, after, by_ledger)
        if rebuilt.is_equal or time.monotonic() > until_s:
            return rebuilt
        await asyncio.sleep(_LOOK_S)


def _accounts_of(tenant: Tenant, keys: Sequence[Key], now: float) -> list[Take]:
    """All that is counted of a tenant and its keys and that the ledger knows as well."""
    of_keys = (take for key in keys for take in takes_for(key, now) if take.scope is Scope.KEY)
    # A key and its successor take of one account: once is enough.
    takes = dict.fromkeys((*takes_for(tenant, now), *of_keys))
    return [take for take in takes if isinstance(take, SlotTake | BudgetTake)]


async def _counted(look: _Look, takes: Sequence[Take], tenant: Tenant) -> list[Numbers]:
    """What is counted of each; nothing by counters that do not know the tenant."""
    found: list[Numbers] = []
    for first in range(0, len(takes), _TAKES):
        outlook = await look(look_at(tenant, takes[first : first + _TAKES]))
        if not isinstance(outlook, Outlook):
            return []
        found += ((standing.used, standing.reserved) for standing in outlook.standings)
    return found


def _rebuilt(
    forgotten: _Forgotten, takes: Sequence[Take], after: Sequence[Numbers], by_ledger: Sequence[Numbers]
) -> Rebuilt:
    tenant = forgotten.tenant
    names = {tenant.id: tenant.name} | {key.account: key.prefix for key in forgotten.keys}
    before = forgotten.before or [(0, 0)] * len(takes)
    accounts = [
        Account(names[take.owner], take, *numbers)
        for take, *numbers in zip(takes, before, after, by_ledger, strict=True)
    ]
    return Rebuilt(tenant, bool(forgotten.before), accounts)


async def _drained(stores: Stores) -> None:
    """Wait until the ledger has what gateways had reserved and spent when they were last counted."""
    spools = FleetSpools(stores.replicas, _nothing)
    try:
        await spools.drained()
    finally:
        await spools.stop()


async def _nothing() -> None:
    """What a command has spooled."""
