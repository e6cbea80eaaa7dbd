"""Generated sequences for each kind of store; FUZZ_FACTOR=100 makes a hundred times as many."""

from collections.abc import Callable
from typing import Any, Final

from attrs import frozen
from hypothesis import HealthCheck, Phase, settings

from tests.contract.stores import Store
from tests.effort import times

KINDS: Final = ("local", "redis_server", "redis_cluster")
STEPS: Final = 40
"""Of one sequence at most; 37 on average."""


@frozen
class Trial:
    """A store of one kind, and what waits for its answers."""

    kind: str
    store: Store
    run: Callable[..., Any]

    def settings(self, examples: int) -> settings:
        return settings(
            max_examples=times(examples),
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[phase for phase in Phase if phase is not Phase.explain],
        )
