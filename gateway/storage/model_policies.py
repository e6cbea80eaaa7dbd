"""What tenants and keys may do with models, as columns of theirs."""

from collections.abc import Sequence
from typing import Any, Final

from attrs import asdict

from gateway.model import ModelPolicy

# No name of a model has one.
_SEPARATOR: Final = ","


def values_of(policy: ModelPolicy) -> dict[str, Any]:
    """By the columns' names."""
    patterns = None if policy.models is None else _SEPARATOR.join(policy.models)
    return {**asdict(policy), "models": patterns}


def models_of(columns: Sequence[Any]) -> ModelPolicy:
    """Of the columns `models`, `max_num_ctx` and `max_output_tokens`."""
    patterns, max_num_ctx, max_output_tokens = columns
    models = None if patterns is None else tuple(patterns.split(_SEPARATOR))
    return ModelPolicy(models, max_num_ctx, max_output_tokens)
