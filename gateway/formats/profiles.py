"""Profiles: a public model name that stands for a model with options and limits, on every surface.

What a profile fixes holds whatever the caller asks; what it presets holds where the caller says nothing. It
is the operator's word, so the bounds of callers do not apply to it.
"""

from typing import Any, Final, TypeVar

from attrs import evolve, field, fields, frozen

from gateway.errors import InvalidRequest
from gateway.formats.chat import CompletionCall, Part, Sampling
from gateway.formats.fields import Fields
from gateway.formats.ollama.options import read_options, write_options
from gateway.model import JsonObject, ModelCard
from gateway.rules.access import least
from gateway.rules.model_names import LATEST, canonical

_NAMES: Final = tuple(one.name for one in fields(Sampling))
# By Ollama's word for it, which is what operators and the header of dropped options use.
_WORDS: Final = {"max_tokens": "num_predict"}
_C = TypeVar("_C", bound="Part | CompletionCall")


@frozen
class PhaseTimeouts:
    """Seconds for the phases of a call, where they differ from the operator's settings."""

    first_byte_s: float | None = None
    chunk_gap_s: float | None = None
    answer_s: float | None = None


@frozen
class Profile:
    """A public name. `model` is a backend's, never another profile's: so nothing goes in circles.

    `max_num_ctx` and `max_output_tokens` bound what callers ask; `keep_alive_s` holds where they say nothing.
    """

    name: str
    model: str
    created_at: float
    fixed: Sampling = field(factory=Sampling)
    presets: Sampling = field(factory=Sampling)
    max_num_ctx: int | None = None
    max_output_tokens: int | None = None
    keep_alive_s: float | None = None
    timeouts: PhaseTimeouts = field(factory=PhaseTimeouts)

    @property
    def known_as(self) -> str:
        """The canonical name, by which callers' names are compared."""
        return canonical(self.name) or self.name


def with_profile(call: _C, profile: Profile, num_ctx_cap: int | None) -> _C:
    """The call with what the profile says. What the caller asked otherwise is named with the dropped.

    `num_ctx_cap` is what the caller may have at most, also of what the profile sets.
    """
    asked, sampling = call.sampling, _sampling(call.sampling, profile)
    sampling = evolve(sampling, num_ctx=least(sampling.num_ctx, num_ctx_cap) if sampling.num_ctx else None)
    overruled = [
        _WORDS.get(name, name)
        for name in _NAMES
        if getattr(asked, name) not in (None, (), getattr(sampling, name))
    ]
    dropped = (*call.dropped, *(name for name in overruled if name not in call.dropped))
    return evolve(call, sampling=sampling, dropped=dropped)


def shown_as(card: ModelCard, profile: Profile) -> ModelCard:
    """The model's card under the public name, with the context that callers have of it."""
    num_ctx = profile.fixed.num_ctx or profile.max_num_ctx
    lines = [f"{name} {value}" for name, value in write_options(_sampling(Sampling(), profile)).items()]
    return evolve(
        card,
        name=profile.name,
        context=least(card.context, num_ctx) if card.context is not None else profile.fixed.num_ctx,
        parameters="\n".join(filter(None, (card.parameters, *lines))),
    )


def options_of(sampling: Sampling) -> JsonObject:
    """By Ollama's names: what is kept, and what operators are shown."""
    return write_options(sampling)


def sampling_of(options: JsonObject) -> Sampling:
    """Raise ValueError, with a sentence, for what is no option that a caller may have."""
    try:
        sampling, dropped = read_options(Fields({"options": options}))
    except InvalidRequest as error:
        raise ValueError(error.sentence) from error
    if dropped:
        raise ValueError(f"'{dropped[0]}' is no option of a request; the model's server is started with it.")
    return sampling


def public(name: str) -> str:
    """A name as lists show it: without the tag that stands for none."""
    return name.removesuffix(f":{LATEST}")


def _sampling(asked: Sampling, profile: Profile) -> Sampling:
    values: dict[str, Any] = {}
    for name in _NAMES:
        for source in (profile.fixed, asked, profile.presets):
            value = getattr(source, name)
            if value not in (None, ()):
                values[name] = value
                break
    return Sampling(**values)
