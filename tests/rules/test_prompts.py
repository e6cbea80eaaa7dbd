"""How many tokens a prompt has at most, and what true counts teach of that."""

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from gateway.accounting import PromptSize
from gateway.rules.prompts import (
    IMAGE_TOKENS,
    NOTHING_LEARNED,
    TEMPLATE_TOKENS,
    Learned,
    context_of,
    counted_bound,
    is_countable,
    learn,
    least_tokens,
    likely_bound,
    prompt_bound,
)


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


@pytest.mark.parametrize(
    ("kind", "known", "num_ctx", "context"),
    [
        pytest.param("openai", 8_000, None, 8_000, id="as the server was started"),
        pytest.param("openai", 8_000, 4, 8_000, id="which no caller changes"),
        pytest.param("openai", 8_000, 32_768, 8_000, id="in either direction"),
        pytest.param("openai", None, 4, None, id="unknown"),
        pytest.param("ollama", None, 4, None, id="unknown to Ollama: the caller's own is no bound"),
        pytest.param("ollama", 131_072, None, 131_072, id="a default is never longer than the training"),
        pytest.param("ollama", 131_072, 4, 131_072, id="a small one is raised, or not heeded"),
        pytest.param("ollama", 2_048, 32_768, 32_768, id="a larger one was heeded by elder versions"),
        pytest.param("ollama", 2_000, None, 2_048, id="in whole blocks"),
    ],
)
def test_which_context_bounds_a_prompt(kind, known, num_ctx, context):
    """The one that the backend can't exceed, whatever it is asked."""
    assert context_of(kind, known, num_ctx) == context


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
    """Templates, images and given tokens are not made of them. And no floor lowers the bound."""
    learned = evolve(NOTHING_LEARNED, bytes_per_token=2.0)
    size = PromptSize(text_bytes=1_001, schema_bytes=100, messages=1, images=1, tokens=5)

    assert likely_bound(size, None, learned) == 601 + TEMPLATE_TOKENS + 16 + IMAGE_TOKENS + 5
    assert likely_bound(size, 700, learned) == 700
    assert prompt_bound(size, None, learned) == 1_201 + TEMPLATE_TOKENS + 16 + IMAGE_TOKENS + 5


def test_the_densest_text_seen_sets_the_floor_for_good():
    """With a margin of a fifth: digits came once, and may come again."""
    digits = (text(4_000), 2_000)

    assert learned_from(digits, *[PROSE] * 500).bytes_per_token == 1.6


def test_a_floor_that_was_too_optimistic_falls_at_once():
    """What came above the bound is charged; and the same text is covered from now on."""
    dense = (PromptSize(text_bytes=4_000, schema_bytes=500, messages=1), 3_500)
    learned = learned_from(*[PROSE] * 100)
    assert likely_bound(dense[0], None, learned) < 3_500

    corrected = learn(learned, *dense, None)

    assert likely_bound(dense[0], None, corrected) >= 3_500


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
    assert learned_from(*[(size, 100)] * 200, context=context) == evolve(NOTHING_LEARNED, longest=100)


def test_a_longer_template_is_learned():
    """Some models bring a page of instructions with them: the bytes can't be the reason."""
    learned = learned_from((text(100), 600))

    assert learned == evolve(NOTHING_LEARNED, template_tokens=500 - 16, longest=600)
    assert prompt_bound(text(100), None, learned) == 600


def test_a_longer_preamble_to_tools_is_learned_for_tools():
    """So that nobody makes text dearer for others by odd tools."""
    size = PromptSize(text_bytes=100, schema_bytes=50, messages=1)

    learned = learned_from((size, 800))

    assert learned == evolve(NOTHING_LEARNED, tool_tokens=328, longest=800)
    assert prompt_bound(size, None, learned) == 800
    assert prompt_bound(text(100), None, learned) == prompt_bound(text(100), None)


def test_bigger_images_are_learned():
    """Per image, so that text pays nothing for them."""
    size = PromptSize(text_bytes=100, messages=1, images=2)

    learned = learned_from((size, 12_372))

    assert learned == evolve(NOTHING_LEARNED, image_tokens=6_000, longest=12_372)
    assert prompt_bound(size, None, learned) == 12_372


def test_a_mad_count_does_not_shut_a_model():
    """A backend that counts 2^53 tokens would otherwise make every prompt too expensive."""
    tools = PromptSize(schema_bytes=1)
    learned = learned_from((text(100), 2**53), (PromptSize(images=1), 2**53), (tools, 2**53))

    assert (learned.template_tokens, learned.tool_tokens, learned.image_tokens) == (8_192, 8_192, 16_384)


def test_no_context_is_smaller_than_a_prompt_that_was_counted():
    """Whatever its server says of it, and whatever it was before it was started anew."""
    learned = learned_from((text(9_000), 6_000))

    assert prompt_bound(text(9_000), 4_096) == 4_096
    assert prompt_bound(text(9_000), 4_096, learned) == 6_000


def test_several_prompts_say_nothing_of_the_context():
    """It is each one's own."""
    inputs = PromptSize(text_bytes=9_000, prompts=3, templates=0)

    assert learned_from((inputs, 8_000)).longest == 0


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
        assert prompt_tokens <= likely_bound(size, None, learned) <= prompt_bound(size, None, learned)
        assert prompt_bound(size, None, learned) == prompt_bound(size, None)


def test_a_dense_prompt_too_short_for_a_sample_bounds_the_floor_too():
    """Two tokens of one byte of schema, before a hundred long prompts have raised the floor."""
    dense, long = PromptSize(schema_bytes=1), PromptSize(text_bytes=1_000)
    learned = learn(evolve(NOTHING_LEARNED, samples=99), dense, 258, 32_768)

    learned = learn(learned, long, 1, 32_768)

    assert likely_bound(dense, None, learned) >= 258


# ── a count of the backend's own ─────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("size", "tokens"),
    [
        pytest.param(text(1_599), 99, id="text of sixteen bytes a token"),
        pytest.param(PromptSize(schema_bytes=1_600), 100, id="tools"),
        pytest.param(PromptSize(tokens=100), 100, id="tokens by number"),
    ],
)
def test_the_least_that_a_prompt_can_be(size, tokens):
    """A refusal is free, so what is refused anyway must cost the backend nothing."""
    assert least_tokens(size) == tokens


@pytest.mark.parametrize(
    ("size", "may"),
    [
        pytest.param(text(2**21), True, id="much text"),
        pytest.param(text(2**21 + 1), False, id="too much to count"),
        pytest.param(PromptSize(text_bytes=1, images=1), False, id="images"),
        pytest.param(PromptSize(text_bytes=1, prompts=2), False, id="several prompts"),
    ],
)
def test_what_is_counted_at_all(size, may):
    assert is_countable(size) is may


@pytest.mark.parametrize(
    ("count", "slack", "bound"),
    [
        pytest.param(100, 0, 100, id="exact"),
        pytest.param(100, 30, 130, id="with what it may have missed"),
        pytest.param(400, 30, 416, id="never above the bytes"),
        pytest.param(416, 0, 416, id="a token a byte"),
        pytest.param(417, 0, None, id="more tokens than bytes"),
        pytest.param(0, 0, None, id="no prompt is empty"),
        pytest.param(-7, 0, None, id="less than nothing"),
    ],
)
def test_a_count_is_believed_as_far_as_it_can_be_true(count, slack, bound):
    """Of 144 bytes, in a message and a template."""
    assert counted_bound(text(144), count, slack, NOTHING_LEARNED) == bound


@given(size=SIZES, count=st.integers(-10, 40_000), slack=st.integers(0, 300))
def test_a_counted_bound_lies_between_the_count_and_the_bytes(size, count, slack):
    bound = counted_bound(size, count, slack, NOTHING_LEARNED)

    assert bound is None or 1 <= count <= bound <= prompt_bound(size, None)
