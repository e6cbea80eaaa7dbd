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


@frozen
class Learned:
    """What true counts have shown of one model. Starts as what holds for all."""

    template_tokens: int = TEMPLATE_TOKENS
    tool_tokens: int = 0
    """What a template says besides, where there are tools."""
    image_tokens: int = IMAGE_TOKENS
    longest: int = 0
    """The most tokens that one prompt had: no context is smaller, whatever its server says."""


NOTHING_LEARNED: Final = Learned()


# llama.cpp, also within Ollama, makes contexts of whole blocks.
_CONTEXT_BLOCK: Final = 256


def context_of(kind: str, known: int | None, num_ctx: int | None) -> int | None:
    """More tokens of one prompt than this no backend of this kind takes in, so none counts more.

    `known` is the card's context. Elsewhere it is set when the server starts, and a longer prompt is
    refused; the caller's `num_ctx` is not even sent. Ollama loads a model with the caller's `num_ctx`, else
    with a default of the model, the operator or the machine, and refuses or cuts a prompt beyond that. But a
    small `num_ctx` is raised for models with vision and not heeded by those of MLX, a default can't be asked
    for, and what /api/ps tells is what somebody else's request has loaded: this one loads the model anew.
    What stays is the length that the model was trained for, which Ollama never exceeds; before 0.9.3 it did
    when asked.
    """
    if known is None or kind != "ollama":
        return known
    return -(-max(known, num_ctx or 0) // _CONTEXT_BLOCK) * _CONTEXT_BLOCK


def prompt_bound(size: PromptSize, context: int | None, learned: Learned = NOTHING_LEARNED) -> int:
    """More tokens than this the prompts can't have; `context` is as in `context_of`, None where unknown.

    A prompt beyond the context is cut or refused by the backend, so that bounds each of them too.
    """
    return bounded(size, bytes_of(size), context, learned)


def bounded(size: PromptSize, of_bytes: int, context: int | None, learned: Learned) -> int:
    """The tokens that come of the bytes and those that come beside them, within the contexts."""
    bound = of_bytes + beside_the_bytes(size, learned)
    return bound if context is None else min(bound, size.prompts * max(context, learned.longest))


def bytes_of(size: PromptSize) -> int:
    """As many as a template may write of what the caller sends."""
    return size.text_bytes + _SCHEMA_FACTOR * size.schema_bytes


def beside_the_bytes(size: PromptSize, learned: Learned) -> int:
    """Tokens that come with no byte of the caller's."""
    by_number = MESSAGE_TOKENS * size.messages + learned.image_tokens * size.images
    tools = learned.tool_tokens if size.schema_bytes else 0
    return size.templates * (learned.template_tokens + tools) + size.tokens + by_number


# ── a count of the backend's own ─────────────────────────────────────────────────────────

# Prose has four or five bytes to a token, and tables of blanks some ten.
_MOST_BYTES_PER_TOKEN: Final = 16
# Beyond it the bytes decide: to count 1 MiB takes llama.cpp 0.3 s (measured).
_MAX_COUNTED_BYTES: Final = 1024 * 1024


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


def learn(learned: Learned, size: PromptSize, prompt_tokens: int) -> Learned:
    """What is known of a model after one more true count.

    A count above what the bytes allow is the template's doing, or the tools' or images', and raises those. By
    what is there it is decided what it came of: who sends text does not pay for others' images.
    """
    if size.prompts == 1 and prompt_tokens > learned.longest:
        learned = evolve(learned, longest=min(prompt_tokens, _MAX_LONGEST))
    above = prompt_tokens - bytes_of(size) - beside_the_bytes(size, learned)
    if above <= 0:
        return learned
    if size.images:
        image_tokens = learned.image_tokens + ceil(above / size.images)
        return evolve(learned, image_tokens=min(image_tokens, _MAX_IMAGE_TOKENS))
    more = ceil(above / max(1, size.templates))
    if size.schema_bytes:
        return evolve(learned, tool_tokens=min(learned.tool_tokens + more, _MAX_TEMPLATE_TOKENS))
    return evolve(learned, template_tokens=min(learned.template_tokens + more, _MAX_TEMPLATE_TOKENS))
