"""Prompts: how many tokens one has at most, by its size, by what was learned of its model, or by a count.

The law is that no true count is above its bound: a token is never less than a byte, and what a template adds
is allowed for. Where a model shows otherwise (a longer template, bigger images) the true count is charged
all the same, and the next bound is right.
"""

from math import ceil
from typing import Final

from attrs import evolve, frozen

from gateway.accounting import PromptSize

# Role markers and line ends around a message: the known templates need 3 to 11 tokens.
MESSAGE_TOKENS: Final = 16
# What a template says by itself: dates, a preamble to tools. Longer ones are learned.
TEMPLATE_TOKENS: Final = 256
# Of today's models Llava takes 2,880, Pixtral 3,080 and Qwen2.5-VL in llama.cpp 4,096; more is learned.
IMAGE_TOKENS: Final = 4_096
# Templates write tools into one or two places, spaced or escaped.
_SCHEMA_FACTOR: Final = 2

# As far as learning goes: one mad count of a backend must not make its model too expensive for everybody.
# The longest templates (a coding agent's instructions) and images (Qwen3-VL's, 16 megapixels) stay below.
_MAX_TEMPLATE_TOKENS: Final = 8_192
_MAX_IMAGE_TOKENS: Final = 16_384
_MAX_LONGEST: Final = 2**24

# A floor counts from this many true counts on, of prompts of at least so many bytes: in a short one
# the template's own tokens hide how the text was cut.
_MIN_SAMPLES: Final = 100
_MIN_SAMPLE_BYTES: Final = 1_000
# Prose has four bytes a token and more, digits and rare letters one. What was never below 2.5 so far is taken
# for 2, and nothing for more.
_MARGIN: Final = 0.8
_MAX_BYTES_PER_TOKEN: Final = 2.0


@frozen
class Learned:
    """What true counts have shown of one model. Starts as what holds for all."""

    template_tokens: int = TEMPLATE_TOKENS
    tool_tokens: int = 0
    """What a template says besides, where there are tools."""
    image_tokens: int = IMAGE_TOKENS
    longest: int = 0
    """The most tokens that one prompt had: no context is smaller, whatever its server says."""
    bytes_per_token: float = 1.0
    """The floor: how many bytes a token had at least, less a margin; 1 until enough was seen."""
    lowest: float = _MAX_BYTES_PER_TOKEN / _MARGIN
    """The fewest bytes per token seen."""
    samples: int = 0


NOTHING_LEARNED: Final = Learned()


# llama.cpp, also within Ollama, makes contexts of whole blocks.
_CONTEXT_BLOCK: Final = 256


def context_of(kind: str, known: int | None, num_ctx: int | None) -> int | None:
    """More tokens of one prompt than this no backend of this kind takes in, so none counts more.

    `known` is the card's context. Elsewhere it is set when the server starts, and a longer prompt is refused;
    the caller's `num_ctx` is not even sent. Ollama loads a model with the caller's `num_ctx`, else with a
    default of the model, the operator or the machine, and cuts the prompt to that. But a small `num_ctx` is
    raised for models with vision and not heeded by those of MLX, a default can't be asked for, and what
    /api/ps tells is what somebody else's request has loaded: this one loads the model anew. What stays is the
    length that the model was trained for, which Ollama never exceeds; before 0.9.3 it did when it was asked.
    """
    if known is None or kind != "ollama":
        return known
    return -(-max(known, num_ctx or 0) // _CONTEXT_BLOCK) * _CONTEXT_BLOCK


def prompt_bound(size: PromptSize, context: int | None, learned: Learned = NOTHING_LEARNED) -> int:
    """More tokens than this the prompts can't have; `context` is as in `context_of`, None where unknown.

    A prompt beyond the context is cut or refused by the backend, so that bounds each of them too.
    """
    return _bound(size, context, learned, bytes_per_token=1.0)


def likely_bound(size: PromptSize, context: int | None, learned: Learned) -> int:
    """What prompts of this model have never been above, by the floor of bytes per token; 1 at first.

    No law: a tenant that shows a model a hundred pages of blanks, to send digits then, is above it by half,
    once. So nothing that must hold may rest on it.
    """
    return _bound(size, context, learned, learned.bytes_per_token)


def _bound(size: PromptSize, context: int | None, learned: Learned, bytes_per_token: float) -> int:
    bound = ceil(_bytes_of(size) / bytes_per_token) + _beside_the_bytes(size, learned)
    return bound if context is None else min(bound, size.prompts * max(context, learned.longest))


# ── a count of the backend's own ─────────────────────────────────────────────────────────

# Prose has four or five bytes to a token, and tables of blanks some ten.
_MOST_BYTES_PER_TOKEN: Final = 16
# Beyond it the bytes decide: to count 2 MiB takes llama.cpp 0.7 s (measured, 3 bytes a µs).
_MAX_COUNTED_BYTES: Final = 2 * 1024 * 1024


def is_countable(size: PromptSize) -> bool:
    """One prompt of text, and not too much of it: images are bounded by number, several prompts by bytes."""
    return not size.images and size.prompts == 1 and _read_bytes(size) <= _MAX_COUNTED_BYTES


def least_tokens(size: PromptSize) -> int:
    """Fewer than this no prompt has, as far as anybody can tell who has not counted it.

    A refusal takes nothing of a limit per minute: whoever has spent its budget must not be able to keep a
    backend busy with counting what can't fit.
    """
    return _read_bytes(size) // _MOST_BYTES_PER_TOKEN + size.tokens


def _read_bytes(size: PromptSize) -> int:
    return size.text_bytes + size.schema_bytes


def counted_bound(size: PromptSize, count: int, slack: int, learned: Learned) -> int | None:
    """The bound by a backend's own count, and so much for what its tokenizer may have missed.

    None for a count that can't be true: below 1, or above what the bytes allow.
    """
    most = prompt_bound(size, None, learned)
    return min(count + slack, most) if 1 <= count <= most else None


# ── what true counts teach ───────────────────────────────────────────────────────────────


def learn(learned: Learned, size: PromptSize, prompt_tokens: int, context: int | None) -> Learned:
    """What is known of a model after one more true count.

    A count above what the bytes allow is the template's or the images' doing, and raises those. Else it
    may be the first that a floor did not cover: the floor falls at once, and never rises again beyond the
    lowest seen. It is only ever raised by prompts within the context, whose count is all of their tokens,
    and that are plain text. Where Ollama has cut one to a smaller context, it only seems less dense than
    others were, and the densest sets the floor.
    """
    if prompt_tokens <= 0:
        return learned
    if size.prompts == 1 and prompt_tokens > learned.longest:
        learned = evolve(learned, longest=min(prompt_tokens, _MAX_LONGEST))
    above = prompt_tokens - prompt_bound(size, None, learned)
    if above > 0:
        return _with_more_beside(learned, size, above)
    # What the allowances do not explain came of the bytes: no floor may ever forget it.
    of_bytes = prompt_tokens - _beside_the_bytes(size, learned)
    lowest = min(learned.lowest, _bytes_of(size) / of_bytes) if of_bytes > 0 else learned.lowest
    if prompt_tokens > likely_bound(size, None, learned) or _is_sample(size, context):
        return _with_floor(learned, min(lowest, _bytes_of(size) / prompt_tokens), learned.samples + 1)
    return _with_floor(learned, lowest, learned.samples)


def _bytes_of(size: PromptSize) -> int:
    return size.text_bytes + _SCHEMA_FACTOR * size.schema_bytes


def _beside_the_bytes(size: PromptSize, learned: Learned) -> int:
    """Tokens that come with no byte of the caller's."""
    by_number = MESSAGE_TOKENS * size.messages + learned.image_tokens * size.images
    tools = learned.tool_tokens if size.schema_bytes else 0
    return size.templates * (learned.template_tokens + tools) + size.tokens + by_number


def _with_more_beside(learned: Learned, size: PromptSize, above: int) -> Learned:
    """By what is there it is decided what it came of: who sends text does not pay for others' images."""
    if size.images:
        image_tokens = learned.image_tokens + ceil(above / size.images)
        return evolve(learned, image_tokens=min(image_tokens, _MAX_IMAGE_TOKENS))
    more = ceil(above / max(1, size.templates))
    if size.schema_bytes:
        return evolve(learned, tool_tokens=min(learned.tool_tokens + more, _MAX_TEMPLATE_TOKENS))
    return evolve(learned, template_tokens=min(learned.template_tokens + more, _MAX_TEMPLATE_TOKENS))


def _is_sample(size: PromptSize, context: int | None) -> bool:
    is_text = size.prompts == 1 and not (size.schema_bytes or size.images or size.tokens)
    return is_text and context is not None and _MIN_SAMPLE_BYTES <= size.text_bytes <= context


def _with_floor(learned: Learned, lowest: float, samples: int) -> Learned:
    floor = max(1.0, lowest * _MARGIN) if samples >= _MIN_SAMPLES else 1.0
    return evolve(learned, bytes_per_token=floor, lowest=lowest, samples=samples)
