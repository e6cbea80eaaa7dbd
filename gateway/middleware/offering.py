"""What of all models a caller may see and use. What is forbidden does not exist for it, on any surface."""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from attrs import frozen

from gateway.formats.profiles import Profile, shown_as
from gateway.model import LoadedModel, ModelCard, Principal
from gateway.ports import Backend, Catalogue, Targets
from gateway.rules.access import may_use
from gateway.rules.model_names import canonical, leaves_the_machine

# Asked for in place of a forbidden model. No registry has a name without letters or digits.
_NOBODYS: Final = "_/_/_:_"


@frozen
class Found:
    """Who serves a name, and how that writes the model; and the profile that the name stands for, if any."""

    backend: Backend
    card: ModelCard
    profile: Profile | None = None

    @property
    def shown(self) -> ModelCard:
        """What the caller is told of it."""
        return self.card if self.profile is None else shown_as(self.card, self.profile)


Profiles = Mapping[str, Profile]
"""By canonical name."""


def no_profiles() -> Profiles:
    return {}


class Offering:
    """A caller's view of the catalogue, and of profiles, which go before models of their name.

    Of several backends that have a model, `targets` picks one.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        targets: Targets | None = None,
        profiles: Callable[[], Profiles] = no_profiles,
    ) -> None:
        self._catalogue = catalogue
        self._targets = targets or catalogue
        self._profiles = profiles

    async def find(self, principal: Principal, name: str) -> Found | None:
        """Who serves the model of this (caller's) name; None where it is not there, or not for the caller.

        Raises as `Targets.find`. A forbidden model takes as long, and fails as often, as one that nobody
        has: an unknown name may have all backends asked again.
        """
        known_as = canonical(name)
        if known_as is None:
            return None
        profile = self._profiles().get(known_as)
        # A profile keeps the canonical name.
        leaves = leaves_the_machine(known_as if profile is None else profile.model)
        if may_use(principal, known_as, leaves=leaves):
            found = await self._targets.find(name if profile is None else profile.model)
            if found is None:
                return None
            if found[1].leaves == leaves or may_use(principal, known_as, leaves=found[1].leaves):
                return Found(*found, profile)
        await self._targets.find(_NOBODYS)
        return None

    def cards(self, principal: Principal) -> tuple[ModelCard, ...]:
        """All models that are there for the caller, profiles included, each once."""
        by_name = {canonical(card.name): card for card in self._catalogue.cards()}
        return tuple(card for card, _ in self._shown(principal, by_name))

    def loaded(self, principal: Principal) -> tuple[tuple[ModelCard, LoadedModel], ...]:
        """Those of them that a backend has in memory; under each name that the caller may use."""
        loaded = {canonical(card.name): (card, model) for card, model in self._catalogue.loaded()}
        by_name = {known_as: card for known_as, (card, _) in loaded.items()}
        return tuple((card, loaded[model][1]) for card, model in self._shown(principal, by_name))

    def _shown(
        self, principal: Principal, by_name: Mapping[str | None, ModelCard]
    ) -> Iterator[tuple[ModelCard, str]]:
        """Cards as the caller may see them, each with the canonical name of its model."""
        profiles = self._profiles()
        for known_as, card in by_name.items():
            if known_as is None or known_as in profiles:
                continue
            if may_use(principal, known_as, leaves=card.leaves):
                yield card, known_as
        for known_as, profile in profiles.items():
            model = canonical(profile.model)
            card_of_model = by_name.get(model)
            if model is None or card_of_model is None:
                continue
            if may_use(principal, known_as, leaves=card_of_model.leaves):
                yield shown_as(card_of_model, profile), model
