"""Routing: of the backends that have a model, the one to send a request to."""

from typing import Final

from attrs import frozen

# How long a load takes where none was seen yet: a model of some GB from a fast disk.
LOAD_S: Final = 10.0


@frozen
class Prospect:
    """What a request has to expect at one backend. Times are seconds."""

    is_draining: bool
    is_blocked: bool
    """Its circuit breaker lets nothing through."""
    is_up: bool
    """It answered the last time that it was asked for its models."""
    is_suspect: bool
    """It answers with errors only."""
    is_warm: bool
    """It has the model in memory."""
    wait_s: float
    """For a place; 0 where one is free."""
    load_s: float
    """How long it takes to load the model."""
    busy: float
    """Requests that it has, waiting ones included, by its weight."""


def rank(prospect: Prospect) -> tuple[bool, bool, bool, bool, float, bool, float]:
    """The lowest is the best; of equals the first listed.

    One that works, then where an answer begins soonest: with a free place warm goes before cold, and among
    warm ones a free place before a full one; a load is worth it where the wait would be longer. Then the
    one that has the least to do for its weight.
    """
    delay_s = prospect.wait_s + (0.0 if prospect.is_warm else prospect.load_s)
    return (
        prospect.is_draining,
        prospect.is_blocked,
        not prospect.is_up,
        prospect.is_suspect,
        delay_s,
        not prospect.is_warm,
        prospect.busy,
    )


def is_worth_a_load(waited_s: float, load_s: float) -> bool:
    """Whether one that waits for a model where it is loaded should have it loaded here.

    Once it has waited for as long as that takes: so it waits twice as long at most as if it had known how
    long the others take (the rule for renting skis). Sooner, and each short wait would cost a load.
    """
    return waited_s >= load_s
