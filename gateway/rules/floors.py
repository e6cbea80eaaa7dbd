"""Floors: how many bytes a token of a tenant's prompts has at least, learned from true counts.

A floor is no law: who shows a model a hundred pages of blanks, to send digits then, is above what it promises
by as much again, once. So no budget rests on it, which never gets back what was overspent; only what a bucket
is taken for does, for a bucket repays in time what it was overdrawn. And it is each tenant's own: nobody's
blanks or digits change what others are taken for.
"""

from math import ceil
from typing import Final

from attrs import frozen

from gateway.accounting import PromptSize
from gateway.rules.prompts import Learned, beside_the_bytes, bounded, bytes_of

# A floor counts from this many true counts on, of prompts of at least so many bytes: in a short one
# the template's own tokens hide how the text was cut.
_MIN_SAMPLES: Final = 100
_MIN_SAMPLE_BYTES: Final = 1_000
# Prose has four bytes a token and more, digits and rare letters one. What was never below 2.5 so far is taken
# for 2, and nothing for more.
_MARGIN: Final = 0.8
_MAX_BYTES_PER_TOKEN: Final = 2.0


@frozen
class Floor:
    """What true counts have shown of one tenant's prompts for one model."""

    lowest: float = _MAX_BYTES_PER_TOKEN / _MARGIN
    """The fewest bytes per token seen."""
    samples: int = 0

    @property
    def is_known(self) -> bool:
        """Enough was seen."""
        return self.samples >= _MIN_SAMPLES

    @property
    def bytes_per_token(self) -> float:
        """The fewest, less a margin; 1 until enough was seen."""
        return max(1.0, self.lowest * _MARGIN) if self.is_known else 1.0


NO_FLOOR: Final = Floor()


def likely_bound(size: PromptSize, context: int | None, learned: Learned, floor: Floor) -> int:
    """What this tenant's prompts for this model have not been above since its floor is known."""
    return bounded(size, ceil(bytes_of(size) / floor.bytes_per_token), context, learned)


def sampled(
    floor: Floor, size: PromptSize, prompt_tokens: int, context: int | None, learned: Learned
) -> Floor:
    """The floor after one more true count, of a model of which so much is `learned`.

    It falls at once with the first prompt that it did not cover, and never rises beyond the lowest seen. It
    is only ever raised by prompts of plain text within the context, whose count is all of their tokens.
    Where Ollama has cut one to a smaller context, it only seems less dense than others were, and the densest
    sets the floor.
    """
    if prompt_tokens <= 0:
        return floor
    sent, beside = bytes_of(size), beside_the_bytes(size, learned)
    # What the allowances do not explain came of the bytes: no floor may ever forget it.
    of_bytes = prompt_tokens - beside
    lowest = min(floor.lowest, sent / of_bytes) if of_bytes > 0 else floor.lowest
    is_uncovered = of_bytes > 0 and of_bytes > ceil(sent / floor.bytes_per_token)
    if is_uncovered or _is_sample(size, context):
        return Floor(min(lowest, sent / prompt_tokens), floor.samples + 1)
    return floor if lowest == floor.lowest else Floor(lowest, floor.samples)


def _is_sample(size: PromptSize, context: int | None) -> bool:
    is_text = size.prompts == 1 and not (size.schema_bytes or size.images or size.tokens)
    return is_text and context is not None and _MIN_SAMPLE_BYTES <= size.text_bytes <= context
