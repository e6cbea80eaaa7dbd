"""What is learned of a tenant's prompts: which limits rest on it, and which never do."""

import asyncio
from contextlib import suppress
from functools import partial
from typing import Any

import orjson
import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.accounting import PromptSize
from gateway.errors import GatewayError, RateLimited, RequestTooExpensive
from gateway.formats.chat import UpstreamRequest
from gateway.model import Engine, Exchange, ModelCard, Usage
from gateway.rules.prompts import TEMPLATE_TOKENS
from tests.asgi import PRINCIPAL
from tests.middleware.test_admission import OUTPUTS, House

OLLAMA = ModelCard("m", context=32_768)
WORDS = "word " * 800


def taught(house: House, tenant_id: str = PRINCIPAL.tenant_id) -> House:
    """A house of which one tenant's prompts have had four bytes a token so far."""
    for _ in range(100):
        prose = PromptSize(text_bytes=4_000, messages=1)
        house.lore.learn(tenant_id, house.target.kind, "m:latest", prose, 1_000, context=32_768)
    return house


async def test_a_floor_lets_a_prompt_into_a_bucket():
    """Of four thousand bytes, from a tenant that never had more than a token for two and a half."""
    limits: dict[str, Any] = {"tpm": 2_000 + 16 + TEMPLATE_TOKENS + OUTPUTS.default}
    house = taught(House(card=OLLAMA, text=WORDS, usage=Usage(1_000, 5)))
    stranger = taught(House(card=OLLAMA, text=WORDS), tenant_id="another")

    answered = await house.ask(**limits)
    with pytest.raises(RequestTooExpensive):
        await stranger.ask(**limits)

    assert answered.headers["x-ratelimit-remaining-tokens"] == str(limits["tpm"] - 1_005)


async def test_what_a_floor_did_not_cover_is_owed_and_learned():
    """Digits, where there was prose: the minute is overdrawn, and takes as long to come back."""
    limits: dict[str, Any] = {"tpm": 3_000}
    house = taught(House(card=OLLAMA, text="12345" * 800, usage=Usage(4_001, 5)))

    await house.ask(**limits)
    with pytest.raises(RequestTooExpensive):
        await house.ask(**limits)
    house.text = "Hi"
    with pytest.raises(RateLimited) as refused:
        await house.ask(**limits)

    assert 20 <= (refused.value.retry_after_s or 0) <= 30, "a thousand too many, and what it needs"


async def test_no_floor_lets_a_prompt_into_a_budget():
    """Nothing would ever repay it."""
    house = taught(House(card=OLLAMA, text=WORDS))

    with pytest.raises(RequestTooExpensive):
        await house.ask(total_tokens=3_000, tpm=3_000)


async def told(tokens: int, request: UpstreamRequest) -> tuple[int, bytes]:
    return 200, orjson.dumps({"input_tokens": tokens})


def used(tokens: int, share: float, exchange: Exchange) -> Usage:
    return Usage(tokens, max(5, int(share * (exchange.output_allowed or 0))))


async def spent_by(requests: list[tuple[int, float, int, float]], card: ModelCard, budget: int) -> int:
    """What a tenant has spent: a request is its bytes, how dense they are, the output asked and its share."""
    house = taught(House(card=card))
    for size, density, output, share in requests:
        tokens = max(1, int(density * (size + 16 + TEMPLATE_TOKENS)))
        house.text, house.usage_of = "x" * size, partial(used, tokens, share)
        house.target.tokenizer = partial(told, tokens)
        with suppress(GatewayError):
            await house.ask(max_tokens=output, total_tokens=budget, tpm=5_000)
        house.clock.monotonic += 60.0
        house.clock.wall += 10.0
    return sum(entry.tokens for entry in house.journal.ended)


# Mostly big, and either prose or the densest text there is.
SIZES = st.sampled_from([1_500, 3_000]) | st.integers(1, 3_000)
DENSITIES = st.sampled_from([0.25, 1.0, 1.0]) | st.floats(0, 1)
REQUESTS = st.tuples(SIZES, DENSITIES, st.integers(5, 300), st.sampled_from([0.0, 1.0]))


@given(
    requests=st.lists(REQUESTS, min_size=1, max_size=25),
    engine=st.sampled_from([None, Engine.LLAMA_CPP]),
    budget=st.integers(1_000, 8_000),
)
@settings(max_examples=60, deadline=None)
def test_no_budget_is_ever_overspent(
    requests: list[tuple[int, float, int, float]], engine: Engine | None, budget: int
):
    """Whatever was learned before, however dense the prompts turn out to be, counted or not."""
    assert asyncio.run(spent_by(requests, evolve(OLLAMA, engine=engine), budget)) <= budget
