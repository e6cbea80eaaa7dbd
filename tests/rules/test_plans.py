"""Plans: what a request takes, and what changes when its prompt is counted."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.accounting import BudgetTake, Period, PromptSize, Scope, Window
from gateway.model import Demand
from gateway.rules.budgets import clamped_output
from gateway.rules.plans import MIN_OUTPUT_TOKENS, plan_of, recounted

TAKES = (BudgetTake(Scope.TENANT, "t1", Window.TOTAL, (Period("total", None),), 10_000),)


@given(
    bound=st.integers(1, 10_000),
    counted=st.integers(1, 10_000),
    output=st.integers(1, 5_000),
    runs=st.integers(0, 2),
)
def test_a_counted_prompt_is_planned_as_if_its_bound_had_been_the_count(bound, counted, output, runs):
    """Also where the bound was too low."""

    def planned(prompt_bound: int):
        demand = Demand(prompt_bound, output, runs, PromptSize(text_bytes=9), 8_192)
        return demand, plan_of(
            "t1", "r1", TAKES, demand, minimum_output=MIN_OUTPUT_TOKENS, lease_s=15, epoch=0
        )

    demand, plan = planned(bound)
    of_count, planned_of_count = planned(counted)

    plan, demand = recounted(plan, demand, counted, counted)

    assert plan == planned_of_count
    assert demand == Demand(counted, output, runs, of_count.size, of_count.context, counted=counted)
    if runs:
        assert clamped_output(plan.tokens_wanted, demand.prompt_bound, output, runs) == output
