"""Commands run in an empty directory, with no settings but those that a test makes."""

import json
import os
from typing import Any, Final

import pytest
from attrs import frozen
from click.testing import CliRunner, Result

from gateway.cli.main import PROGRAM, cli


@frozen
class Commands:
    """Runs commands in this process. Errors of theirs are errors of the test, unless they are sentences."""

    runner: CliRunner

    def __call__(self, *arguments: str) -> Result:
        return self.runner.invoke(cli, arguments, prog_name=PROGRAM, catch_exceptions=False)

    def json(self, *arguments: str) -> Any:
        """What a command prints with --json. It must succeed, and say nothing else."""
        result = self(*arguments, "--json")
        assert (result.exit_code, result.stderr) == (0, "")
        return json.loads(result.stdout)


# What a tenant or key has to programs when nothing was given.
NO_BOUNDS: Final = dict.fromkeys(
    ("rpm", "tpm", "concurrent", "daily_tokens", "monthly_tokens", "total_tokens")
)


@pytest.fixture
def empty(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("GATEWAY_") or name in ("DATABASE_URL", "REDIS_URL", "OLLAMA_BACKENDS"):
            monkeypatch.delenv(name)
    return tmp_path


@pytest.fixture
def unmigrated(empty) -> Commands:
    return Commands(CliRunner())


@pytest.fixture
def run(unmigrated: Commands) -> Commands:
    """Commands on a migrated database with one tenant, acme."""
    unmigrated("migrate")
    unmigrated("create-tenant", "--name", "acme")
    return unmigrated


@pytest.fixture
def prefix(run: Commands) -> str:
    """The prefix of a key of acme's, called ci."""
    made: str = run.json("create-key", "--tenant", "acme", "--name", "ci")["prefix"]
    return made
