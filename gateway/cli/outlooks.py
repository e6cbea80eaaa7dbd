"""What would become of a request: by the rules of admission and the counters that it asks."""

import time
from typing import Final

from attrs import evolve, frozen

from gateway.accounting import (
    BucketTake,
    BudgetTake,
    Cold,
    Outlook,
    Plan,
    PromptSize,
    RateTake,
    Refused,
    Stale,
    Standing,
    Take,
)
from gateway.cli.standings import LATEST, counted_by_ledger, field_of, takes_for
from gateway.cli.stores import Stores, shared_counters
from gateway.errors import GatewayError, StoreUnavailable, TenantSuspended, Unauthenticated
from gateway.model import Demand, Key, KeyStatus
from gateway.ports import Counters
from gateway.rules.budgets import clamped_output
from gateway.rules.floors import NO_FLOOR
from gateway.rules.limits import refusal_of, remaining_of, requests_left
from gateway.rules.plans import OutputBounds, demand_of, plan_of
from gateway.rules.prompts import NOTHING_LEARNED
from gateway.storage.refusals import NoSuchKey

# What the ledger does not know of.
_OF_A_MINUTE: Final = RateTake | BucketTake


@frozen
class Explanation:
    """What would become of a request of this key, and what that is known from."""

    key: Key
    demand: Demand
    plan: Plan
    told: Outlook | Cold | Stale | None
    """By the counters of a fleet; None without REDIS_URL."""
    ledger: Outlook
    """By a gateway that starts now."""

    @property
    def shared(self) -> Outlook | None:
        """By the counters of a fleet, if they know the tenant."""
        return self.told if isinstance(self.told, Outlook) else None

    @property
    def outlook(self) -> Outlook:
        return self.shared or self.ledger

    @property
    def is_stale(self) -> bool:
        """Redis was told of a change that this database does not have: all gateways refuse by it."""
        return isinstance(self.told, Stale)

    @property
    def status(self) -> KeyStatus:
        return self.key.status(self.outlook.now)

    @property
    def refused(self) -> Refused | None:
        """What of limits and budgets is in the way."""
        answer, is_asked = self.outlook.answer, self.status is KeyStatus.ACTIVE and not self.is_stale
        return answer if isinstance(answer, Refused) and is_asked else None

    @property
    def error(self) -> GatewayError | None:
        """What the caller is told if it is not let in."""
        if self.status is KeyStatus.SUSPENDED:
            return TenantSuspended()
        if self.status is not KeyStatus.ACTIVE:
            return Unauthenticated()
        if self.is_stale:
            return StoreUnavailable()
        if self.refused is None:
            return None
        return refusal_of(
            self.refused,
            key=self.key.name,
            tenant=self.key.tenant.name,
            tokens_needed=self.plan.tokens_needed,
            spared=self.plan.spared,
        )

    @property
    def granted(self) -> int | None:
        """Tokens that are reserved; None for one that is refused."""
        answer = self.outlook.answer
        return None if isinstance(answer, Refused) or self.error is not None else answer

    @property
    def output(self) -> int | None:
        """How long its output may be."""
        demand = self.demand
        if self.granted is None:
            return None
        return clamped_output(self.granted, demand.prompt_bound, demand.output, demand.runs)

    @property
    def clamped_by(self) -> Take | None:
        """What leaves less than is wanted."""
        if self.granted == self.plan.tokens_wanted:
            return None
        of_tokens = (one for one in self.outlook.standings if isinstance(one.take, BucketTake | BudgetTake))
        return next((one.take for one in of_tokens if remaining_of(one) == self.granted), None)

    @property
    def next_bound(self) -> tuple[Take, int] | None:
        """What refuses first when requests like this come at once, and how many are let in before."""
        if self.granted is None:
            return None
        known = (one for one in self.outlook.standings if self.is_known(one.take))
        left = ((one.take, requests_left(one, self.granted)) for one in known)
        bounding = [(take, requests) for take, requests in left if requests is not None]
        return min(bounding, key=lambda pair: pair[1], default=None)

    @property
    def unknown(self) -> list[str]:
        """Fields of Policy that apply, and of which nobody here knows what is used."""
        return list(dict.fromkeys(field_of(take) for take in self.plan.takes if not self.is_known(take)))

    def is_known(self, take: Take) -> bool:
        """Without REDIS_URL, what is used of a minute is known to the running gateway only."""
        return not (self.told is None and isinstance(take, _OF_A_MINUTE))

    def by_ledger(self, take: Take) -> Standing | None:
        """Where it stands by the ledger; None of what that does not know."""
        if isinstance(take, _OF_A_MINUTE):
            return None
        return next(one for one in self.ledger.standings if one.take == take)

    @property
    def agrees(self) -> bool | None:
        """Whether counters and ledger tell the same; None where there is only one of them."""
        if self.shared is None:
            return None
        pairs = ((one, self.by_ledger(one.take)) for one in self.shared.standings)
        return all(by is None or (one.used, one.reserved) == (by.used, by.reserved) for one, by in pairs)


async def explanation_of(
    stores: Stores, prefix: str, prompt: PromptSize, max_tokens: int | None
) -> Explanation:
    """Raises NoSuchKey, RedisUnusable, StoreUnavailable."""
    if stores.config.redis is None:
        return await _explanation(stores, None, prefix, prompt, max_tokens)
    async with shared_counters(stores.config.redis) as counters:
        found = await _explanation(stores, counters, prefix, prompt, max_tokens)
        if found.is_stale:  # it may have changed while it was read
            found = await _explanation(stores, counters, prefix, prompt, max_tokens)
        return found


async def _explanation(
    stores: Stores, counters: Counters | None, prefix: str, prompt: PromptSize, max_tokens: int | None
) -> Explanation:
    # In this order: what is read then is as new.
    epoch = await stores.keys.revision()
    key = await stores.keys.key_by_prefix(prefix)
    if key is None:
        raise NoSuchKey(prefix)
    settings, now = stores.config, time.time()
    outputs = OutputBounds(settings.max_output_tokens, settings.default_output_tokens)
    takes = takes_for(key, now)
    demand = demand_of(
        prompt,
        None,
        NOTHING_LEARNED,
        NO_FLOOR,
        asked_max_tokens=max_tokens,
        runs=1,
        takes=takes,
        outputs=outputs,
    )
    plan = plan_of(key.tenant.id, "", takes, demand, minimum_output=outputs.minimum, lease_s=0.0, epoch=epoch)
    told = None if counters is None else await counters.look(plan)
    ledger = await counted_by_ledger(stores, now).look(evolve(plan, epoch=LATEST))
    return Explanation(key, demand, plan, told, ledger)
