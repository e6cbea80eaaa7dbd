"""Plans: what a request takes, and what changes when its prompt is counted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.accounting import BucketTake, BudgetTake, Period, PromptSize, Scope, Window
from gateway.model import Demand
from gateway.rules.budgets import clamped_output
from gateway.rules.floors import Floor
from gateway.rules.plans import MIN_OUTPUT_TOKENS, OutputBounds, demand_of, plan_of, recounted
from gateway.rules.prompts import NOTHING_LEARNED

BUCKET = BucketTake(Scope.TENANT, "t1", 9_000)
TAKES = (
    BUCKET,
    BudgetTake(Scope.TENANT, "t1", Window.TOTAL, (Period("total", None),), 10_000),
)


@given(
    bound=st.integers(1, 10_000),
    counted=st.integers(1, 10_000),
    output=st.integers(1, 5_000),
    runs=st.integers(0, 2),
)
def test_a_counted_prompt_is_planned_as_if_its_bound_had_been_the_count(bound, counted, output, runs):
    """Also where the bound was too low."""

    def planned(prompt_bound: int, spared: int = 0):
        demand = Demand(prompt_bound, output, runs, PromptSize(text_bytes=9), 8_192, spared)
        return demand, plan_of(
            "t1", "r1", TAKES, demand, minimum_output=MIN_OUTPUT_TOKENS, lease_s=15, epoch=0
        )

    demand, plan = planned(bound, spared=bound // 2)
    of_count, planned_of_count = planned(counted)

    plan, demand = recounted(plan, demand, counted, counted)

    assert plan == planned_of_count
    assert demand == Demand(counted, output, runs, of_count.size, of_count.context, counted=counted)
    if runs:
        assert clamped_output(plan.tokens_wanted, demand.prompt_bound, output, runs) == output


@pytest.mark.parametrize(
    ("samples", "spared"),
    [pytest.param(0, 0, id="nothing is known"), pytest.param(100, 2_000, id="two bytes a token, at least")],
)
def test_a_floor_spares_buckets_and_no_budget(samples, spared):
    """A bucket repays in time what it was overdrawn; a budget never does."""
    demand = demand_of(
        PromptSize(text_bytes=4_000, messages=1),
        8_192,
        NOTHING_LEARNED,
        Floor(samples=samples),
        asked_max_tokens=100,
        runs=1,
        takes=TAKES,
        outputs=OutputBounds(cap=1_000, default=500),
    )
    plan = plan_of("t1", "r1", TAKES, demand, minimum_output=16, lease_s=15, epoch=0)

    assert plan.tokens_wanted == demand.prompt_bound + 100 == 4_000 + 272 + 100
    assert (plan.takes, plan.spared) == (TAKES, spared)
