"""Which backend has which model, as far as is known."""

import asyncio

import pytest
from attrs import define, evolve, field

from gateway.backends.discovery import UNKNOWN_NAME_REFRESH_S, Discovery
from gateway.errors import BackendFailed
from gateway.model import LoadedModel, ModelCard
from tests.asgi import FakeClock


@define(eq=False)
class FakeBackend:
    """Lists what it is told to; None: it is away."""

    name: str
    names: tuple[str, ...] | None = ()
    kind: str = "ollama"
    asked: int = 0
    asked_thrice: asyncio.Event = field(factory=asyncio.Event)
    may_describe: asyncio.Event | None = None
    described: asyncio.Event = field(factory=asyncio.Event)
    in_memory: tuple[LoadedModel, ...] | None = ()
    leaves: bool = False

    async def models(self) -> tuple[ModelCard, ...]:
        self.asked += 1
        if self.asked == 3:
            self.asked_thrice.set()
        if self.names is None:
            raise BackendFailed("away")
        return tuple(ModelCard(name=name, leaves=self.leaves) for name in self.names)

    async def loaded(self) -> tuple[LoadedModel, ...]:
        if self.in_memory is None:
            raise BackendFailed("away")
        return self.in_memory

    async def completed(self, card: ModelCard) -> ModelCard:
        if self.may_describe is None:
            return card
        await self.may_describe.wait()
        self.described.set()
        return evolve(card, context=4096)

    def send(self, request, *, request_id, timeouts=None):
        raise NotImplementedError

    def hold(self):
        raise NotImplementedError

    def let_go(self):
        raise NotImplementedError

    async def ask(self, request, *, request_id, timeout_s):
        raise NotImplementedError


async def started(*backends: FakeBackend, clock: FakeClock | None = None) -> Discovery:
    discovery = Discovery(backends, clock or FakeClock())
    await discovery.refresh()
    return discovery


async def found_by(discovery: Discovery, name: str) -> tuple[str, str] | None:
    found = await discovery.find(name)
    return None if found is None else (found[0].name, found[1].name)


@pytest.mark.parametrize(
    "name", ["tiny", "TINY", "tiny:latest", "library/tiny", "registry.ollama.ai/library/tiny"]
)
async def test_a_model_is_found_by_all_its_names(name: str):
    """And the backend's own spelling is what it will be asked for."""
    discovery = await started(FakeBackend("a", ("Tiny:latest",)))

    assert await found_by(discovery, name) == ("a", "Tiny:latest")


async def test_the_first_backend_that_has_a_model_serves_it():
    discovery = await started(FakeBackend("a", ("one",)), FakeBackend("b", ("one", "two")))

    assert await found_by(discovery, "one") == ("a", "one")
    assert await found_by(discovery, "two") == ("b", "two")
    assert [one.name for one in discovery.cards()] == ["one", "two"], "merged, each once"


async def test_a_model_that_leaves_the_machine_is_found_like_others():
    """Whether it is there for a caller is decided by who asks."""
    discovery = await started(FakeBackend("a", ("big:cloud", "tiny")))

    assert await found_by(discovery, "big:cloud") == ("a", "big:cloud")


async def test_a_model_stays_in_the_box_where_one_backend_has_it_there():
    """Of two backends under the same name, the one whose own it is serves it."""
    away, here = FakeBackend("a", ("big",), leaves=True), FakeBackend("b", ("big",))

    assert await found_by(await started(away, here), "big") == ("b", "big")
    assert await found_by(await started(here, away), "big") == ("b", "big")


async def test_a_model_that_was_just_pulled_is_found_on_demand():
    """An unknown name asks again, but a flood of unknown names asks once a second."""
    backend, clock = FakeBackend("a"), FakeClock()
    discovery = await started(backend, clock=clock)
    backend.names = ("new",)

    assert await found_by(discovery, "new") is None
    assert backend.asked == 1
    clock.monotonic += UNKNOWN_NAME_REFRESH_S
    assert await found_by(discovery, "new") == ("a", "new")
    assert backend.asked == 2


async def test_what_is_learned_of_a_model_later_is_found_with_it():
    """The list alone says who serves it; nobody waits for the rest."""
    may_describe = asyncio.Event()
    backend = FakeBackend("a", ("one",), may_describe=may_describe)
    discovery = await started(backend)
    assert discovery.cards() == (ModelCard("one"),)

    may_describe.set()
    await backend.described.wait()
    await discovery.refresh()

    assert discovery.cards() == (ModelCard("one", context=4096),)


async def test_a_backend_that_went_away_keeps_its_models():
    """A request for them is told 502, which is true, and not 404."""
    backend, clock = FakeBackend("a", ("one",)), FakeClock()
    discovery = await started(backend, clock=clock)
    backend.names = None

    await discovery.refresh()

    assert not discovery.is_ready
    assert await found_by(discovery, "one") == ("a", "one")


async def test_without_any_backend_nothing_is_known_and_said_so():
    discovery = await started(FakeBackend("a", None))

    assert not discovery.is_ready
    assert discovery.cards() == ()
    with pytest.raises(BackendFailed):
        await discovery.find("one")


async def test_what_is_loaded_is_merged():
    """Each model once, as it stays longest; nothing that is not listed, whatever its name."""
    soon, late = LoadedModel("ONE:latest", expires_at=100.0), LoadedModel("one", expires_at=200.0)
    others = (LoadedModel("big:cloud"), LoadedModel("gone", None), LoadedModel("two:latest"))
    discovery = await started(
        FakeBackend("a", ("one", "two"), in_memory=(soon,)),
        FakeBackend("b", ("one",), in_memory=(late, *others)),
        FakeBackend("c", ("one",), in_memory=(soon,)),
    )

    assert discovery.loaded() == ((ModelCard("one"), late), (ModelCard("two"), others[2]))


async def test_what_stays_is_longer_than_any_time():
    stays = LoadedModel("one")
    backends = [
        FakeBackend(name, ("one",), in_memory=(model,))
        for name, model in (("a", LoadedModel("one", 9e9)), ("b", stays), ("c", LoadedModel("one", 9e9)))
    ]

    assert (await started(*backends)).loaded() == ((ModelCard("one"), stays),)


async def test_a_backend_that_does_not_say_has_nothing_loaded():
    """Its models are there all the same."""
    backend = FakeBackend("a", ("one",), in_memory=(LoadedModel("one"),))
    discovery = await started(backend)
    backend.in_memory = None

    await discovery.refresh()

    assert discovery.loaded() == ()
    assert await found_by(discovery, "one") == ("a", "one")


async def test_one_backend_away_does_not_hide_the_others():
    discovery = await started(FakeBackend("a", None), FakeBackend("b", ("one",)))

    assert discovery.is_ready
    assert await found_by(discovery, "one") == ("b", "one")
    assert await found_by(discovery, "two") is None


async def test_callers_share_one_round():
    """A thousand requests for one unknown name are one question to each backend."""
    backend, clock = FakeBackend("a"), FakeClock()
    discovery = await started(backend, clock=clock)
    clock.monotonic += UNKNOWN_NAME_REFRESH_S

    await asyncio.gather(*(discovery.find("nope") for _ in range(50)))

    assert backend.asked == 2


async def test_it_refreshes_in_the_background_until_it_is_stopped(monkeypatch):
    monkeypatch.setattr("gateway.backends.discovery.REFRESH_S", 0.001)
    backend = FakeBackend("a", ("one",))
    discovery = Discovery([backend], FakeClock())

    await discovery.start()
    await backend.asked_thrice.wait()
    await discovery.stop()
    asked = backend.asked
    await asyncio.sleep(0.01)

    assert backend.asked == asked


async def test_all_that_have_a_model_are_offered():
    """In their order, each with what is known of it; the first spelling of a name counts."""
    discovery = await started(
        FakeBackend("a", ("one", "ONE:latest")),
        FakeBackend("b", ("one",), in_memory=(LoadedModel("ONE"),)),
        FakeBackend("c", None),
    )

    offers = await discovery.offers("One:latest")

    assert [(offer.backend.name, offer.card.name, offer.is_up, offer.is_warm) for offer in offers] == [
        ("a", "one", True, False),
        ("b", "one", True, True),
    ]


async def test_what_a_backend_has_in_memory_is_told_on():
    """Of one that does not say, that it doesn't."""
    told: list[tuple[str, object]] = []
    backends = [
        FakeBackend("a", ("one",), in_memory=(LoadedModel("ONE"), LoadedModel("not a name"))),
        FakeBackend("b", None, in_memory=None),
    ]
    discovery = Discovery(backends, FakeClock(), lambda backend, warm: told.append((backend.name, warm)))

    await discovery.refresh()

    assert told == [("a", frozenset({"one:latest"})), ("b", None)]


async def test_what_a_backend_has_just_loaded_is_asked_at_once():
    backend = FakeBackend("a", ("one",))
    warm = asyncio.Event()
    discovery = Discovery([backend], FakeClock(), lambda backend, models: warm.set() if models else None)
    await discovery.refresh()
    backend.in_memory = (LoadedModel("one"),)

    discovery.ask_loaded(backend)
    discovery.ask_loaded(backend)
    discovery.ask_loaded(FakeBackend("stranger"))
    await asyncio.wait_for(warm.wait(), 30)
    await asyncio.sleep(0)

    assert [offer.is_warm for offer in await discovery.offers("one")] == [True]
    await discovery.stop()


async def test_backends_come_and_go():
    """What is known of one that stays is kept, without asking again."""
    stays, goes, comes = (FakeBackend(name, (name,)) for name in ("stays", "goes", "comes"))
    discovery = await started(stays, goes)

    discovery.set_backends([comes, stays])

    assert [known.backend.name for known in discovery.known()] == ["comes", "stays"]
    assert [one.name for one in discovery.cards()] == ["stays"]
    await discovery.refresh()
    assert [one.name for one in discovery.cards()] == ["comes", "stays"]
    assert [backend.asked for backend in (stays, goes, comes)] == [2, 1, 1]


async def test_a_backend_that_was_met_has_its_models_when_it_comes():
    """Nobody is told meanwhile that there is no such model; until it comes it is offered to none."""
    goes = FakeBackend("goes", ("one",))
    comes = FakeBackend("comes", ("one", "two"), in_memory=(LoadedModel("one"),))
    told: list[str] = []
    discovery = Discovery([goes], FakeClock(), lambda backend, warm: told.append(backend.name))
    await discovery.refresh()

    await discovery.meet([comes])
    assert await found_by(discovery, "one") == ("goes", "one")
    told.clear()
    discovery.set_backends([comes])

    assert await found_by(discovery, "two") == ("comes", "two")
    assert [offer.is_warm for offer in await discovery.offers("one")] == [True]
    assert (goes.asked, comes.asked) == (1, 1)
    for task in list(discovery._asking_loaded.values()):
        await asyncio.wait_for(task, 30)
    assert told == ["comes"], "now that it is one of ours"
    await discovery.stop()


@pytest.mark.parametrize("kind", ["ollama", "openai"])
async def test_what_was_known_by_a_name_holds_until_it_is_asked(kind: str):
    """At another address, or with another key, a server is likely the same; of another kind it is not."""
    may_describe = asyncio.Event()
    may_describe.set()
    before = FakeBackend("gpu", ("one",), may_describe=may_describe)
    discovery = await started(before)
    await asyncio.wait_for(before.described.wait(), 30)
    after = FakeBackend("gpu", None, kind)

    await discovery.meet([after])
    discovery.set_backends([after])

    if kind == "ollama":
        (offer,) = await discovery.offers("one")
        assert (offer.backend, offer.card.context, offer.is_up) == (after, 4096, False)
    else:
        with pytest.raises(BackendFailed):
            await discovery.offers("one")
    await discovery.stop()


async def test_who_is_met_and_never_comes_is_forgotten():
    discovery, may_describe = await started(FakeBackend("stays", ("one",))), asyncio.Event()
    met = FakeBackend("met", ("two",), may_describe=may_describe)

    await discovery.meet([met])
    await discovery.stop()

    assert [one.name for one in discovery.cards()] == ["one"]
    assert not met.described.is_set()


async def test_while_one_is_away_it_is_asked_more_often(monkeypatch):
    """Who comes back is served again within seconds, whatever its breaker has come to."""
    monkeypatch.setattr("gateway.backends.discovery.DOWN_REFRESH_S", 0.001)
    backend = FakeBackend("a", None)
    discovery = Discovery([backend], FakeClock())

    await discovery.start()
    await asyncio.wait_for(backend.asked_thrice.wait(), 30)
    backend.names = ("one",)
    await discovery.refresh()
    await discovery.refresh()
    await discovery.stop()

    assert await found_by(discovery, "one") == ("a", "one")
