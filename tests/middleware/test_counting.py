"""When a prompt is counted by its backend, what becomes of the count, and what a bad tokenizer can't do."""

import asyncio
from typing import Any

import orjson
import pytest
from attrs import define, field

from gateway.errors import (
    BackendTimeout,
    ContextLengthExceeded,
    GatewayError,
    InsufficientQuota,
    RateLimited,
    RequestTooExpensive,
)
from gateway.formats.chat import UpstreamRequest
from gateway.middleware.tokenizers import REST_S
from gateway.model import Engine, ModelCard, Usage
from gateway.rules.prompts import TEMPLATE_TOKENS
from tests.middleware.test_admission import OUTPUTS, FakeBackend, House

TEXT = "word " * 400
BYTES = 2_000
BOUND = BYTES + 16 + TEMPLATE_TOKENS
TRUE = 500
LLAMA_CPP = ModelCard("m", engine=Engine.LLAMA_CPP, context=8_192)
VLLM = ModelCard("m", engine=Engine.VLLM, context=8_192)


@define
class Tokenizer:
    """Counts `tokens`, in `took_s` seconds of the clock; or fails."""

    tokens: Any = TRUE
    status: int = 200
    error: GatewayError | None = None
    took_s: float = 0.0
    is_elder: bool = False
    house: Any = None
    asked: list[UpstreamRequest] = field(factory=list)
    abreast: int = 0
    most_abreast: int = 0

    async def __call__(self, request: UpstreamRequest) -> tuple[int, bytes]:
        self.asked.append(request)
        self.abreast += 1
        self.most_abreast = max(self.most_abreast, self.abreast)
        for _ in range(5):
            await asyncio.sleep(0)
        self.abreast -= 1
        self.house.clock.monotonic += self.took_s
        if self.error:
            raise self.error
        if self.is_elder:
            return self._elder(request.path)
        return self.status, orjson.dumps({"input_tokens": self.tokens, "count": self.tokens})

    def _elder(self, path: str) -> tuple[int, bytes]:
        match path:
            case "/apply-template":
                return 200, b'{"prompt": "written out"}'
            case "/tokenize":
                return 200, orjson.dumps({"tokens": [1] * self.tokens})
            case _:
                return 404, b"{}"

    @property
    def paths(self) -> list[str]:
        return [request.path for request in self.asked]


def house_of(tokenizer: Tokenizer, card: ModelCard = LLAMA_CPP, **fields: Any) -> House:
    house = House(card=card, target=FakeBackend(tokenizer=tokenizer), text=TEXT, **fields)
    tokenizer.house = house
    house.usage = Usage(TRUE, 5)
    return house


# ── when it is asked ─────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "policy",
    [
        pytest.param({}, id="no limits"),
        pytest.param({"rpm": 9, "concurrent": 9}, id="limits that count no tokens"),
        pytest.param({"tpm": BOUND + OUTPUTS.default}, id="a bucket with room for the bound"),
        pytest.param({"daily_tokens": BOUND + OUTPUTS.default}, id="a budget with room for the bound"),
    ],
)
async def test_nothing_is_counted_where_the_bound_fits(policy):
    """The usual case pays nothing for the unusual one."""
    tokenizer = Tokenizer()

    await house_of(tokenizer).ask(**policy)

    assert tokenizer.asked == []


@pytest.mark.parametrize("limit", ["tpm", "daily_tokens", "total_tokens"])
async def test_what_the_bound_would_refuse_is_counted(limit: Any):
    """A prompt of 2,000 bytes has 500 tokens: that is what is reserved, and the request is served."""
    tokenizer = Tokenizer()
    house = house_of(tokenizer)

    policy: dict[str, Any] = {limit: TRUE + OUTPUTS.default}

    await house.ask(**policy)

    (intent,) = house.journal.intents
    assert tokenizer.paths == ["/v1/chat/completions/input_tokens"]
    assert intent.reserved == TRUE + OUTPUTS.default
    assert house.seen[0].output_allowed == OUTPUTS.default


async def test_an_answer_that_the_bound_would_shorten_is_counted():
    """What the prompt does not need is the answer's; and nothing is taken twice."""
    tokenizer = Tokenizer()
    house = house_of(tokenizer)

    await house.ask(max_tokens=1_000, total_tokens=BOUND + 20)

    (intent,) = house.journal.intents
    assert len(tokenizer.asked) == 1
    assert intent.reserved == BOUND + 20
    assert house.seen[0].output_allowed == house.seen[0].call.sampling.max_tokens == 1_000


async def test_a_counted_prompt_may_still_not_fit():
    """Then it is refused by its true need, and has taken nothing."""
    tokenizer = Tokenizer()
    house = house_of(tokenizer)

    with pytest.raises(RequestTooExpensive, match=f"may need {TRUE + OUTPUTS.minimum:,}"):
        await house.ask(total_tokens=TRUE + OUTPUTS.minimum - 1)

    assert len(tokenizer.asked) == 1
    assert house.journal.intents == []


@pytest.mark.parametrize(
    ("policy", "error"),
    [
        pytest.param({"total_tokens": 0}, InsufficientQuota, id="a budget of 0"),
        pytest.param({"total_tokens": BYTES // 16}, RequestTooExpensive, id="no text is that sparse"),
        pytest.param({"tpm": 1}, RequestTooExpensive, id="nor for a bucket"),
        pytest.param({"rpm": 0}, RateLimited, id="refused for something else"),
    ],
)
async def test_what_cannot_fit_is_not_counted(policy, error):
    """A refusal is free: a tenant with nothing left must not keep a backend busy."""
    tokenizer = Tokenizer()

    with pytest.raises(error):
        await house_of(tokenizer).ask(**policy)

    assert tokenizer.asked == []


@pytest.mark.parametrize(
    "card",
    [
        pytest.param(ModelCard("m", context=8_192), id="no engine that is known"),
        pytest.param(ModelCard("m", engine=Engine.LLAMA_CPP), id="a model that may not be loaded"),
    ],
)
async def test_who_has_no_tokenizer_is_not_asked(card):
    with pytest.raises(RequestTooExpensive):
        await house_of(Tokenizer(), card).ask(total_tokens=TRUE + OUTPUTS.default)


async def test_counts_in_vain_are_followed_by_a_pause():
    """One that took a second keeps its tenant from the next for ten: it can waste a tenth of a thread."""
    tokenizer = Tokenizer(took_s=1.0)
    house = house_of(tokenizer)
    small: dict[str, Any] = {"total_tokens": TRUE}

    with pytest.raises(RequestTooExpensive):
        await house.ask(**small)
    for _ in range(3):
        with pytest.raises(InsufficientQuota):
            await house.ask(**small)
    house.clock.monotonic += 10.0
    with pytest.raises(RequestTooExpensive):
        await house.ask(**small)

    assert len(tokenizer.asked) == 2


async def test_counts_that_served_are_followed_by_none():
    tokenizer = Tokenizer(took_s=1.0)
    house = house_of(tokenizer)

    for _ in range(3):
        await house.ask(total_tokens=BOUND + 20)

    assert len(tokenizer.asked) == 3
    assert [entry.tokens for entry in house.journal.ended] == [TRUE + 5] * 3


# ── the context ──────────────────────────────────────────────────────────────────────────


async def test_a_prompt_that_is_longer_than_its_context_is_told_for_good():
    """400 with both numbers, not 429: no budget of tomorrow helps."""
    tokenizer = Tokenizer(tokens=600)
    card = ModelCard("m", engine=Engine.LLAMA_CPP, context=600)

    with pytest.raises(ContextLengthExceeded, match=r"600 tokens, and the context has 600"):
        await house_of(tokenizer, card).ask(total_tokens=610)


async def test_what_nobody_counts_is_refused_for_good():
    """Its bound is all that will ever be known of it."""
    house = house_of(Tokenizer())
    house.text = "x" * (2**21 + 1)

    with pytest.raises(RequestTooExpensive):
        await house.ask(total_tokens=5_000)


async def test_a_bound_is_no_proof():
    """Where nothing was counted, the backend is asked, and says it itself."""
    house = house_of(Tokenizer(), ModelCard("m", engine=Engine.LLAMA_CPP, context=600))

    assert (await house.ask()).status == 200


# ── a tokenizer that can't be trusted ────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "tokenizer",
    [
        pytest.param(Tokenizer(tokens=0), id="counts nothing"),
        pytest.param(Tokenizer(tokens=-5), id="counts less than nothing"),
        pytest.param(Tokenizer(tokens=2**53), id="counts more than there is"),
        pytest.param(Tokenizer(tokens="500"), id="sends text"),
        pytest.param(Tokenizer(status=400), id="refuses"),
        pytest.param(Tokenizer(status=503), id="is loading"),
        pytest.param(Tokenizer(error=BackendTimeout("silence")), id="says nothing"),
    ],
)
async def test_without_a_count_that_can_be_true_the_bound_stays(tokenizer):
    """The request is refused as if there were no tokenizer; not for good, for it may be counted later."""
    house = house_of(tokenizer)

    with pytest.raises(InsufficientQuota):
        await house.ask(total_tokens=TRUE + OUTPUTS.default)

    assert len(tokenizer.asked) == 1
    assert house.journal.intents == []


async def test_a_tokenizer_that_failed_is_left_alone_for_a_while():
    """Nobody else waits for it meanwhile."""
    tokenizer = Tokenizer(error=BackendTimeout("silence"))
    house = house_of(tokenizer)

    for _ in range(5):
        with pytest.raises(InsufficientQuota):
            await house.ask(total_tokens=TRUE + OUTPUTS.default)
    assert len(tokenizer.asked) == 1
    house.clock.monotonic += REST_S
    tokenizer.error = None
    await house.ask(total_tokens=TRUE + OUTPUTS.default)

    assert len(tokenizer.asked) == 2


async def test_a_template_that_says_more_than_was_known_raises_the_bound():
    """The count is above what the bytes allow, and so is what will be read: it must fit as well."""
    tokenizer = Tokenizer(tokens=BOUND + 1_000)
    house = house_of(tokenizer)

    with pytest.raises(RequestTooExpensive, match=f"may need {BOUND + 1_016:,}"):
        await house.ask(max_tokens=1_000, total_tokens=BOUND + 500)

    assert [entry.tokens for entry in house.journal.ended] == [0], "what was taken is given back"
    assert house.seen == []
    await house.ask()
    assert house.seen[0].demand is not None
    assert house.seen[0].demand.prompt_bound == BOUND + 1_000


async def test_a_few_are_counted_at_a_time():
    """A backend's threads are there to answer. The others wait for their turn."""
    tokenizer = Tokenizer()
    house = house_of(tokenizer)

    asking = (house.ask(total_tokens=TRUE + OUTPUTS.default) for _ in range(12))
    await asyncio.gather(*asking, return_exceptions=True)

    assert (len(tokenizer.asked), tokenizer.most_abreast) == (12, 4)


async def test_a_llama_cpp_of_old_is_asked_in_its_own_way():
    """And the next time at once."""
    tokenizer = Tokenizer(is_elder=True)
    house = house_of(tokenizer)

    for _ in range(2):
        await house.ask(total_tokens=TRUE + OUTPUTS.default)
        await house.counters.forget("t1")

    elder = ["/apply-template", "/tokenize"]
    assert tokenizer.paths == ["/v1/chat/completions/input_tokens", *elder, *elder]


# ── vLLM ─────────────────────────────────────────────────────────────────────────────────


async def test_a_count_of_vllm_is_believed_when_it_was_true_once():
    """It writes the chats of some models by other means than it counts by: at first there is an allowance."""
    house = house_of(Tokenizer(), VLLM)
    budget: dict[str, Any] = {"total_tokens": TRUE + TEMPLATE_TOKENS + OUTPUTS.default}

    await house.ask(**budget)
    await house.counters.forget("t1")
    await house.ask(**budget)

    assert [entry.reserved for entry in house.journal.intents] == [
        TRUE + TEMPLATE_TOKENS + OUTPUTS.default,
        TRUE + OUTPUTS.default,
    ]


async def test_what_a_tokenizer_missed_is_added_ever_after():
    """The worst is what counts."""
    house = house_of(Tokenizer())
    budget: dict[str, Any] = {"total_tokens": TRUE + 60 + OUTPUTS.default}

    for true_count in (TRUE + 60, TRUE + 7, TRUE):
        house.usage = Usage(true_count, 5)
        await house.ask(**budget)
        await house.counters.forget("t1")

    assert [entry.reserved for entry in house.journal.intents] == [
        TRUE + OUTPUTS.default,
        TRUE + 60 + OUTPUTS.default,
        TRUE + 60 + OUTPUTS.default,
    ]


@pytest.mark.parametrize(
    ("context", "max_tokens", "sent", "counts"),
    [
        pytest.param(8_192, 1_000, 1_000, 0, id="there is room, by the bytes"),
        pytest.param(BOUND + 1_000, 1_000, 1_000, 0, id="just enough"),
        pytest.param(2_500, 1_000, 1_000, 1, id="there is room, by the count"),
        pytest.param(1_600, 1_000, 1_600 - TRUE - TEMPLATE_TOKENS, 1, id="what the prompt leaves"),
        pytest.param(900, 1_000, None, 0, id="its own bound is tighter, and leaves nothing unbounded"),
    ],
)
async def test_vllm_is_asked_for_no_more_than_fits(context, max_tokens, sent, counts):
    """It refuses a prompt and an output that do not fit together; others just end the answer."""
    tokenizer = Tokenizer()
    house = house_of(tokenizer, ModelCard("m", engine=Engine.VLLM, context=context))

    await house.ask(max_tokens=max_tokens)

    assert house.seen[0].call.sampling.max_tokens == sent
    assert len(tokenizer.asked) == counts
    assert house.seen[0].output_allowed == max_tokens, "what the answer is cut at"


async def test_without_a_count_vllm_judges_itself():
    tokenizer = Tokenizer(status=503)
    house = house_of(tokenizer, ModelCard("m", engine=Engine.VLLM, context=1_600))

    await house.ask(max_tokens=1_000)

    assert house.seen[0].call.sampling.max_tokens == 1_000
