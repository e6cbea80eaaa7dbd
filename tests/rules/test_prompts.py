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


def learned_from(*samples: tuple[PromptSize, int]) -> Learned:
    learned = NOTHING_LEARNED
    for size, prompt_tokens in samples:
        learned = learn(learned, size, prompt_tokens)
    return learned


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


@given(samples=st.lists(st.tuples(SIZES, st.integers(-5, 40_000)), max_size=20))
def test_what_was_counted_once_is_covered_ever_after(samples):
    """As far as learning goes: a template of 8,192 tokens, images of 16,384."""
    learned = learned_from(*samples)

    for size, prompt_tokens in samples:
        bound = prompt_bound(size, None, learned)
        assert bound >= prompt_bound(size, None)
        is_full = 8_192 in (learned.template_tokens, learned.tool_tokens) or learned.image_tokens == 16_384
        assert prompt_tokens <= bound or is_full
        assert prompt_bound(size, 1, learned) >= min(prompt_tokens, bound)


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
        pytest.param(text(2**20), True, id="much text"),
        pytest.param(text(2**20 + 1), False, id="too much to count"),
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
