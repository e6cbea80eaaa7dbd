"""Whatever fails, each command ends with a sentence: no traceback, nothing on standard output, exit 1."""

import os
import sys
from pathlib import Path

import pytest

from gateway.cli.main import SECTIONS, main
from tests.cli.conftest import Commands
from tests.gateways import SECRET
from tests.servers import free_port

NOBODY = "nz_abc12345"
# Every command with what it takes; of a tenant, key or model that there is not, where it takes one.
ARGUMENTS = {
    "create-tenant": ["--name", "globex"],
    "list-tenants": [],
    "show-tenant": ["--name", "nobody"],
    "suspend-tenant": ["--name", "nobody"],
    "resume-tenant": ["--name", "nobody"],
    "delete-tenant": ["--name", "nobody", "--yes"],
    "create-key": ["--tenant", "nobody", "--name", "a"],
    "list-keys": ["--tenant", "nobody"],
    "show-key": ["--prefix", NOBODY],
    "update-key": ["--prefix", NOBODY, "--name", "b"],
    "rotate-key": ["--prefix", NOBODY],
    "revoke-key": ["--prefix", NOBODY],
    "set-limits": ["--tenant", "nobody", "--rpm", "1"],
    "set-budgets": ["--prefix", NOBODY, "--daily-tokens", "1"],
    "explain-key": ["--prefix", NOBODY],
    "allow-models": ["--tenant", "nobody", "--models", "b"],
    "set-model": ["--name", "a", "--model", "b"],
    "list-models": [],
    "remove-model": ["--name", "nothing"],
    "warm-model": ["nothing"],
    "drain-backend": ["nowhere"],
    "usage": ["--tenant", "nobody"],
    "audit": ["--tenant", "nobody"],
    "export-audit": ["--tenant", "nobody"],
    "verify-audit": [],
    "list-actions": ["--tenant", "nobody"],
    "show-prompts": ["--prefix", NOBODY],
    "purge-prompts": ["--prefix", NOBODY, "--yes"],
    "set-retention": ["--tenant", "nobody", "--days", "3"],
    "apply-retention": [],
    "purge-tenant": ["--name", "nobody", "--yes"],
    "verify-ledger": [],
    "rebuild-counters": ["--tenant", "nobody"],
    "migrate": [],
    "serve": [],
    "quickstart": [],
}
# These need no database: it is not what fails them.
WITHOUT_DATABASE = {
    "add-backend": ["http://127.0.0.1:11435"],
    "remove-backend": ["nowhere"],
    "list-backends": [],
    "doctor": [],
    "top": [],
}
# Nobody is named, so nothing is wrong; who has a model is asked of backends.
NAMELESS = {
    "create-tenant", "list-tenants", "set-model", "list-models", "verify-audit", "apply-retention",
    "warm-model", "verify-ledger", "migrate", "serve", "quickstart",
}  # fmt: skip


def test_all_commands_are_here():
    commands = {command.name for _, section in SECTIONS for command in section}

    assert commands == set(ARGUMENTS) | set(WITHOUT_DATABASE)


@pytest.mark.parametrize(
    ("host", "sentence"),
    [("away", "can't be used: "), ("refuses", "password authentication failed")],
    ids=["a database that is away", "a database that this role may not enter"],
)
def test_a_database_that_can_not_be_used_is_a_sentence(
    unmigrated: Commands, monkeypatch, postgres_url, host, sentence
):
    """One line, which does not tell the password."""
    url = postgres_url.split("@")[1]
    where = f"127.0.0.1:{free_port()}/gateway" if host == "away" else url
    monkeypatch.setenv("DATABASE_URL", f"postgresql://gateway:hunter2@{where}")
    monkeypatch.setenv("GATEWAY_SECRET", SECRET)
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1")

    for name, arguments in ARGUMENTS.items():
        failed = unmigrated(name, *arguments)
        assert (failed.exit_code, failed.stdout, failed.stderr.count("\n")) == (1, "", 1), (
            name,
            failed.output,
        )
        assert failed.stderr.startswith("Error: "), name
        assert sentence in failed.stderr, (name, failed.stderr)
        assert "hunter2" not in failed.stderr


def test_a_wrong_name_is_a_sentence(shared, run: Commands):
    """It repeats what was not found, and says where to look."""
    for name in sorted(ARGUMENTS.keys() - NAMELESS):
        failed = run(name, *ARGUMENTS[name])
        assert (failed.exit_code, failed.stdout) == (1, ""), (name, failed.output)
        assert failed.stderr.startswith("Error: "), name
        assert failed.stderr.count("\n") == 1, (name, failed.stderr)


def test_a_closed_pipe_is_no_defect(unmigrated: Commands, empty: Path):
    """`neuronetz-gateway … | head -0`: nothing is told, however much a command would have had to say."""
    unmigrated("migrate")
    unmigrated("create-tenant", "--name", "acme")
    told = {}
    for name, arguments in {**ARGUMENTS, **WITHOUT_DATABASE}.items():
        if name not in ("serve", "quickstart", "top"):  # they end when they are told to
            told[name] = run_into_closed_pipe(empty, name, *arguments, "--json")

    for name, errors in told.items():
        assert "Traceback" not in errors, (name, errors)
        assert "defect" not in errors, (name, errors)


def run_into_closed_pipe(directory: Path, *arguments: str) -> str:
    """What a command says on standard error. In a copy of this process: a new one would take a second."""
    errors = directory / "errors"
    child = os.fork()
    if child == 0:
        try:
            reader, writer = os.pipe()
            os.close(reader)
            os.dup2(writer, 1)
            os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
            sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
            sys.argv = ["neuronetz-gateway", *arguments]
            main()
        except SystemExit:
            sys.stderr.flush()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    return errors.read_text()
