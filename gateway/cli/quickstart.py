"""The command behind `make run`: from nothing to a streamed answer."""

import asyncio
import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import click
from attrs import evolve, frozen

from gateway import config
from gateway.backends.answers import BackendTimeouts
from gateway.backends.http import HttpBackend
from gateway.cli.keys import make_key
from gateway.cli.migrate import bring_up_to_date
from gateway.cli.serve import serve_with
from gateway.cli.stores import Stores, with_stores
from gateway.cli.tenants import make_tenant
from gateway.config import Address, BackendConfig, Config
from gateway.demo import engine
from gateway.demo.engine import Engine, EngineFailed
from gateway.demo.scripts import GREETING
from gateway.errors import GatewayError

_TENANT: Final = "first"
_KEY: Final = "first"
# Long enough for a machine nearby, short enough not to be felt when nothing is there.
_PROBE: Final = BackendTimeouts(connect_s=1.0, first_byte_s=2.0, chunk_gap_s=2.0, answer_s=2.0)


@frozen
class Source:
    """Where the answers come from: a sentence for people, the backends, and a model to try."""

    told: str
    backends: tuple[BackendConfig, ...]
    model: str | None


@click.command()
@click.option(
    "--gguf",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Serve this model with the built-in llama.cpp engine.",
)
def quickstart(gguf: Path | None) -> None:
    """Serve at once: make what is missing, print a first key, and show how to use it.

    Uses the backends of OLLAMA_BACKENDS if one answers. If none does, a real llama.cpp engine is started
    with a tiny model that recites a greeting.

    \b
    Examples:
      neuronetz-gateway quickstart
      neuronetz-gateway quickstart --gguf path/to/model.gguf
    """
    settings = config.load()
    bring_up_to_date(settings.database_url)
    with _source(settings, gguf) as source:
        key = with_stores(_first_key)
        ops_bind = _free(settings.ops_bind)
        try:
            serve_with(
                evolve(settings, backends=source.backends, ops_bind=ops_bind),
                lambda addresses: click.echo(_welcome(source, key, addresses[0], ops_bind)),
            )
        except click.ClickException:
            # It never came to the welcome, and the next one has no first key to show.
            if key is not None:
                click.echo(_first(key))
            raise


def _free(wanted: Address | None) -> Address | None:
    """The address, or a free port of its host where somebody is there already, such as a Prometheus."""
    if wanted is None or wanted.port == 0:
        return wanted
    with suppress(OSError), socket.socket(_family(wanted)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((wanted.host, wanted.port))
        return wanted
    with suppress(OSError), socket.socket(_family(wanted)) as probe:
        probe.bind((wanted.host, 0))
        return Address(wanted.host, probe.getsockname()[1])
    return wanted  # serving on it tells what is wrong with it


def _family(address: Address) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address.host else socket.AF_INET


@contextmanager
def _source(settings: Config, gguf: Path | None) -> Iterator[Source]:
    found = None if gguf else _answering(settings.backends)
    if found is not None:
        yield found
        return
    started = _engine(settings, gguf)
    try:
        started.start()
    except EngineFailed as error:
        raise click.ClickException(str(error)) from error
    try:
        backend = BackendConfig("built-in", started.url, kind="openai")
        yield Source(_told(started, settings, gguf), (backend,), started.serving.alias)
    finally:
        started.stop()


def _engine(settings: Config, gguf: Path | None) -> Engine:
    log = settings.data_dir / "engine.log"
    try:
        return (
            engine.of_file(gguf, log)
            if gguf
            else engine.scripted(GREETING, settings.data_dir / "models", log)
        )
    except EngineFailed as error:
        raise click.ClickException(str(error)) from error


def _told(started: Engine, settings: Config, gguf: Path | None) -> str:
    if gguf is not None:
        return f"A llama.cpp engine serves {gguf} as '{started.serving.alias}'."
    asked = ", ".join(backend.url for backend in settings.backends)
    return (
        f"No model server answers at {asked}, so a real llama.cpp engine runs here with a tiny demo model\n"
        "that can only recite a greeting. For real answers start Ollama, or: make run GGUF=path/to/model.gguf"
    )


def _answering(backends: tuple[BackendConfig, ...]) -> Source | None:
    """The configured backends, if at least one answers."""
    answers = asyncio.run(_probe(backends))
    if not answers:
        return None
    # An embedding model can't chat, and the printed command should work.
    models = sorted(
        (model for listed in answers.values() for model in listed), key=lambda name: "embed" in name
    )
    told = f"The models come from {', '.join(answers)}."
    if not models:
        told += " It has no models yet; for one: ollama pull llama3.2"
    return Source(told, backends, models[0] if models else None)


async def _probe(backends: tuple[BackendConfig, ...]) -> dict[str, list[str]]:
    answers: dict[str, list[str]] = {}
    for config_of_one in backends:
        backend = HttpBackend(config_of_one, _PROBE)
        await backend.open()
        try:
            answers[config_of_one.url] = [card.name for card in await backend.models()]
        except GatewayError:
            continue
        finally:
            await backend.close()
    return answers


async def _first_key(stores: Stores) -> str | None:
    """The key of the first tenant, made now; None when there were tenants before."""
    if await stores.tenants.all():
        return None
    tenant = await make_tenant(stores, _TENANT)
    _, token = await make_key(stores, tenant.name, _KEY)
    return token


def _welcome(source: Source, key: str | None, address: tuple[str, int], ops: Address | None) -> str:
    host, port = address
    url = f"http://{host}:{port}"
    told = ["", source.told, ""]
    if key is None:
        told.append(
            "The first key was printed when it was made. Another one:\n"
            f"  {_command()} create-key --tenant {_TENANT} --name another"
        )
    else:
        told.append(_first(key))
    told += [
        "",
        "Try it:",
        _curl(url, key or "nz_YOUR_KEY", source.model or "MODEL"),
        "",
        f"Serving on {url}",
        *([] if ops is None or ops.port == 0 else [f"Metrics for Prometheus: http://{ops}/metrics"]),
        "",
    ]
    return "\n".join(told)


def _first(key: str) -> str:
    return f"Your first key, shown this once:\n  {key}"


def _command() -> str:
    """This command, as it can be typed here: `make run` does not put it on the PATH."""
    command = Path(sys.argv[0])
    return os.path.relpath(command) if command.is_file() and command.suffix != ".py" else "neuronetz-gateway"


def _curl(url: str, key: str, model: str) -> str:
    body = {"model": model, "stream": True, "messages": [{"role": "user", "content": "Hello!"}]}
    return (
        f"  curl -N {url}/v1/chat/completions \\\n"
        f"    -H 'Authorization: Bearer {key}' \\\n"
        "    -H 'Content-Type: application/json' \\\n"
        f"    -d '{json.dumps(body)}'"
    )
