"""Plans: all that a request takes, by who asks and by what it asks for."""

from collections.abc import Iterable
from datetime import tzinfo
from functools import lru_cache
from typing import Final

from attrs import evolve, frozen

from gateway.accounting import BucketTake, BudgetTake, Plan, Policy, PromptSize, SlotTake, Take, Takes
from gateway.model import Demand
from gateway.rules import budgets, limits
from gateway.rules.floors import Floor, likely_bound
from gateway.rules.prompts import Learned, prompt_bound

# Less is no answer: a request that can't even have this much is refused.
MIN_OUTPUT_TOKENS: Final = 16


@frozen
class OutputBounds:
    """Tokens of output: the most, what is reserved unless the caller says, and the least worth having."""

    cap: int
    default: int
    """Only where tokens are limited: an unbounded caller has no reason to ask for less than the cap."""
    minimum: int = MIN_OUTPUT_TOKENS

    def capped(self, cap: int | None) -> "OutputBounds":
        """The same with a lower cap, where there is one."""
        return self if cap is None or cap >= self.cap else evolve(self, cap=cap)


def takes_of(
    tenant: Policy, key: Policy, tenant_id: str, key_id: str, *, now: float, zone: tzinfo
) -> Takes[Take]:
    """What a request takes of limits and budgets: of those that refuse alike, the first is told."""
    return joined(
        limits.takes(tenant, key, tenant_id, key_id),
        budgets.takes(tenant, key, tenant_id, key_id, now=now, zone=zone),
    )


# As in `limits.takes`: until a day is over.
@lru_cache(maxsize=4096)
def joined(of_limits: tuple[Take, ...], of_budgets: tuple[Take, ...]) -> Takes[Take]:
    """What is taken of both."""
    return Takes((*of_limits, *of_budgets))


# Of a request that costs no tokens.
NO_TOKENS: Final = Demand(prompt_bound=0, output=0, runs=0)


def without_places(takes: Iterable[Take]) -> tuple[Take, ...]:
    """The same, save the places for requests at the same time: for what is over at once. A 0 still denies."""
    return tuple(take for take in takes if not isinstance(take, SlotTake) or take.limit == 0)


def demand_of(
    size: PromptSize,
    context: int | None,
    learned: Learned,
    floor: Floor,
    *,
    asked_max_tokens: int | None,
    runs: int,
    takes: tuple[Take, ...],
    outputs: OutputBounds,
) -> Demand:
    """What is asked for; without `asked_max_tokens`, the cap or, where a take limits tokens, the default."""
    default = min(outputs.default, outputs.cap) if _limit_tokens(takes) else outputs.cap
    output = budgets.output_wanted(asked_max_tokens, outputs.cap, default)
    bound = prompt_bound(size, context, learned)
    spared = bound - likely_bound(size, context, learned, floor) if floor.is_known else 0
    return Demand(bound, output, runs, size, context, spared)


def plan_of(
    tenant_id: str,
    reservation_id: str,
    takes: tuple[Take, ...],
    demand: Demand,
    *,
    minimum_output: int,
    lease_s: float,
    epoch: int,
) -> Plan:
    """Reserve all that is wanted where nothing is short, else down to the least that makes sense.

    Buckets are spared what the prompt most likely does not need of its bound: budgets never are.
    """
    bound, output, runs = demand.prompt_bound, demand.output, demand.runs
    return Plan(
        tenant_id=tenant_id,
        reservation_id=reservation_id,
        takes=takes,
        tokens_needed=budgets.tokens_needed(bound, output, minimum_output, runs),
        tokens_wanted=budgets.tokens_wanted(bound, output, runs),
        lease_s=lease_s,
        epoch=epoch,
        spared=demand.spared,
    )


def recounted(plan: Plan, demand: Demand, counted: int, bound: int) -> tuple[Plan, Demand]:
    """The same, for a prompt that was `counted`, and so has at most `bound` tokens."""
    saved = demand.prompt_bound - bound
    plan = evolve(
        plan,
        tokens_needed=plan.tokens_needed - saved,
        tokens_wanted=plan.tokens_wanted - saved,
        spared=0,
    )
    return plan, evolve(demand, prompt_bound=bound, spared=0, counted=counted)


# As in `limits.takes`.
@lru_cache(maxsize=4096)
def _limit_tokens(takes: tuple[Take, ...]) -> bool:
    return any(
        limits.limit_of(take) is not None for take in takes if isinstance(take, BucketTake | BudgetTake)
    )
