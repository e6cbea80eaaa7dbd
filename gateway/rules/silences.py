"""How long a model may be silent before it counts as hung: learned for each model, as TCP learns when to take
a segment for lost (RFC 6298): the mean, and four times the mean deviation from it.

A stream begins when its prompt is read; an answer in one piece comes when its last token is there; and a load
goes before either: so each kind of silence is learned apart.
"""

from typing import Final

from attrs import define, frozen

# RFC 6298: how much the newest counts for the mean and for the deviation, and how many deviations are usual.
_MEAN_GAIN: Final = 1 / 8
_DEVIATION_GAIN: Final = 1 / 4
_DEVIATIONS: Final = 4
# Of what was never seen: a load, or an answer in one piece, may well take longer than a turn.
_UNKNOWN_TURNS: Final = 2


@frozen
class Silence:
    """What a model is silent for, before the first sign of its answer."""

    model: str
    is_whole: bool = False
    """The answer comes in one piece."""
    is_load: bool = False
    """The model is loaded first."""


@define
class _Usual:
    mean_s: float
    deviation_s: float

    def learn(self, silent_s: float) -> None:
        self.deviation_s += (abs(silent_s - self.mean_s) - self.deviation_s) * _DEVIATION_GAIN
        self.mean_s += (silent_s - self.mean_s) * _MEAN_GAIN


class Silences:
    """Never less than a turn, `turn_s`: for so long others may have to wait for a model that works, too."""

    def __init__(self, turn_s: float) -> None:
        self._turn_s = turn_s
        self._usual: dict[Silence, _Usual] = {}

    def learn(self, silence: Silence, silent_s: float) -> None:
        """It was silent for so long, and then answered."""
        usual = self._usual.get(silence)
        if usual is None:
            self._usual[silence] = _Usual(silent_s, silent_s / 2)
        else:
            usual.learn(silent_s)

    def most_s(self, silence: Silence) -> float:
        """Beyond this it hangs."""
        usual = self._usual.get(silence)
        if usual is not None:
            return max(self._turn_s, usual.mean_s + _DEVIATIONS * usual.deviation_s)
        return self._turn_s * (_UNKNOWN_TURNS if silence.is_whole or silence.is_load else 1)
