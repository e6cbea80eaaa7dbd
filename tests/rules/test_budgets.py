"""Budgets: what is counted, what is reserved for a request, and what it costs in the end."""

from datetime import UTC

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from gateway.accounting import BudgetTake, Period, Policy, PromptSize, Scope, Window
from gateway.model import Usage
from gateway.rules.budgets import (
    FREE,
    IMAGE_TOKENS,
    NOTHING_LEARNED,
    TEMPLATE_TOKENS,
    Learned,
    Settlement,
    clamped_output,
    learn,
    output_wanted,
    prompt_bound,
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


# ── the prompt ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("size", "context", "bound"),
    [
        pytest.param(PromptSize(), None, TEMPLATE_TOKENS, id="the template alone"),
        pytest.param(PromptSize(text_bytes=400), None, TEMPLATE_TOKENS + 400, id="a byte a token"),
        pytest.param(PromptSize(schema_bytes=400), None, TEMPLATE_TOKENS + 800, id="tools twice"),
        pytest.param(PromptSize(messages=3), None, TEMPLATE_TOKENS + 48, id="16 a message"),
        pytest.param(PromptSize(images=2), None, TEMPLATE_TOKENS + 2 * IMAGE_TOKENS, id="images by number"),
        pytest.param(PromptSize(tokens=7), None, TEMPLATE_TOKENS + 7, id="tokens as such"),
        pytest.param(PromptSize(text_bytes=40_000), 4_096, 4_096, id="never above the context"),
        pytest.param(PromptSize(text_bytes=400), 4_096, TEMPLATE_TOKENS + 400, id="within the context"),
        pytest.param(PromptSize(text_bytes=9, templates=0), None, 9, id="no template"),
        pytest.param(
            PromptSize(templates=3), None, 3 * TEMPLATE_TOKENS, id="the template around each prompt"
        ),
        pytest.param(PromptSize(text_bytes=40_000, prompts=3), 4_096, 3 * 4_096, id="each has a context"),
    ],
)
def test_the_bound_of_a_prompt(size, context, bound):
    """Nothing that is known of a tokenizer goes into it."""
    assert prompt_bound(size, context) == bound


def text(size: int) -> PromptSize:
    return PromptSize(text_bytes=size, messages=1)


def learned_from(*samples: tuple[PromptSize, int], context: int | None = 32_768) -> Learned:
    learned = NOTHING_LEARNED
    for size, prompt_tokens in samples:
        learned = learn(learned, size, prompt_tokens, context)
    return learned


PROSE = (text(4_000), 1_000)
"""Four bytes a token."""


def test_a_floor_is_learned_from_many_true_counts():
    """One swallow is no summer; and a floor is never above two bytes a token."""
    assert learned_from(*[PROSE] * 99).bytes_per_token == 1.0
    assert learned_from(*[PROSE] * 100).bytes_per_token == 2.0


def test_a_floor_lowers_what_comes_with_bytes_only():
    """Templates, images and given tokens are not made of the caller's bytes."""
    learned = evolve(NOTHING_LEARNED, bytes_per_token=2.0)
    size = PromptSize(text_bytes=1_001, schema_bytes=100, messages=1, images=1, tokens=5)

    assert prompt_bound(size, None, learned) == 601 + TEMPLATE_TOKENS + 16 + IMAGE_TOKENS + 5


def test_the_densest_text_seen_sets_the_floor_for_good():
    """With a margin of a fifth: digits came once, and may come again."""
    digits = (text(4_000), 2_000)

    assert learned_from(digits, *[PROSE] * 500).bytes_per_token == 1.6


def test_a_floor_that_was_too_optimistic_falls_at_once():
    """What came above the bound is charged; and the same text is covered from now on."""
    dense = (PromptSize(text_bytes=4_000, schema_bytes=500, messages=1), 3_500)
    learned = learned_from(*[PROSE] * 100)
    assert prompt_bound(dense[0], None, learned) < 3_500

    corrected = learn(learned, *dense, None)

    assert prompt_bound(dense[0], None, corrected) >= 3_500


@pytest.mark.parametrize(
    ("size", "context"),
    [
        pytest.param(text(999), 32_768, id="short: the template hides the text"),
        pytest.param(text(4_000), 3_999, id="beyond the context: it may have been cut"),
        pytest.param(text(4_000), None, id="context unknown: likewise"),
        pytest.param(evolve(text(4_000), images=1), 32_768, id="with images"),
        pytest.param(evolve(text(4_000), schema_bytes=100), 32_768, id="with tools, which may not be shown"),
        pytest.param(evolve(text(4_000), tokens=100), 32_768, id="with given tokens"),
    ],
)
def test_what_says_nothing_of_the_text_teaches_no_floor(size, context):
    """A count that is too low for its bytes would make the floor too high."""
    assert learned_from(*[(size, 100)] * 200, context=context) == NOTHING_LEARNED


def test_a_longer_template_is_learned():
    """Some models bring a page of instructions with them: the bytes can't be the reason."""
    learned = learned_from((text(100), 600))

    assert learned == evolve(NOTHING_LEARNED, template_tokens=500 - 16)
    assert prompt_bound(text(100), None, learned) == 600


def test_bigger_images_are_learned():
    """Per image, so that text pays nothing for them."""
    size = PromptSize(text_bytes=100, messages=1, images=2)

    learned = learned_from((size, 12_372))

    assert learned == evolve(NOTHING_LEARNED, image_tokens=6_000)
    assert prompt_bound(size, None, learned) == 12_372


def test_a_mad_count_does_not_shut_a_model():
    """A backend that counts 2^53 tokens would otherwise make every prompt too expensive."""
    learned = learned_from((text(100), 2**53), (PromptSize(images=1), 2**53))

    assert learned == evolve(NOTHING_LEARNED, template_tokens=8_192, image_tokens=16_384)


@pytest.mark.parametrize("prompt_tokens", [0, -1])
def test_no_count_teaches_nothing(prompt_tokens):
    """Old servers leave out what they had in their cache."""
    assert learned_from((text(4_000), prompt_tokens)) == NOTHING_LEARNED


SIZES = st.builds(
    PromptSize,
    text_bytes=st.integers(0, 30_000),
    schema_bytes=st.integers(0, 500),
    messages=st.integers(0, 9),
    images=st.integers(0, 1),
)


@given(
    samples=st.lists(st.tuples(SIZES, st.floats(0, 1)), max_size=20),
    samples_before=st.sampled_from([0, 99, 500]),
)
def test_what_was_seen_once_is_covered_ever_after(samples, samples_before):
    """For every true count within what bytes allow: the bound that is learned is never below it again."""
    counts = [(size, max(1, int(share * prompt_bound(size, None)))) for size, share in samples]
    learned = evolve(NOTHING_LEARNED, samples=samples_before)
    for size, prompt_tokens in counts:
        learned = learn(learned, size, prompt_tokens, 32_768)

    assert 1.0 <= learned.bytes_per_token <= 2.0
    for size, prompt_tokens in counts:
        assert prompt_tokens <= prompt_bound(size, None, learned) <= prompt_bound(size, None)


def test_a_dense_prompt_too_short_for_a_sample_bounds_the_floor_too():
    """Two tokens of one byte of schema, before a hundred long prompts have raised the floor."""
    dense, long = PromptSize(schema_bytes=1), PromptSize(text_bytes=1_000)
    learned = learn(evolve(NOTHING_LEARNED, samples=99), dense, 258, 32_768)

    learned = learn(learned, long, 1, 32_768)

    assert prompt_bound(dense, None, learned) >= 258


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
