"""Offering: what of all models is there for a caller."""

from typing import Any

import pytest
from attrs import define, evolve, field

from gateway.errors import BackendFailed
from gateway.formats.chat import Sampling
from gateway.formats.profiles import Profile
from gateway.middleware.offering import Offering
from gateway.model import LoadedModel, ModelCard, ModelPolicy
from gateway.rules.model_names import canonical
from tests.asgi import PRINCIPAL

CARDS = (ModelCard("Tiny:latest"), ModelCard("qwen3:8b"), ModelCard("away", leaves=True))
MODEST = evolve(PRINCIPAL, tenant_models=ModelPolicy(("tiny", "away:latest", "tiny:latest", "gone*")))


CAREFUL = Profile("careful", "qwen3:8b", 0.0, fixed=Sampling(temperature=0.0))
PROFILES = {
    one.known_as: one
    for one in (
        CAREFUL,
        Profile("gone", "nobody-has-it", 0.0),
        Profile("hidden", "away", 0.0),
        Profile("tiny", "Tiny:latest", 0.0),
    )
}


def profiles() -> dict[str, Profile]:
    return PROFILES


@define
class Catalogue:
    """Three models, one of which another machine answers for; it remembers what it was asked for."""

    asked: list[str] = field(factory=list)
    is_ready: bool = True

    async def find(self, model: str) -> Any:
        self.asked.append(model)
        if not self.is_ready:
            raise BackendFailed("away")
        return next(((None, card) for card in CARDS if canonical(card.name) == canonical(model)), None)

    def cards(self) -> tuple[ModelCard, ...]:
        return CARDS

    def loaded(self) -> tuple[tuple[ModelCard, LoadedModel], ...]:
        return tuple((card, LoadedModel(card.name)) for card in CARDS)


async def test_what_is_allowed_is_found():
    found = await Offering(Catalogue()).find(MODEST, "Tiny:latest")

    assert found is not None
    assert (found.card, found.profile, found.shown) == (CARDS[0], None, CARDS[0])


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
    assert canonical(catalogue.asked[-1]) not in {canonical(card.name) for card in CARDS}


async def test_what_is_forbidden_fails_as_what_does_not_exist():
    """Where no backend answers, nothing is known of any name."""
    with pytest.raises(BackendFailed):
        await Offering(Catalogue(is_ready=False)).find(MODEST, "qwen3:8b")


async def test_a_public_name_is_found_as_the_model_that_it_stands_for():
    """And what the caller may use goes by the public name: not by that of the model."""
    offering = Offering(Catalogue(), None, profiles)
    caller = evolve(PRINCIPAL, key_models=ModelPolicy(("careful:latest", "hidden:latest")))

    found = await offering.find(caller, "Careful")

    assert found is not None
    assert (found.card, found.profile, found.shown.name) == (CARDS[1], CAREFUL, "careful")
    assert await offering.find(caller, "qwen3:8b") is None
    assert await offering.find(MODEST, "careful") is None
    assert await offering.find(caller, "hidden") is None, "its model leaves the box"
    assert await offering.find(evolve(caller, allow_cloud=True), "hidden") is not None


async def test_a_public_name_of_a_model_that_nobody_has_is_not_there():
    assert await Offering(Catalogue(), None, profiles).find(PRINCIPAL, "gone") is None


def test_lists_show_public_names_too():
    """Also where their model is not there for the caller; and a profile goes before the model of its name."""
    offering = Offering(Catalogue(), None, profiles)
    caller = evolve(PRINCIPAL, key_models=ModelPolicy(("careful:latest",)))

    assert [card.name for card in offering.cards(PRINCIPAL)] == ["qwen3:8b", "careful", "tiny"]
    assert [card.name for card in offering.cards(caller)] == ["careful"]
    assert [(card.name, model.name) for card, model in offering.loaded(caller)] == [("careful", "qwen3:8b")]
    assert "hidden" in [card.name for card in offering.cards(evolve(PRINCIPAL, allow_cloud=True))]


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
