"""Commands run in an empty directory, with no settings but those that a test makes."""

import asyncio
import json
import os
from typing import Any, Final

import pytest
from attrs import frozen
from click.testing import CliRunner, Result

from gateway.accounting import LedgerEntry
from gateway.cli.main import PROGRAM, cli
from gateway.config import load
from gateway.storage.engines import database_at
from gateway.storage.ledger import Ledger
from tests.gateways import SECRET
from tests.servers import RedisServer
from tests.storage.conftest import ENGINES


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


def write(*entries: LedgerEntry) -> None:
    """What requests have cost, into the ledger of the working directory."""

    async def written() -> None:
        async with database_at(load().database_url, connections=1) as database:
            await Ledger(database).write(entries)

    asyncio.run(written())


# What a tenant or key has to programs when nothing was given.
NO_BOUNDS: Final = dict.fromkeys(
    ("rpm", "tpm", "concurrent", "daily_tokens", "monthly_tokens", "total_tokens")
)
NO_MODEL_BOUNDS: Final = dict.fromkeys(("models", "max_num_ctx", "max_output_tokens"))


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


@pytest.fixture(params=ENGINES)
def run(unmigrated: Commands, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Commands:
    """Commands on a migrated database with one tenant, acme; in SQLite, and in Postgres."""
    if request.param == "postgres":
        monkeypatch.setenv("DATABASE_URL", request.getfixturevalue("postgres_url"))
        monkeypatch.setenv("GATEWAY_SECRET", SECRET)
    unmigrated("migrate")
    unmigrated("create-tenant", "--name", "acme")
    return unmigrated


@pytest.fixture
def prefix(run: Commands) -> str:
    """The prefix of a key of acme's, called ci."""
    made: str = run.json("create-key", "--tenant", "acme", "--name", "ci")["prefix"]
    return made


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch, redis_server: RedisServer, empty) -> RedisServer:
    """The commands' Redis, which is empty."""
    redis_server.ask("FLUSHALL")
    monkeypatch.setenv("REDIS_URL", redis_server.url)
    monkeypatch.setenv("GATEWAY_SECRET", SECRET)
    return redis_server
