"""Commands for profiles: public model names that stand for a model with options and limits."""

import difflib
import time
from collections.abc import Iterable, Sequence
from typing import Any, Final

import click
from attrs import asdict, evolve, frozen

from gateway.cli.output import iso, json_option, show_json, show_table
from gateway.cli.probes import probes_of
from gateway.cli.stores import Stores, with_stores
from gateway.cli.words import Cap, Duration, ModelName, Option
from gateway.formats.profiles import PhaseTimeouts, Profile, options_of, sampling_of
from gateway.rules.model_names import canonical, leaves_the_machine

_STOP: Final = "stop"


@click.command()
@click.option("--name", required=True, type=ModelName(), help="What callers call it.")
@click.option("--model", required=True, type=ModelName(), help="The backend's model that it stands for.")
@click.option(
    "--option",
    "fixed",
    type=Option(),
    multiple=True,
    metavar="NAME=VALUE",
    help="Holds whatever the caller asks: num_ctx, num_predict, temperature, top_p, seed, stop, …",
)
@click.option(
    "--default",
    "presets",
    type=Option(),
    multiple=True,
    metavar="NAME=VALUE",
    help="Holds where the caller says nothing.",
)
@click.option(
    "--max-num-ctx", type=Cap(), metavar="N", help="At most so much context, where the caller asks."
)
@click.option("--max-output-tokens", type=Cap(), metavar="N", help="At most so much output in a request.")
@click.option("--keep-alive", type=Duration(), help="How long it stays loaded where the caller does not say.")
@click.option("--first-byte-timeout", type=Duration(), help="Instead of GATEWAY_FIRST_BYTE_TIMEOUT_S.")
@click.option("--chunk-gap-timeout", type=Duration(), help="Instead of GATEWAY_CHUNK_GAP_TIMEOUT_S.")
@click.option("--answer-timeout", type=Duration(), help="Instead of GATEWAY_ANSWER_TIMEOUT_S.")
@json_option
def set_model(
    *,
    name: str,
    model: str,
    fixed: Sequence[tuple[str, Any]],
    presets: Sequence[tuple[str, Any]],
    max_num_ctx: int | None,
    max_output_tokens: int | None,
    keep_alive: float | None,
    first_byte_timeout: float | None,
    chunk_gap_timeout: float | None,
    answer_timeout: float | None,
    as_json: bool,
) -> None:
    """Make a profile: a public model name that stands for a model with options and limits.

    Or replace the one of this name, whole. Callers use it like any model, on every surface, and are answered
    under its name; running gateways know it within one second. It may have the name of its own model, which
    then has these options for everybody, but not that of another one. Allow-lists go by the public name.

    \b
    Examples:
      neuronetz-gateway set-model --name qwen3-32k --model qwen3:8b --option num_ctx=32768
      neuronetz-gateway set-model --name careful --model llama3 --option temperature=0 --keep-alive 24h
    """
    profile = Profile(
        name,
        canonical(model) or model,
        time.time(),
        _sampling(fixed, "--option"),
        _sampling(presets, "--default"),
        max_num_ctx,
        max_output_tokens,
        keep_alive,
        PhaseTimeouts(first_byte_timeout, chunk_gap_timeout, answer_timeout),
    )
    if leaves_the_machine(profile.known_as):
        raise click.UsageError("To Ollama a name that ends in cloud leaves the box; choose another.")
    done = with_stores(lambda stores: _set(stores, profile))
    for warning in done.warnings:
        click.echo(f"Warning: {warning}", err=True)
    if as_json:
        show_json({**_as_json(done.profile), "replaced": done.is_replaced})
    else:
        verb = "Replaced" if done.is_replaced else "Made"
        click.echo(f"{verb} '{name}'. Running gateways know it within one second.\n")
        _show([done.profile])


@click.command()
@json_option
def list_models(as_json: bool) -> None:
    """List the profiles: public model names with what they stand for.

    The models of the backends are in list-backends.

    \b
    Example:
      neuronetz-gateway list-models --json
    """
    profiles = with_stores(lambda stores: stores.profiles.all())
    if as_json:
        show_json([_as_json(profile) for profile in profiles.values()])
    elif not profiles:
        click.echo("There are no profiles; `neuronetz-gateway set-model --name N --model M` makes one.")
    else:
        _show(profiles.values())


@click.command()
@click.option("--name", required=True, type=ModelName(), help="What callers call it.")
@json_option
def remove_model(name: str, as_json: bool) -> None:
    """Remove a profile; the model that it stands for stays.

    Running gateways forget it within one second; requests that run finish.

    \b
    Example:
      neuronetz-gateway remove-model --name qwen3-32k
    """
    removed = with_stores(lambda stores: stores.profiles.remove(canonical(name) or name))
    if as_json:
        show_json(_as_json(removed))
    else:
        click.echo(f"Removed '{removed.name}'. Running gateways forget it within one second.")


@frozen
class _Done:
    profile: Profile
    is_replaced: bool
    warnings: tuple[str, ...] = ()


async def _set(stores: Stores, profile: Profile) -> _Done:
    """Raises ClickException for a name that would hide something, or go in circles."""
    profiles = await stores.profiles.all()
    other = profiles.get(profile.model)
    if other is not None and profile.model not in (profile.known_as, canonical(other.model)):
        raise click.ClickException(
            f"'{other.name}' is a profile itself, and a profile stands for a backend's model: "
            f"give its model, '{other.model}'."
        )
    warnings = await _checked(stores, profile)
    before = profiles.get(profile.known_as)
    if before is not None:
        profile = evolve(profile, created_at=before.created_at)
    await stores.profiles.set(profile)
    return _Done(profile, before is not None, warnings)


async def _checked(stores: Stores, profile: Profile) -> tuple[str, ...]:
    """What the backends' models say to it."""
    found = await probes_of(stores.config)
    models = {canonical(name) for probe in found for name in probe.models}
    if profile.known_as in models and profile.known_as != profile.model:
        raise click.ClickException(
            f"A backend has a model '{profile.name}', which the profile would hide; choose another name."
        )
    if profile.model in models:
        return ()
    silent = [probe.backend.name for probe in found if probe.error is not None]
    near = difflib.get_close_matches(profile.model, [name for name in models if name], n=1)
    hint = f"; did you mean '{near[0]}'?" if near else "."
    unless = f" ({', '.join(silent)} did not answer)" if silent else ""
    return (f"no backend has '{profile.model}' now{unless}{hint}",)


def _sampling(options: Iterable[tuple[str, Any]], where: str) -> Any:
    values: dict[str, Any] = {}
    for name, value in options:
        if name == _STOP:  # several texts, each given by itself
            values.setdefault(name, []).append(str(value))
        elif name in values:
            raise click.UsageError(f"{where} {name} is given twice.")
        else:
            values[name] = value
    try:
        return sampling_of(values)
    except ValueError as error:
        raise click.UsageError(f"{where}: {error}") from error


def _as_json(profile: Profile) -> dict[str, Any]:
    return {
        "name": profile.name,
        "model": profile.model,
        "created_at": iso(profile.created_at),
        "options": options_of(profile.fixed),
        "defaults": options_of(profile.presets),
        "max_num_ctx": profile.max_num_ctx,
        "max_output_tokens": profile.max_output_tokens,
        "keep_alive_s": profile.keep_alive_s,
        "timeouts": asdict(profile.timeouts),
    }


def _show(profiles: Iterable[Profile]) -> None:
    show_table(("Name", "Model", "Options", "Defaults", "Limits"), [_row(profile) for profile in profiles])


def _row(profile: Profile) -> tuple[str, ...]:
    limits = {
        "max-num-ctx": profile.max_num_ctx,
        "max-output-tokens": profile.max_output_tokens,
        "keep-alive": _seconds(profile.keep_alive_s),
        "first-byte-timeout": _seconds(profile.timeouts.first_byte_s),
        "chunk-gap-timeout": _seconds(profile.timeouts.chunk_gap_s),
        "answer-timeout": _seconds(profile.timeouts.answer_s),
    }
    options, presets = options_of(profile.fixed), options_of(profile.presets)
    return profile.name, profile.model, _pairs(options), _pairs(presets), _pairs(limits)


def _pairs(values: dict[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in values.items() if value is not None)


def _seconds(seconds: float | None) -> str | None:
    return None if seconds is None else f"{seconds:g}s"
