"""Commands for backends."""

import asyncio
import contextlib
import os
import re
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import click
from attrs import evolve

from gateway import config
from gateway.cli.backend_line import NAME, BackendLine, entry_of, with_entry, without
from gateway.cli.env_file import NotWritten, changed, with_setting
from gateway.cli.output import json_option, show_json, show_table
from gateway.cli.probes import Probe, probes_of
from gateway.cli.stores import with_stores
from gateway.config import BackendConfig, Config
from gateway.errors import GatewayError
from gateway.storage.refusals import Refused

_ENV_FILE: Final = Path(".env")
_Line = Callable[[Mapping[str, str]], BackendLine]

_write_env: Final = click.option(
    "--write-env", is_flag=True, help="Write the line into .env, in one step; all else in it stays."
)


class _BackendName(click.ParamType[str]):
    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", value):
            self.fail("a backend's name has 1 to 64 of the characters A-Z, a-z, 0-9 and _.-", param, ctx)
        return str(value)


@click.command()
@click.argument("url")
@click.option("--name", type=_BackendName(), help="What it is called here; else its host and port.")
@click.option(
    "--kind", type=click.Choice(("ollama", "openai")), help="Which protocol it speaks; else ollama."
)
@click.option("--slots", type=click.IntRange(1), help="So many requests at the same time, others queue.")
@click.option("--weight", type=click.IntRange(1), help="Its share of the work beside others; else 1.")
@click.option("--key-env", metavar="VAR", help="The setting that has its API key; never the key itself.")
@_write_env
@json_option
def add_backend(
    *,
    url: str,
    name: str | None,
    kind: str | None,
    slots: int | None,
    weight: int | None,
    key_env: str | None,
    write_env: bool,
    as_json: bool,
) -> None:
    """Print OLLAMA_BACKENDS with one more backend, or write it into .env.

    Running gateways read it again when they are sent SIGHUP; running streams go on.

    \b
    Examples:
      neuronetz-gateway add-backend http://gpu-2:11434 --name gpu-2 --slots 4 --write-env
      neuronetz-gateway add-backend https://vllm.internal --kind openai --key-env VLLM_KEY
    """
    if set(url) & set(",; "):
        raise click.UsageError(
            "A URL such as http://gpu-2:11434; what else there is to say has options here."
        )
    options = {"kind": kind, "slots": slots, "weight": weight, "key-env": key_env}
    entry = entry_of(url, options, name)
    line = _told(lambda values: with_entry(values, entry), write_env=write_env, as_json=as_json)
    if not as_json:
        _show(f"Added '{line.backends[-1].name}'.", line, write_env=write_env)
        if line.has_default:
            name = line.backends[0].name
            click.echo(
                f"Note: '{name}' is in it since that is what {NAME} says when it is not set. "
                f"To take it out: neuronetz-gateway remove-backend {name} --write-env",
                err=True,
            )


@click.command()
@click.argument("name_or_url", metavar="NAME-or-URL")
@_write_env
@json_option
def remove_backend(name_or_url: str, write_env: bool, as_json: bool) -> None:
    """Print OLLAMA_BACKENDS with one backend less, or write it into .env.

    Running gateways read it again when they are sent SIGHUP; requests that it is serving finish.

    \b
    Examples:
      neuronetz-gateway remove-backend gpu-2 --write-env
      neuronetz-gateway remove-backend http://gpu-2:11434
    """
    line = _told(lambda values: without(values, name_or_url)[0], write_env=write_env, as_json=as_json)
    if not as_json:
        _show(f"Removed '{name_or_url}'.", line, write_env=write_env)


@click.command()
@json_option
def list_backends(as_json: bool) -> None:
    """Ask the backends of OLLAMA_BACKENDS how they are.

    Each is asked now, by this command: whether it answers and how fast, its models, and what it has in memory
    with which context. Exit code 0 also when some do not answer.

    \b
    Examples:
      neuronetz-gateway list-backends
      neuronetz-gateway list-backends --json
    """
    found = asyncio.run(probes_of(_with_drained(config.load())))
    if as_json:
        show_json([_as_json(probe) for probe in found])
        return
    columns = ("Name", "URL", "Kind", "State", "Latency", "Models", "Loaded", "Slots", "Weight")
    show_table(columns, [_row(probe) for probe in found])
    for probe in found:
        if probe.error is not None:
            click.echo(f"\n{probe.backend.name}: {probe.error}")


def _with_drained(settings: Config) -> Config:
    """With what drain-backend has said, as far as there is a database that knows."""
    with contextlib.suppress(Refused, GatewayError):
        drained = with_stores(lambda stores: stores.drains.all())
        backends = (
            evolve(one, is_draining=one.is_draining or one.name in drained) for one in settings.backends
        )
        return evolve(settings, backends=tuple(backends))
    return settings


# ── the line ─────────────────────────────────────────────────────────────────────────────


def _told(line_of: _Line, *, write_env: bool, as_json: bool) -> BackendLine:
    """The new line: made, written where that is asked for, and told to programs. Raises ClickException."""
    line = _written(line_of) if write_env else line_of(config.values(_ENV_FILE))
    if as_json:
        told = [_config_as_json(backend) for backend in line.backends]
        show_json({"line": f"{NAME}={line}", "written": write_env, "backends": told})
    return line


def _written(line_of: _Line) -> BackendLine:
    """Made of what the file has when nobody else changes it."""
    lines: list[BackendLine] = []

    def edit(text: str) -> str:
        lines.append(line_of(config.values(_ENV_FILE)))
        return with_setting(text, NAME, str(lines[-1]))

    try:
        changed(_ENV_FILE, edit)
    except NotWritten as error:
        line = lines[-1] if lines else line_of(config.values(_ENV_FILE))
        raise click.ClickException(_ways_on(str(error), line)) from error
    return lines[-1]


def _ways_on(reason: str, line: BackendLine) -> str:
    """What to do where the file could not be written."""
    command = shlex.join(["neuronetz-gateway", *sys.argv[1:]])
    return (
        f"the file was not changed: {reason}. Two ways on:\n"
        f"  as root, where the file can be written: docker compose exec -u root gateway {command}\n"
        f"  or put this line into .env yourself:    {NAME}={line}"
    )


def _show(done: str, line: BackendLine, *, write_env: bool) -> None:
    if not write_env:
        click.echo(f"{NAME}={line}")
        return
    click.echo(f"{done} {_ENV_FILE.resolve()} says now:\n\n  {NAME}={line}\n")
    click.echo("Running gateways read it again when they are sent SIGHUP: kill -HUP PID.")
    if NAME in os.environ:
        click.echo(
            f"Warning: the environment sets {NAME} too, and goes over .env: change it there.", err=True
        )


# ── how they are ─────────────────────────────────────────────────────────────────────────


def _row(probe: Probe) -> tuple[str, ...]:
    one = probe.backend
    loaded = ", ".join(f"{name} ({context:,})" if context else name for name, context in probe.loaded.items())
    state = f"{probe.state}, draining" if one.is_draining else probe.state
    latency = "" if probe.latency_s is None else f"{probe.latency_s * 1000:.0f} ms"
    models = "" if probe.error is not None else str(len(probe.models))
    slots = "no queue" if one.slots is None else str(one.slots)
    return one.name, one.url, one.kind, state, latency, models, loaded, slots, str(one.weight)


def _as_json(probe: Probe) -> dict[str, Any]:
    latency_ms = None if probe.latency_s is None else round(probe.latency_s * 1000, 1)
    return {
        **_config_as_json(probe.backend),
        "state": probe.state,
        "error": probe.error,
        "latency_ms": latency_ms,
        "models": [
            {"name": name, "context": context, "loaded": name in probe.loaded}
            for name, context in probe.models.items()
        ],
        "loaded": [{"name": name, "context": context} for name, context in probe.loaded.items()],
    }


def _config_as_json(backend: BackendConfig) -> dict[str, Any]:
    return {
        "name": backend.name,
        "url": backend.url,
        "kind": backend.kind,
        "slots": backend.slots,
        "weight": backend.weight,
        "draining": backend.is_draining,
        "has_key": backend.credential is not None,
    }
