"""What of all models a caller may see and use. What is forbidden does not exist for it, on any surface."""

from typing import Final

from gateway.model import LoadedModel, ModelCard, Principal
from gateway.ports import Backend, Catalogue, Targets
from gateway.rules.access import may_use
from gateway.rules.model_names import canonical, leaves_the_machine

# Asked for in place of a forbidden model. No registry has a name without letters or digits.
_NOBODYS: Final = "_/_/_:_"


class Offering:
    """A caller's view of the catalogue; of several backends that have a model, `targets` picks one."""

    def __init__(self, catalogue: Catalogue, targets: Targets | None = None) -> None:
        self._catalogue = catalogue
        self._targets = targets or catalogue

    async def find(self, principal: Principal, name: str) -> tuple[Backend, ModelCard] | None:
        """Who serves the model of this (caller's) name; None where it is not there, or not for the caller.

        Raises as `Targets.find`. A forbidden model takes as long, and fails as often, as one that nobody
        has: an unknown name may have all backends asked again.
        """
        known_as = canonical(name)
        if known_as is None:
            return None
        if may_use(principal, known_as, leaves=leaves_the_machine(known_as)):
            found = await self._targets.find(name)
            if found is None or may_use(principal, known_as, leaves=found[1].leaves):
                return found
        await self._targets.find(_NOBODYS)
        return None

    def cards(self, principal: Principal) -> tuple[ModelCard, ...]:
        """All models that are there for the caller."""
        return tuple(card for card in self._catalogue.cards() if _is_for(principal, card))

    def loaded(self, principal: Principal) -> tuple[tuple[ModelCard, LoadedModel], ...]:
        """Those of them that a backend has in memory."""
        return tuple(one for one in self._catalogue.loaded() if _is_for(principal, one[0]))


def _is_for(principal: Principal, card: ModelCard) -> bool:
    known_as = canonical(card.name)
    return known_as is not None and may_use(principal, known_as, leaves=card.leaves)
