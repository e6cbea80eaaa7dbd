"""Budgets: which windows a request is counted in, what it may cost at most, and what it did cost.

A request reserves an upper bound, prompt and output, and is settled to the truth. The law is that no true
count is above its reservation: a prompt is within its bound (`rules.prompts`), and the output allowed is sent
upstream. Where a model shows otherwise (a longer template, bigger images), three things hold: the true count
is charged, also above the reservation; what was learned of the model is corrected at once; and the next
request sees what is really left.
"""

from datetime import tzinfo
from functools import lru_cache
from typing import Final

from attrs import frozen

from gateway.accounting import BudgetTake, Period, Policy, Scope, Takes, Window
from gateway.model import Usage
from gateway.rules.limits import own_or_inherited
from gateway.rules.windows import turns_at

# ── windows → takes ──────────────────────────────────────────────────────────────────────


def takes(
    tenant: Policy, key: Policy, tenant_id: str, key_id: str, *, now: float, zone: tzinfo
) -> Takes[BudgetTake]:
    """All windows of the key and of the tenant: what has no limit is counted all the same.

    So a budget that is set later knows what was spent. The key's stand before the tenant's. A key that
    inherits has the tenant's limit: that refuses no more, but is what the key's usage shows.
    """
    return _takes(tenant, key, tenant_id, key_id, turns_at(now, zone))


# As in `limits.takes`: until a day is over.
@lru_cache(maxsize=4096)
def _takes(
    tenant: Policy, key: Policy, tenant_id: str, key_id: str, turns: tuple[tuple[Period, ...], ...]
) -> Takes[BudgetTake]:
    taken: list[BudgetTake] = []
    for window, periods in zip(Window, turns, strict=True):
        of_tenant = _limit_of(tenant, window)
        of_key = own_or_inherited(_limit_of(key, window), of_tenant)
        taken.append(BudgetTake(Scope.KEY, key_id, window, periods, of_key))
        taken.append(BudgetTake(Scope.TENANT, tenant_id, window, periods, of_tenant))
    return Takes(taken)


def _limit_of(policy: Policy, window: Window) -> int | None:
    match window:
        case Window.DAY:
            return policy.daily_tokens
        case Window.MONTH:
            return policy.monthly_tokens
        case Window.TOTAL:
            return policy.total_tokens


# ── the output: how much of it ───────────────────────────────────────────────────────────


def output_wanted(asked_max_tokens: int | None, cap: int, default: int) -> int:
    """Tokens of output to ask for: what the caller wants, or `default`; never above `cap`, never below 1.

    0 is for many servers the word for no bound at all.
    """
    return max(1, min(cap, default if asked_max_tokens is None else asked_max_tokens))


def tokens_wanted(prompt_bound: int, output: int, runs: int = 1) -> int:
    """What a plan reserves where nothing is short. `runs` as in `formats.sizes.runs_of`."""
    return prompt_bound + runs * output


def tokens_needed(prompt_bound: int, output: int, minimum_output: int, runs: int = 1) -> int:
    """The least that makes sense to reserve: an output shorter than `minimum_output` is no answer.

    Unless the caller wants no more.
    """
    return prompt_bound + runs * max(1, min(output, minimum_output))


def clamped_output(granted: int, prompt_bound: int, output: int, runs: int = 1) -> int:
    """How long the output may be with what was granted: what is sent upstream, and cut at."""
    return max(0, min(output, (granted - prompt_bound) // max(1, runs)))


# ── the end: what it did cost ────────────────────────────────────────────────────────────


@frozen
class Settlement:
    """What a request costs."""

    prompt_tokens: int
    completion_tokens: int
    estimated: bool = False

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


# Of a request that never reached a backend.
FREE: Final = Settlement(0, 0)


def settlement(prompt_bound: int, usage: Usage | None, pieces: int, reserved: int) -> Settlement:
    """What a finished request costs, in tokens, however it ended.

    `usage` is what the backend counted, None where the answer was cut before; it is charged also above
    what was `reserved`. `pieces` is what we counted ourselves, at least one for each piece of text or call:
    never less output is charged than that. A prompt whose tokens nobody counted costs its bound, as far
    as it was reserved. What we counted or bounded ourselves is marked estimated.
    """
    completion = max(pieces, usage.completion_tokens if usage else 0)
    # No prompt is empty: a count of 0 is none, unless nothing at all was computed (Ollama's load).
    if usage is None or (usage.prompt_tokens == 0 and completion > 0):
        return Settlement(max(0, min(prompt_bound, reserved - completion)), completion, estimated=True)
    is_raised = completion > usage.completion_tokens
    return Settlement(usage.prompt_tokens, completion, estimated=usage.estimated or is_raised)
