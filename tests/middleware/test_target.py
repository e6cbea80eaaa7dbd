"""Target: a caller's call becomes one for the model that is there."""

from typing import Any

import pytest
from attrs import define, evolve

from gateway.errors import ModelNotFound
from gateway.formats.chat import Sampling
from gateway.formats.profiles import PhaseTimeouts, Profile
from gateway.middleware.context import open_exchange
from gateway.middleware.offering import Offering
from gateway.middleware.target import Target
from gateway.model import Exchange, ModelCard, ModelPolicy, Principal
from gateway.rules.options import OptionBounds
from tests.asgi import PRINCIPAL, exchange, scope_of

ASKED = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}


BOUNDS = OptionBounds(max_keep_alive_s=600, max_num_ctx=4096)


@define
class OneModel:
    """A Catalogue with one model, `m`, of which this much is known."""

    capabilities: frozenset[str] | None = None

    async def find(self, model: str) -> Any:
        return (None, ModelCard("m:latest", capabilities=self.capabilities)) if model == "m" else None

    def cards(self) -> tuple[ModelCard, ...]:
        return ()

    is_ready = True


async def below(scope: Any, receive: Any, send: Any) -> None: ...


async def targeted(
    catalogue: OneModel,
    body: dict[str, Any],
    *,
    path: str = "/v1/messages",
    caller: Principal = PRINCIPAL,
    bounds: OptionBounds = BOUNDS,
    profile: Profile | None = None,
) -> Exchange:
    given = exchange(path=path, body=body, principal=caller)
    scope = scope_of("POST", path)
    open_exchange(scope, given)
    profiles = {} if profile is None else {profile.known_as: profile}
    offering = Offering(catalogue, None, lambda: profiles)  # type: ignore[arg-type]
    await Target(below, offering=offering, bounds=bounds)(scope, None, None)  # type: ignore[arg-type]
    return given


async def test_a_model_that_is_not_there_is_refused():
    """Before anything is taken for it."""
    with pytest.raises(ModelNotFound):
        await targeted(OneModel(), ASKED | {"model": "other"})


async def test_a_model_that_is_forbidden_is_refused_alike():
    """The same sentence, with the name as the caller wrote it."""
    caller = evolve(PRINCIPAL, key_models=ModelPolicy(("other*",)))

    with pytest.raises(ModelNotFound) as forbidden:
        await targeted(OneModel(), ASKED, caller=caller)
    with pytest.raises(ModelNotFound) as unknown:
        await targeted(OneModel(), ASKED | {"model": "n"})

    assert str(forbidden.value) == str(unknown.value).replace("'n'", "'m'")


@pytest.mark.parametrize(
    ("tenant", "key", "granted"),
    [
        pytest.param(None, 1024, 1024, id="the key's"),
        pytest.param(512, 1024, 512, id="the tenant's"),
        pytest.param(None, 8192, 4096, id="never above the operator's"),
    ],
)
async def test_a_callers_caps_lower_the_operators(tenant: int | None, key: int | None, granted: int):
    """Of the context at once; of the output where it is planned."""
    caller = evolve(
        PRINCIPAL,
        tenant_models=ModelPolicy(max_num_ctx=tenant, max_output_tokens=tenant),
        key_models=ModelPolicy(max_num_ctx=key, max_output_tokens=key),
    )

    given = await targeted(OneModel(), ASKED | {"num_ctx": 9000}, caller=caller)

    assert given.call.sampling.num_ctx == granted
    assert given.output_cap == min(cap for cap in (tenant, key) if cap is not None)


async def test_what_is_not_granted_as_asked_is_named():
    given = await targeted(OneModel(), ASKED | {"num_ctx": 8192, "keep_alive": -1})

    assert (given.call.sampling.num_ctx, given.call.keep_alive) == (4096, None)
    assert given.call.dropped == ("keep_alive", "num_ctx")


@pytest.mark.parametrize(
    ("capabilities", "think", "dropped"),
    [
        pytest.param({"completion"}, None, ("thinking",), id="none"),
        pytest.param({"completion", "thinking"}, True, (), id="it has"),
        pytest.param(None, True, (), id="nobody knows"),
    ],
)
async def test_a_model_that_cannot_think_is_not_asked_to(
    capabilities: set[str] | None, think: bool | None, dropped: tuple[str, ...]
):
    """Anthropic's clients ask every model, and Ollama refuses for those without. It is told in a header."""
    known = None if capabilities is None else frozenset(capabilities)

    given = await targeted(OneModel(known), ASKED | {"thinking": {"type": "enabled"}})

    assert (given.call.think, given.call.dropped) == (think, dropped)


async def test_who_insists_on_thinking_is_not_silently_let_down():
    """Ollama's own word for it: then Ollama says that the model has none."""
    given = await targeted(OneModel(frozenset()), ASKED | {"think": True})

    assert given.call.think is True


@pytest.mark.parametrize(
    ("asked", "granted", "dropped"),
    [
        pytest.param({}, 60, (), id="it says nothing"),
        pytest.param({"keep_alive": 90}, 90, (), id="it says"),
        pytest.param({"keep_alive": -1}, 60, ("keep_alive",), id="what is not granted"),
    ],
)
async def test_a_model_stays_as_long_as_the_operator_says_where_the_caller_does_not(
    asked: dict[str, Any], granted: float, dropped: tuple[str, ...]
):
    bounds = OptionBounds(max_keep_alive_s=600, max_num_ctx=4096, default_keep_alive_s=60)

    given = await targeted(OneModel(), ASKED | asked, bounds=bounds)

    assert (given.call.keep_alive, given.call.dropped) == (granted, dropped)


async def test_a_profile_bounds_what_is_asked_and_is_bound_by_nobody_but_its_callers_caps():
    """What it fixes is the operator's word; what the caller asks is within the profile's bound."""
    profile = Profile(
        "wide", "m", 0.0, fixed=Sampling(temperature=0.0), max_num_ctx=2048, keep_alive_s=7200.0
    )
    fixed = evolve(profile, fixed=Sampling(num_ctx=9000), timeouts=PhaseTimeouts(first_byte_s=900.0))

    bound = await targeted(OneModel(), ASKED | {"model": "wide", "num_ctx": 4000}, profile=profile)
    free = await targeted(OneModel(), ASKED | {"model": "wide"}, profile=fixed)
    capped = evolve(PRINCIPAL, key_models=ModelPolicy(max_num_ctx=1024))
    least = await targeted(OneModel(), ASKED | {"model": "wide"}, profile=fixed, caller=capped)

    assert (bound.call.sampling.num_ctx, bound.call.keep_alive) == (2048, 7200.0)
    assert (bound.call.dropped, bound.model) == (("num_ctx",), "wide:latest")
    assert (free.call.sampling.num_ctx, free.timeouts.first_byte_s) == (9000, 900.0)
    assert least.call.sampling.num_ctx == 1024
