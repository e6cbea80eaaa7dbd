"""Offering: what of all models is there for a caller."""

from typing import Any

import pytest
from attrs import define, evolve, field

from gateway.errors import BackendFailed
from gateway.middleware.offering import Offering
from gateway.model import LoadedModel, ModelCard, ModelPolicy
from tests.asgi import PRINCIPAL

CARDS = (ModelCard("Tiny:latest"), ModelCard("qwen3:8b"), ModelCard("away", leaves=True))
MODEST = evolve(PRINCIPAL, tenant_models=ModelPolicy(("tiny", "away:latest", "tiny:latest", "gone*")))


@define
class Catalogue:
    """Three models, one of which another machine answers for; it remembers what it was asked for."""

    asked: list[str] = field(factory=list)
    is_ready: bool = True

    async def find(self, model: str) -> Any:
        self.asked.append(model)
        if not self.is_ready:
            raise BackendFailed("away")
        return next(((None, card) for card in CARDS if card.name == model), None)

    def cards(self) -> tuple[ModelCard, ...]:
        return CARDS

    def loaded(self) -> tuple[tuple[ModelCard, LoadedModel], ...]:
        return tuple((card, LoadedModel(card.name)) for card in CARDS)


async def test_what_is_allowed_is_found():
    found: Any = await Offering(Catalogue()).find(MODEST, "Tiny:latest")

    assert found == (None, CARDS[0])


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("qwen3:8b", id="forbidden"),
        pytest.param("away", id="answered elsewhere"),
        pytest.param("gone", id="nobody has it"),
        pytest.param("tiny:cloud", id="of the cloud"),
    ],
)
async def test_what_is_forbidden_costs_what_costs_what_does_not_exist(name: str):
    """None, after the catalogue was asked for a model that nobody has: an unknown name may take longer."""
    catalogue = Catalogue()

    assert await Offering(catalogue).find(MODEST, name) is None
    assert catalogue.asked[-1] not in {card.name for card in CARDS}


async def test_what_is_forbidden_fails_as_what_does_not_exist():
    """Where no backend answers, nothing is known of any name."""
    with pytest.raises(BackendFailed):
        await Offering(Catalogue(is_ready=False)).find(MODEST, "qwen3:8b")


async def test_what_can_be_no_name_asks_nobody():
    catalogue = Catalogue()

    assert await Offering(catalogue).find(PRINCIPAL, "no name") is None
    assert catalogue.asked == []


def test_lists_show_what_is_there_for_the_caller():
    """What it could not use, it does not learn of."""
    offering = Offering(Catalogue())

    assert offering.cards(PRINCIPAL) == CARDS[:2]
    assert offering.cards(MODEST) == CARDS[:1]
    assert [card for card, _ in offering.loaded(MODEST)] == [CARDS[0]]
    assert offering.cards(evolve(MODEST, allow_cloud=True)) == (CARDS[0], CARDS[2])
