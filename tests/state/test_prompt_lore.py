"""What a process remembers of true counts, and of whom."""

import pytest

from gateway.accounting import PromptSize
from gateway.rules.floors import NO_FLOOR
from gateway.rules.prompts import NOTHING_LEARNED
from gateway.state import prompt_lore
from gateway.state.prompt_lore import PromptLore

PROSE = PromptSize(text_bytes=4_000, messages=1)


def test_a_template_is_the_models_and_a_floor_the_tenants():
    """Nobody's blanks make another's bound too low, and nobody's digits make it too high."""
    lore = PromptLore()

    for _ in range(100):
        lore.learn("acme", "ollama", "m", PROSE, 1_000, context=32_768)
    lore.learn("other", "ollama", "m", PromptSize(messages=1), 600, context=32_768)

    assert lore.floor_of("acme", "ollama", "m").bytes_per_token == 2.0
    assert lore.floor_of("other", "ollama", "m").bytes_per_token == 1.0
    assert lore.of("ollama", "m").template_tokens == 600 - 16


def test_models_are_not_mixed_up():
    """Nor kinds of backends: each counts in its own way."""
    lore = PromptLore()
    lore.learn("acme", "ollama", "m", PROSE, 9_000, context=32_768)

    for kind, model in (("openai", "m"), ("ollama", "n")):
        assert lore.of(kind, model) == NOTHING_LEARNED
        assert lore.floor_of("acme", kind, model) == NO_FLOOR


def test_what_was_taught_longest_ago_is_forgotten(monkeypatch: pytest.MonkeyPatch):
    """Memory is bounded, whoever asks for which model."""
    monkeypatch.setattr(prompt_lore, "_MAX_MODELS", 2)
    monkeypatch.setattr(prompt_lore, "_MAX_FLOORS", 2)
    lore = PromptLore()

    for model in ("a", "b", "a", "c"):
        lore.learn("acme", "ollama", model, PROSE, 9_000, context=32_768)

    assert [lore.of("ollama", model).longest for model in "abc"] == [9_000, 0, 9_000]
    assert [lore.floor_of("acme", "ollama", model) == NO_FLOOR for model in "abc"] == [False, True, False]
