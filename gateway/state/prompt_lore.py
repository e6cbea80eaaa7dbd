"""What true counts have taught of each model's prompts: remembered by this process, and by it alone."""

from collections import OrderedDict
from typing import Final

from gateway.accounting import PromptSize
from gateway.rules.prompts import NOTHING_LEARNED, Learned, learn

# Those that were used longest ago are forgotten, and learned anew.
_MAX_MODELS: Final = 1024


class PromptLore:
    """`ports.PromptLore`. A model of backends of two kinds is two: each counts in its own way."""

    def __init__(self) -> None:
        self._learned: OrderedDict[tuple[str, str], Learned] = OrderedDict()

    def of(self, kind: str, model: str) -> Learned:
        return self._learned.get((kind, model), NOTHING_LEARNED)

    def learn(
        self, kind: str, model: str, size: PromptSize, prompt_tokens: int, context: int | None
    ) -> Learned:
        learned = learn(self.of(kind, model), size, prompt_tokens, context)
        self._learned[kind, model] = learned
        self._learned.move_to_end((kind, model))
        if len(self._learned) > _MAX_MODELS:
            self._learned.popitem(last=False)
        return learned
