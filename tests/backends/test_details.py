"""What the list leaves open of the models: when it is asked for, and what happens to nobody meanwhile."""

import asyncio

from attrs import define, evolve, field

from gateway.backends.details import Details
from gateway.backends.http import HttpBackend
from gateway.config import BackendConfig
from gateway.demo.engine import Engine as Running
from gateway.errors import BackendFailed, BackendTimeout
from gateway.model import Engine, LoadedModel, ModelCard
from tests.backends.test_http import PATIENT
from tests.doubles import Double, answer

INFO = {"general.architecture": "llama"}


@define
class Describing:
    """Describes models, all but those in `broken` and `silent`; `gate` holds its answers up."""

    name: str = "b"
    kind: str = "ollama"
    asked: list[str] = field(factory=list)
    broken: set[str] = field(factory=set)
    silent: set[str] = field(factory=set)
    gate: asyncio.Event | None = None
    abilities: frozenset[str] | None = None
    abreast: int = 0
    most_abreast: int = 0

    async def completed(self, card: ModelCard) -> ModelCard:
        self.asked.append(card.name)
        self.abreast += 1
        self.most_abreast = max(self.most_abreast, self.abreast)
        await (self.gate.wait() if self.gate else asyncio.sleep(0))
        self.abreast -= 1
        if card.name in self.broken:
            raise BackendFailed("broken")
        if card.name in self.silent:
            raise BackendTimeout("silent")
        context = 1000 + len(self.asked)
        return evolve(card, context=context, capabilities=self.abilities, info=INFO, parameters="stop x")

    async def models(self) -> tuple[ModelCard, ...]:
        raise NotImplementedError

    async def loaded(self) -> tuple[LoadedModel, ...]:
        raise NotImplementedError

    def send(self, request, *, request_id, timeouts=None):
        raise NotImplementedError

    def hold(self):
        raise NotImplementedError

    def let_go(self):
        raise NotImplementedError

    async def ask(self, request, *, request_id, timeout_s):
        raise NotImplementedError


def cards(*names: str, digest: str = "d") -> list[ModelCard]:
    return [ModelCard(name, digest=digest and digest + name) for name in names]


@define
class House:
    backend: Describing = field(factory=Describing)
    learned: asyncio.Event = field(factory=asyncio.Event)
    details: Details = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.details = Details(self.backend, self.learned.set)

    async def learn(self, *listed: ModelCard) -> None:
        """One list, and all that comes of it."""
        self.learned.clear()
        self.details.learn(listed)
        async with asyncio.timeout(5):
            await self.learned.wait()

    def known(self, *listed: ModelCard) -> list[str]:
        return [card.name for card in listed if self.details.of(card).context is not None]


async def test_a_model_is_asked_about_once():
    """A list comes every few seconds; a model's file is read when there is something new in it."""
    house, (card,) = House(), cards("a")

    await house.learn(card)
    house.details.learn([card])
    changed = evolve(card, digest="another")
    assert house.details.of(changed) == changed, "what was known was of another file"
    await house.learn(changed)

    assert house.backend.asked == ["a", "a"]
    assert house.details.of(changed) == evolve(changed, context=1002, info=INFO, parameters="stop x")


async def test_a_model_without_a_digest_is_asked_about_with_every_list():
    """A llama.cpp that was started anew with another context looks the same."""
    house, (card,) = House(), cards("a", digest="")

    await house.learn(card)
    await house.learn(card)

    assert house.backend.asked == ["a", "a"]
    assert house.details.of(card).context == 1002


async def test_what_the_list_says_is_newer():
    house, (card,) = House(), cards("a", digest="")
    await house.learn(card)

    assert house.details.of(evolve(card, context=7)).context == 7


async def test_what_a_model_can_do_is_told_by_either():
    """Elder servers tell it only where they describe the model."""
    house, (card,) = House(Describing(abilities=frozenset({"thinking"}))), cards("a")
    await house.learn(card)

    assert house.details.of(card).capabilities == frozenset({"thinking"})
    assert house.details.of(evolve(card, capabilities=frozenset())).capabilities == frozenset()


async def test_what_describes_a_model_is_kept_for_callers():
    house, (card,) = House(), cards("a")
    await house.learn(card)

    assert (house.details.of(card).info, house.details.of(card).parameters) == (INFO, "stop x")


async def test_a_few_are_asked_about_at_a_time():
    house = House()

    await house.learn(*cards(*map(str, range(50))))

    assert house.backend.most_abreast == 4
    assert len(house.backend.asked) == 50


async def test_a_broken_model_hides_no_other():
    """And is asked about again, behind those that nothing is known of."""
    house, listed = House(), cards(*"abcdef")
    house.backend.broken = {"a"}

    await house.learn(*listed)
    assert house.known(*listed) == list("bcdef")
    house.backend.broken, house.backend.asked = set(), []
    listed += cards("g")
    await house.learn(*listed)

    assert house.known(*listed) == list("abcdefg")
    assert house.backend.asked == ["g", "a"]


async def test_a_silent_model_hides_no_other_for_long():
    """A round ends there: a backend that hangs is not asked a thousand times. The next begins elsewhere."""
    house, listed = House(), cards(*map(str, range(20)))
    house.backend.silent = {"0"}

    await house.learn(*listed)
    assert len(house.backend.asked) < 20
    await house.learn(*listed)

    assert house.known(*listed) == [card.name for card in listed[1:]]


async def test_a_round_that_hangs_is_the_only_one():
    """Lists come and go meanwhile, and stopping waits for nobody."""
    house, listed = House(), cards("a")
    house.backend.gate = asyncio.Event()

    for _ in range(3):
        house.details.learn(listed)
        await asyncio.sleep(0)
    await house.details.stop()

    assert house.backend.asked == ["a"]
    assert house.known(*listed) == []


async def test_a_model_that_is_gone_is_forgotten():
    house, (card,) = House(), cards("a")
    await house.learn(card)

    await house.learn(*cards("b"))

    assert house.known(card) == []


# ── over HTTP ────────────────────────────────────────────────────────────────────────────


async def completed_by(url: str, kind: str, card: ModelCard) -> ModelCard:
    backend = HttpBackend(BackendConfig("b", url, kind=kind), PATIENT)
    await backend.open()
    try:
        return await backend.completed(card)
    finally:
        await backend.close()


async def test_ollama_is_asked_to_show_a_model():
    with Double() as double:
        info = {"general.architecture": "llama", "llama.context_length": 131_072}
        double.scripts["/api/show"] = answer(200, {"model_info": info})

        card = await completed_by(double.url, "ollama", ModelCard("double:latest"))

    (asked,) = double.received
    assert (asked.method, asked.target, asked.json()) == ("POST", "/api/show", {"model": "double:latest"})
    assert card == ModelCard("double:latest", context=131_072, info=info)


async def test_an_elder_llama_cpp_is_asked_for_its_settings(engine_greeting: Running):
    """The real engine, whose list is taken for one that does not say it."""
    card = ModelCard("greeting", engine=Engine.LLAMA_CPP)

    assert await completed_by(engine_greeting.url, "openai", card) == evolve(card, context=8192)


async def test_who_says_it_all_in_the_list_is_asked_nothing():
    with Double() as double:
        for card in (
            ModelCard("a", engine=Engine.LLAMA_CPP, context=4096),
            ModelCard("b", engine=Engine.VLLM, context=4096),
            ModelCard("c", engine=Engine.VLLM),
            ModelCard("d"),
        ):
            assert await completed_by(double.url, "openai", card) == card

    assert double.received == []
