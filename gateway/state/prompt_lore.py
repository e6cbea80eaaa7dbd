"""What true counts have taught of prompts: remembered by this process, and by it alone."""

from collections import OrderedDict
from typing import Final, TypeVar

from gateway.accounting import PromptSize
from gateway.rules.floors import NO_FLOOR, Floor, sampled
from gateway.rules.prompts import NOTHING_LEARNED, Learned, learn

_K = TypeVar("_K")
_V = TypeVar("_V")

# Those that were taught longest ago are forgotten, and learned anew. Some 200 bytes each.
_MAX_MODELS: Final = 1_024
_MAX_FLOORS: Final = 16_384


class PromptLore:
    """`ports.PromptLore`. A model of backends of two kinds is two: each counts in its own way."""

    def __init__(self) -> None:
        self._models: OrderedDict[tuple[str, str], Learned] = OrderedDict()
        self._floors: OrderedDict[tuple[str, str, str], Floor] = OrderedDict()

    def of(self, kind: str, model: str) -> Learned:
        return self._models.get((kind, model), NOTHING_LEARNED)

    def floor_of(self, tenant_id: str, kind: str, model: str) -> Floor:
        return self._floors.get((tenant_id, kind, model), NO_FLOOR)

    def learn(
        self,
        tenant_id: str,
        kind: str,
        model: str,
        size: PromptSize,
        prompt_tokens: int,
        *,
        context: int | None,
    ) -> Learned:
        of_model, of_tenant = (kind, model), (tenant_id, kind, model)
        learned = learn(self._models.get(of_model, NOTHING_LEARNED), size, prompt_tokens)
        floor = sampled(self._floors.get(of_tenant, NO_FLOOR), size, prompt_tokens, context, learned)
        _keep(self._models, of_model, learned, _MAX_MODELS)
        _keep(self._floors, of_tenant, floor, _MAX_FLOORS)
        return learned


def _keep(kept: OrderedDict[_K, _V], key: _K, value: _V, at_most: int) -> None:
    kept[key] = value
    kept.move_to_end(key)
    if len(kept) > at_most:
        kept.popitem(last=False)
