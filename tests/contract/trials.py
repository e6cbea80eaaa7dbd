"""Generated sequences for each kind of store; FUZZ_FACTOR=100 makes a hundred times as many."""

from collections.abc import Callable
from typing import Any, Final

from attrs import frozen
from hypothesis import HealthCheck, Phase, settings

from tests.contract.stores import Store
from tests.effort import times

# What fits into the time of one sequence in this process: Redis answers later, a cluster later still.
SHARES: Final = {"local": 1.0, "redis_server": 0.6, "redis_cluster": 0.2}
STEPS: Final = 40


@frozen
class Trial:
    """A store of one kind, and what waits for its answers."""

    kind: str
    store: Store
    run: Callable[..., Any]

    def settings(self, examples: int) -> settings:
        return settings(
            max_examples=times(examples * SHARES[self.kind]),
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[phase for phase in Phase if phase is not Phase.explain],
        )
