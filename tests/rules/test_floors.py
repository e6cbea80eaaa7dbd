"""Floors of bytes per token: what raises them, what lowers them, and what rests on them."""

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from gateway.accounting import PromptSize
from gateway.rules.floors import NO_FLOOR, Floor, likely_bound, sampled
from gateway.rules.prompts import IMAGE_TOKENS, NOTHING_LEARNED, TEMPLATE_TOKENS, prompt_bound


def text(size: int) -> PromptSize:
    return PromptSize(text_bytes=size, messages=1)


def floor_of(
    *samples: tuple[PromptSize, int], floor: Floor = NO_FLOOR, context: int | None = 32_768
) -> Floor:
    for size, prompt_tokens in samples:
        floor = sampled(floor, size, prompt_tokens, context, NOTHING_LEARNED)
    return floor


def likely(size: PromptSize, floor: Floor) -> int:
    return likely_bound(size, None, NOTHING_LEARNED, floor)


PROSE = (text(4_000), 1_000)
"""Four bytes a token."""


def test_a_floor_is_learned_from_many_true_counts():
    """One swallow is no summer; and a floor is never above two bytes a token."""
    assert floor_of(*[PROSE] * 99).bytes_per_token == 1.0
    assert floor_of(*[PROSE] * 100).bytes_per_token == 2.0


def test_a_floor_lowers_what_comes_with_bytes_only():
    """Templates, images and given tokens are not made of them."""
    floor = floor_of(*[PROSE] * 100)
    size = PromptSize(text_bytes=1_001, schema_bytes=100, messages=1, images=1, tokens=5)

    assert likely(size, floor) == 601 + TEMPLATE_TOKENS + 16 + IMAGE_TOKENS + 5
    assert likely_bound(size, 700, NOTHING_LEARNED, floor) == 700
    assert prompt_bound(size, None) == 1_201 + TEMPLATE_TOKENS + 16 + IMAGE_TOKENS + 5


def test_the_densest_text_seen_sets_the_floor_for_good():
    """With a margin of a fifth: digits came once, and may come again."""
    digits = (text(4_000), 2_000)

    assert floor_of(digits, *[PROSE] * 500).bytes_per_token == 1.6


def test_a_floor_that_was_too_optimistic_falls_at_once():
    """What came above it is owed; and the same text is covered from now on."""
    size, tokens = PromptSize(text_bytes=4_000, schema_bytes=500, messages=1), 3_500
    floor = floor_of(*[PROSE] * 100)
    assert likely(size, floor) < tokens

    assert likely(size, floor_of((size, tokens), floor=floor)) >= tokens


@pytest.mark.parametrize(
    ("size", "context"),
    [
        pytest.param(text(999), 32_768, id="short: the template hides the text"),
        pytest.param(text(4_000), 3_999, id="beyond the context: it may have been cut"),
        pytest.param(text(4_000), None, id="context unknown: likewise"),
        pytest.param(evolve(text(4_000), images=1), 32_768, id="with images"),
        pytest.param(evolve(text(4_000), schema_bytes=100), 32_768, id="with tools, which may not be shown"),
        pytest.param(evolve(text(4_000), tokens=100), 32_768, id="with given tokens"),
        pytest.param(evolve(text(4_000), prompts=2), 32_768, id="several prompts"),
    ],
)
def test_what_says_nothing_of_the_text_raises_no_floor(size, context):
    """A count that is too low for its bytes would make the floor too high."""
    assert floor_of(*[(size, 100)] * 200, context=context) == NO_FLOOR


@pytest.mark.parametrize("prompt_tokens", [0, -1])
def test_no_count_teaches_nothing(prompt_tokens):
    """Old servers leave out what they had in their cache."""
    assert floor_of((text(4_000), prompt_tokens)) == NO_FLOOR


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
    """For every true count within what bytes allow."""
    counts = [(size, max(1, int(share * prompt_bound(size, None)))) for size, share in samples]

    floor = floor_of(*counts, floor=evolve(NO_FLOOR, samples=samples_before))

    assert 1.0 <= floor.bytes_per_token <= 2.0
    for size, prompt_tokens in counts:
        assert prompt_tokens <= likely(size, floor) <= prompt_bound(size, None)


def test_a_dense_prompt_too_short_for_a_sample_bounds_the_floor_too():
    """Two tokens of one byte of schema, before a hundred long prompts have raised the floor."""
    dense, long = PromptSize(schema_bytes=1), PromptSize(text_bytes=1_000)

    floor = floor_of((dense, 258), (long, 1), floor=evolve(NO_FLOOR, samples=99))

    assert likely(dense, floor) >= 258
