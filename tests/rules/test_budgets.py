"""Budgets: what is counted, what is reserved for a request, and what it costs in the end."""

from datetime import UTC

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.accounting import BudgetTake, Period, Policy, Scope, Window
from gateway.model import Usage
from gateway.rules.budgets import (
    FREE,
    Settlement,
    clamped_output,
    output_wanted,
    settlement,
    takes,
    tokens_needed,
    tokens_wanted,
)
from gateway.rules.windows import zone_of

NOW = 1_795_450_800.0  # 2026-11-23T16:20:00Z
DAY = (Period("2026-11-23", 1_795_478_400.0), Period("2026-11-24", 1_795_564_800.0))
MONTH = (Period("2026-11", 1_796_083_200.0), Period("2026-12", 1_798_761_600.0))
TOTAL = (Period("total", None),)

# ── takes ────────────────────────────────────────────────────────────────────────────────


def limits_of(tenant: Policy, key: Policy) -> dict[tuple[Window, Scope], int | None]:
    taken = takes(tenant, key, "t1", "k1", now=NOW, zone=UTC)
    return {(take.window, take.scope): take.limit for take in taken}


def test_every_window_of_key_and_tenant_is_counted():
    """Also without any limit: a budget that is set later knows what was spent before."""
    assert takes(Policy(), Policy(), "t1", "k1", now=NOW, zone=UTC) == (
        BudgetTake(Scope.KEY, "k1", Window.DAY, DAY),
        BudgetTake(Scope.TENANT, "t1", Window.DAY, DAY),
        BudgetTake(Scope.KEY, "k1", Window.MONTH, MONTH),
        BudgetTake(Scope.TENANT, "t1", Window.MONTH, MONTH),
        BudgetTake(Scope.KEY, "k1", Window.TOTAL, TOTAL),
        BudgetTake(Scope.TENANT, "t1", Window.TOTAL, TOTAL),
    )


@pytest.mark.parametrize(
    ("tenant", "key", "of_key", "of_tenant"),
    [
        pytest.param(None, None, None, None, id="no budget"),
        pytest.param(900, None, 900, 900, id="inherited"),
        pytest.param(900, 300, 300, 900, id="both apply"),
        pytest.param(300, 900, 900, 300, id="the key's may be above the tenant's"),
        pytest.param(None, 300, 300, None, id="the key's alone"),
        pytest.param(900, 0, 0, 900, id="0 is a budget, not nothing"),
    ],
)
def test_a_budget_is_the_keys_own_or_the_tenants(tenant, key, of_key, of_tenant):
    """Alike for all windows."""
    tenant_policy = Policy(daily_tokens=tenant, monthly_tokens=tenant, total_tokens=tenant)
    key_policy = Policy(daily_tokens=key, monthly_tokens=key, total_tokens=key)

    assert limits_of(tenant_policy, key_policy) == {
        (window, scope): of_key if scope is Scope.KEY else of_tenant for window in Window for scope in Scope
    }


def test_each_window_has_its_own_budget():
    """Days, months and the total are not mixed up."""
    limits = limits_of(Policy(), Policy(daily_tokens=1, monthly_tokens=2, total_tokens=3))

    assert [limits[window, Scope.KEY] for window in Window] == [1, 2, 3]


def test_windows_turn_in_the_tenants_zone():
    """It is tomorrow in Auckland."""
    take = takes(Policy(), Policy(), "t1", "k1", now=NOW, zone=zone_of("Pacific/Auckland"))[0]

    assert [period.id for period in take.periods] == ["2026-11-24", "2026-11-25"]


# ── the output ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("asked", "output"),
    [
        pytest.param(None, 2_000, id="nothing: the default"),
        pytest.param(100, 100, id="less than the cap"),
        pytest.param(9_000, 4_000, id="more than the cap"),
        pytest.param(0, 1, id="0 would be no bound to some servers"),
    ],
)
def test_how_much_output_to_ask_for(asked, output):
    """What the caller wants, within the operator's bounds."""
    assert output_wanted(asked, cap=4_000, default=2_000) == output


def test_a_default_above_the_cap_is_the_cap():
    """The operator's cap bounds everything."""
    assert output_wanted(None, cap=1_000, default=2_000) == 1_000


@pytest.mark.parametrize(
    ("granted", "output"),
    [
        pytest.param(1_500, 500, id="all that was wanted"),
        pytest.param(1_200, 200, id="what a budget still allows"),
        pytest.param(9_000, 500, id="never more than was wanted"),
        pytest.param(900, 0, id="less than the prompt: nothing"),
    ],
)
def test_the_output_is_clamped_to_what_was_granted(granted, output):
    """The prompt comes first."""
    assert clamped_output(granted, prompt_bound=1_000, output=500) == output


def test_what_generates_nothing_reserves_its_prompt_alone():
    """Vectors are not written token by token."""
    assert tokens_needed(1_000, output=500, minimum_output=64, runs=0) == 1_000
    assert tokens_wanted(1_000, output=500, runs=0) == 1_000
    assert clamped_output(1_000, 1_000, output=500, runs=0) == 0


def test_a_caller_that_wants_little_needs_little():
    """A minimum of the operator's refuses no request for one word."""
    assert tokens_needed(prompt_bound=1_000, output=1, minimum_output=64) == 1_001


@given(
    bound=st.integers(0, 10**6),
    output=st.integers(1, 10**5),
    minimum=st.integers(0, 10**3),
    runs=st.integers(1, 2),
    data=st.data(),
)
def test_prompt_and_clamped_output_stay_within_the_grant(bound, output, minimum, runs, data):
    """Whatever a store grants between needed and wanted; and something to say is always left."""
    needed = tokens_needed(bound, output, minimum, runs)
    wanted = tokens_wanted(bound, output, runs)
    granted = data.draw(st.integers(needed, wanted))

    allowed = clamped_output(granted, bound, output, runs)

    assert max(1, min(output, minimum)) <= allowed <= output
    assert bound + runs * allowed <= granted
    assert clamped_output(wanted, bound, output, runs) == output


# ── the end ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("usage", "pieces", "costs"),
    [
        pytest.param(Usage(20, 50), 50, Settlement(20, 50), id="counted: the truth, the rest goes back"),
        pytest.param(Usage(20, 50), 10, Settlement(20, 50), id="a piece may hold several tokens"),
        pytest.param(Usage(200, 50), 50, Settlement(200, 50), id="a backend's count above the reservation"),
        pytest.param(Usage(20, 5), 42, Settlement(20, 42, True), id="never less than was streamed"),
        pytest.param(Usage(20, 50, True), 50, Settlement(20, 50, True), id="an estimate stays one"),
        pytest.param(None, 42, Settlement(100, 42, True), id="cut: the prompt's bound and what was streamed"),
        pytest.param(None, 0, Settlement(100, 0, True), id="left before the first token"),
        pytest.param(None, 70, Settlement(80, 70, True), id="a bound is not charged beyond the reservation"),
        pytest.param(None, 200, Settlement(0, 200, True), id="what was streamed is"),
        pytest.param(Usage(0, 50), 42, Settlement(100, 50, True), id="a prompt that nobody counted"),
        pytest.param(Usage(0, 0), 0, FREE, id="nothing was computed: a model was loaded"),
    ],
)
def test_what_a_request_costs(usage, pieces, costs):
    """Of 150 tokens reserved, 100 are the prompt's bound."""
    assert settlement(prompt_bound=100, usage=usage, pieces=pieces, reserved=150) == costs


def test_a_cost_is_prompt_and_completion():
    """One sum for all windows."""
    assert Settlement(20, 50).tokens == 70


@given(
    bound=st.integers(0, 1_000),
    output=st.integers(0, 1_000),
    true_prompt=st.integers(1, 1_000),
    true_output=st.integers(0, 1_000),
    is_cut=st.booleans(),
)
def test_a_cost_lies_between_the_truth_and_the_reservation(bound, output, true_prompt, true_output, is_cut):
    """For a backend that keeps to the bounds, whether it counts or is cut, at a token a piece."""
    true_prompt, true_output = min(true_prompt, bound), min(true_output, output)
    usage = None if is_cut else Usage(true_prompt, true_output)

    costs = settlement(bound, usage, pieces=true_output, reserved=bound + output)

    assert true_prompt + true_output <= costs.tokens <= bound + output
