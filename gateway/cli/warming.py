"""The command that loads a model before anybody asks for it."""

import asyncio
import difflib
import time
from collections.abc import Sequence
from typing import Any

import click
from attrs import evolve, frozen

from gateway import config
from gateway.backends.answers import BackendTimeouts
from gateway.backends.http import HttpBackend
from gateway.cli.backend_line import BackendLine
from gateway.cli.output import json_option, show_json, show_table, working
from gateway.cli.stores import Stores, with_stores
from gateway.cli.words import Duration, ModelName
from gateway.config import BackendConfig, Config
from gateway.errors import GatewayError
from gateway.formats.profiles import Profile, public
from gateway.formats.warming import check_loaded, load_request
from gateway.model import ModelCard
from gateway.resources import RequestIds
from gateway.rules.model_names import canonical


@frozen
class Warmed:
    """What became of a model at one backend; `names` are those that it has, where it has not this one."""

    backend: BackendConfig
    has_it: bool = False
    was_loaded: bool = False
    took_s: float | None = None
    error: str | None = None
    names: tuple[str, ...] = ()


@click.command()
@click.argument("name", type=ModelName())
@click.option("--backend", metavar="NAME-or-URL", help="Only there; else on every backend that has it.")
@click.option(
    "--keep-alive", type=Duration(), help="How long it stays; else as its profile or the settings say."
)
@json_option
def warm_model(name: str, backend: str | None, keep_alive: float | None, as_json: bool) -> None:
    """Load a model now, so that the next request does not wait for it.

    Of a profile its model is loaded, with the context that requests get. Ollama loads without answering;
    other servers are asked for one token, unless they have it in memory. Waits at most
    GATEWAY_FIRST_BYTE_TIMEOUT_S.

    \b
    Examples:
      neuronetz-gateway warm-model qwen3:8b
      neuronetz-gateway warm-model qwen3-32k --backend gpu-1 --keep-alive 24h
    """
    settings = config.load()
    backends = settings.backends
    if backend is not None:
        backends = (BackendLine.of(config.values()).named(backend),)
    profile = with_stores(lambda stores: _profile(stores, name))
    with working(f"Loading {name} …"):
        found = asyncio.run(_warmed(settings, backends, profile or Profile(name, name, 0.0), keep_alive))
    done = [one for one in found if one.has_it]
    _refuse_unknown(name, found)
    if as_json:
        show_json([_as_json(one) for one in done])
    else:
        show_table(("Backend", "State", "Took"), [_row(one) for one in done])
    failed = [one for one in done if one.error is not None]
    for one in failed:
        click.echo(f"Error: {one.backend.name}: {one.error}", err=True)
    if failed:
        raise SystemExit(1)


async def _profile(stores: Stores, name: str) -> Profile | None:
    return (await stores.profiles.all()).get(canonical(name) or name)


async def _warmed(
    settings: Config, backends: Sequence[BackendConfig], profile: Profile, keep_alive: float | None
) -> list[Warmed]:
    if keep_alive is None:
        keep_alive = settings.default_keep_alive_s if profile.keep_alive_s is None else profile.keep_alive_s
    return await asyncio.gather(*(_warm(settings, one, profile, keep_alive) for one in backends))


async def _warm(settings: Config, one: BackendConfig, profile: Profile, keep_alive: float | None) -> Warmed:
    patience_s = settings.first_byte_timeout_s
    backend = HttpBackend(
        one, BackendTimeouts(settings.connect_timeout_s, patience_s, patience_s, patience_s)
    )
    await backend.open()
    try:
        return await _load(backend, one, profile, keep_alive, patience_s)
    except GatewayError as error:
        # It can't be known whether it has the model: that is a failure, too.
        return Warmed(one, has_it=True, error=error.sentence)
    finally:
        await backend.close()


async def _load(
    backend: HttpBackend, one: BackendConfig, profile: Profile, keep_alive: float | None, patience_s: float
) -> Warmed:
    model = canonical(profile.model)
    cards = await backend.models()
    card = next((card for card in cards if canonical(card.name) == model), None)
    if card is None:
        return Warmed(one, names=tuple(public(canonical(card.name) or card.name) for card in cards))
    is_loaded = any(canonical(loaded.name) == model for loaded in await backend.loaded())
    found = Warmed(one, has_it=True, was_loaded=is_loaded)
    if is_loaded and backend.kind != "ollama":
        return found
    started = time.monotonic()
    await _ask(backend, await _known(backend, card), profile, keep_alive, patience_s)
    return evolve(found, took_s=time.monotonic() - started)


async def _known(backend: HttpBackend, card: ModelCard) -> ModelCard:
    """With what it can do: a model that only makes vectors is loaded otherwise."""
    is_open = backend.kind == "ollama" and card.capabilities is None and not card.leaves
    return await backend.completed(card) if is_open else card


async def _ask(
    backend: HttpBackend, card: ModelCard, profile: Profile, keep_alive: float | None, patience_s: float
) -> None:
    sampling = profile.fixed if profile.fixed.num_ctx is not None else profile.presets
    request = load_request(backend.kind, card, sampling, keep_alive)
    check_loaded(*await backend.ask(request, request_id=RequestIds()(), timeout_s=patience_s))


def _refuse_unknown(name: str, found: Sequence[Warmed]) -> None:
    """Raise ClickException where all backends answered, and none has the model."""
    if any(one.has_it for one in found):
        return
    names = sorted({known for one in found for known in one.names})
    near = difflib.get_close_matches(public(canonical(name) or name), names, n=1)
    hint = f"did you mean '{near[0]}'?" if near else "`neuronetz-gateway list-backends` shows what there is."
    raise click.ClickException(f"No backend that was asked has a model '{name}'; {hint}")


def _row(one: Warmed) -> tuple[str, ...]:
    state = "failed" if one.error is not None else "stays loaded" if one.was_loaded else "loaded"
    return one.backend.name, state, "" if one.took_s is None else f"{one.took_s:.1f} s"


def _as_json(one: Warmed) -> dict[str, Any]:
    return {
        "backend": one.backend.name,
        "kind": one.backend.kind,
        "loaded": one.error is None,
        "was_loaded": one.was_loaded,
        "took_s": None if one.took_s is None else round(one.took_s, 3),
        "error": one.error,
    }
