"""Which models a backend may be asked for now, so that it does not load and unload the same ones in turns.

A backend holds as many models as it was seen to hold at the same time. What it holds is asked for freely;
while that is wanted, another model, for which one has to go, waits until the turn is over. And no model is
loaded twice within a turn.

A machine without a clock: `now` is seconds on a monotonic one. Models are canonical names.
"""

from collections.abc import Collection

from attrs import Factory, define


@define
class ModelTurns:
    """`turn_s`: how long a model is kept for those who wait for it, while others wait for another."""

    turn_s: float
    resident: list[str] = Factory(list)
    """What it holds, as far as is known: what was asked for last comes last."""
    _room: int = 1
    _loading: set[str] = Factory(set)
    _loaded_at: dict[str, float] = Factory(dict)
    _turn_began: float = float("-inf")

    def is_warm(self, model: str) -> bool:
        return model in self.resident

    def is_loading(self, model: str) -> bool:
        return model in self._loading

    def may_load(self, model: str, now: float, is_wanted: bool) -> bool:
        """Whether a model may be asked for, as one that is there may; `is_wanted`: that is waited for."""
        return self.ready_at(model, now, is_wanted) <= now

    def is_turn_over(self, now: float) -> bool:
        return now >= self._turn_began + self.turn_s

    def asked(self, model: str, now: float) -> bool:
        """It is sent a request for this model. Whether it has to load it for that."""
        if model in self.resident:
            self.resident.remove(model)
            self.resident.append(model)
            return False
        if len(self.resident) >= self._room:
            del self.resident[: len(self.resident) - self._room + 1]
        self.resident.append(model)
        self._loading.add(model)
        self._turn_began = now
        # What was loaded longer ago than a turn decides nothing any more.
        self._loaded_at = {name: at for name, at in self._loaded_at.items() if now < at + self.turn_s}
        self._loaded_at[model] = now
        return True

    def loaded(self, model: str) -> bool:
        """The load is over: it has begun to answer, or it won't. Whether it was loading."""
        if model not in self._loading:
            return False
        self._loading.remove(model)
        return True

    def seen(self, models: Collection[str]) -> None:
        """What the backend says that it has in memory; while it loads, that may be gone by then."""
        if self._loading:
            return
        gone = [model for model in self.resident if model not in models]
        new = sorted(model for model in models if model not in self.resident)
        if gone and any(model in self._loaded_at for model in models):
            # Something was loaded in this turn, and something had to go for it: there is no more room than
            # this.
            self._room = max(1, len(models))
        self._room = max(self._room, len(models))
        self.resident = new + [model for model in self.resident if model in models]

    def ready_at(self, model: str, now: float, is_wanted: bool) -> float:
        """From when on `may_load` lets it, if nothing else changes; what is there may be asked now."""
        if model in self.resident or len(self.resident) < self._room:
            return now
        at = self._loaded_at.get(model, float("-inf")) + self.turn_s
        if is_wanted:
            at = max(at, self._turn_began + self.turn_s)
        return max(at, now)
