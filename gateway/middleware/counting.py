"""Counting: puts a count by the backend's tokenizer in place of a prompt's bound, where that is in the way.

It is one more round trip before a request is sent, so it is made only where it may decide something: where
tokens are limited, and the bound by bytes would be refused or would shorten the answer; and where vLLM would
refuse the prompt together with the output that is allowed. Whatever goes wrong with it, the bound stays.
"""

from typing import Final

from loguru import logger

from gateway.accounting import Plan
from gateway.errors import ContextLengthExceeded
from gateway.formats.backend_errors import Complaint, context_exceeded
from gateway.formats.translation import SURFACES
from gateway.middleware.tokenizers import Tokenizers
from gateway.model import Demand, Engine, Exchange, ModelCard
from gateway.ports import Clock, PromptLore
from gateway.rules.plans import MIN_OUTPUT_TOKENS, recounted
from gateway.rules.prompts import TEMPLATE_TOKENS, Learned, counted_bound, is_countable, least_tokens

# What a count may have missed, as long as no true count has come. llama.cpp counts by the code that reads the
# prompt for its answer; vLLM has models whose chats it writes by other means than those it counts by.
_FIRST_SLACK: Final = {Engine.LLAMA_CPP: 0, Engine.VLLM: TEMPLATE_TOKENS}

# So a tenant keeps no more than a tenth of a thread of a backend busy for nothing.
_PAUSE_FACTOR: Final = 10
# Of each: beyond it all are forgotten.
_MAX_REMEMBERED: Final = 4096

# A backend, a model as that writes it, and whether tools go with the prompt.
_Kind = tuple[str, str, bool]


class Counting:
    """Decides when to count, and remembers by how much counts were below the truth."""

    def __init__(self, tokenizers: Tokenizers, lore: PromptLore, clock: Clock) -> None:
        self._tokenizers = tokenizers
        self._lore = lore
        self._clock = clock
        self._rest_until: dict[str, float] = {}
        self._slack: dict[_Kind, int] = {}

    async def recount(self, exchange: Exchange, free: int) -> float | None:
        """Count the prompt, and change demand and plan of the exchange accordingly. How long it took, in s.

        None: they stay as they are. `free` is how many tokens prompt and output may have together: what
        can't fit is not counted. Raises ContextLengthExceeded for a prompt that is longer than the context.
        """
        demand, plan, (_, card) = exchange.demand, exchange.plan, exchange.target
        if demand is None or plan is None or not _is_open(demand, card) or self._rests(plan.tenant_id):
            return None
        least_output = plan.tokens_needed - demand.prompt_bound
        if least_tokens(demand.size) >= min(free - least_output, card.context):
            return None
        began = self._clock.elapsed()
        count = await self._tokenizers.count(exchange, card.engine)
        took_s = self._clock.elapsed() - began
        if count is None or not self._put(exchange, demand, plan, count, took_s):
            return None
        return took_s

    def least_needed(self, exchange: Exchange) -> int:
        """What a request needs for sure: a prompt that is not counted yet may be less than its bound."""
        demand, plan, (_, card) = exchange.demand, exchange.plan, exchange.target
        if demand is None or plan is None:
            return 0
        prompt = least_tokens(demand.size) if _is_open(demand, card) else demand.prompt_bound
        return plan.tokens_needed - demand.prompt_bound + min(prompt, demand.prompt_bound)

    def was_in_vain(self, tenant_id: str, took_s: float) -> None:
        """A count that led to a refusal cost its tenant nothing: so there is a pause, of a multiple of it."""
        if len(self._rest_until) >= _MAX_REMEMBERED:
            self._rest_until.clear()
        self._rest_until[tenant_id] = self._clock.elapsed() + _PAUSE_FACTOR * took_s

    def _rests(self, tenant_id: str) -> bool:
        return self._clock.elapsed() < self._rest_until.get(tenant_id, 0.0)

    async def fitting(self, exchange: Exchange) -> int | None:
        """How long an output to ask for: what is allowed, and of vLLM no more than the context has room for.

        It refuses a prompt and an output that do not fit together, where others end the answer when their
        context is full. None where what is allowed is more than a prompt can leave of the context.
        """
        demand, allowed, (_, card) = exchange.demand, exchange.output_allowed, exchange.target
        if demand is None or allowed is None or card.context is None or card.engine is not Engine.VLLM:
            return allowed
        if demand.prompt_bound + allowed <= card.context:
            return allowed
        if allowed >= card.context:
            return None
        if demand.size.prompts != 1:
            return allowed
        await self.recount(exchange, free=card.context)
        bound = exchange.demand.prompt_bound if exchange.demand else demand.prompt_bound
        room = int(card.context - bound)
        return min(allowed, room) if room >= MIN_OUTPUT_TOKENS else allowed

    def compare(self, exchange: Exchange) -> None:
        """Learn from what the backend says in the end of the prompt."""
        demand, usage = exchange.demand, exchange.counted
        # A second run reads more than the caller has written: its count says nothing of that.
        if demand is None or usage is None or usage.estimated or demand.runs > 1:
            return
        if demand.counted is not None:
            kind, missed = _kind_of(exchange, demand), max(0, usage.prompt_tokens - demand.counted)
            if len(self._slack) >= _MAX_REMEMBERED:
                self._slack.clear()
            # The first true count replaces what was only feared; then the worst stays.
            self._slack[kind] = max(self._slack.get(kind, 0), missed)
        self._learn(exchange, demand, usage.prompt_tokens)

    def _put(self, exchange: Exchange, demand: Demand, plan: Plan, count: int, took_s: float) -> bool:
        backend, card = exchange.target
        slack = self._slack.get(_kind_of(exchange, demand), _FIRST_SLACK[card.engine])
        learned = self._lore.of(backend.kind, exchange.model or "")
        bound = counted_bound(demand.size, count, slack, learned)
        if bound is None:
            # Above what the bytes allow: the template says more than was known. A mad count teaches little.
            learned = self._learn(exchange, demand, count)
            bound = counted_bound(demand.size, count, slack, learned)
        if bound is None:
            logger.bind(backend=backend.name).warning("a prompt can't have the {} tokens counted", count)
            return False
        if count >= card.context + slack:
            self.was_in_vain(plan.tenant_id, took_s)
            raise _too_long(exchange, count, card.context)
        exchange.plan, exchange.demand = recounted(plan, demand, count, bound)
        return True

    def _learn(self, exchange: Exchange, demand: Demand, prompt_tokens: int) -> Learned:
        backend, _ = exchange.target
        tenant_id = exchange.principal.tenant_id if exchange.principal else ""
        return self._lore.learn(
            tenant_id,
            backend.kind,
            exchange.model or "",
            demand.size,
            prompt_tokens,
            context=demand.context,
        )


def _is_open(demand: Demand, card: ModelCard) -> bool:
    """Whether a count may still change what the prompt is taken for. Inputs of vectors are not counted."""
    is_asked_about = demand.counted is None and demand.runs > 0 and is_countable(demand.size)
    return is_asked_about and card.engine is not None and card.context is not None


def _kind_of(exchange: Exchange, demand: Demand) -> _Kind:
    backend, card = exchange.target
    return backend.name, card.name, demand.size.schema_bytes > 0


def _too_long(exchange: Exchange, count: int, context: int) -> ContextLengthExceeded:
    error = context_exceeded(Complaint(prompt_tokens=count, context_tokens=context))
    if exchange.operation in SURFACES:
        error.param = SURFACES[exchange.operation].prompt
    return error
