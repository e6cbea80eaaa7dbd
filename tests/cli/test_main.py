"""The command as a whole: help, exit codes, sentences instead of tracebacks."""

import os
import re
import shlex
import subprocess
import sys

import click
import pytest

from gateway.cli.main import PROGRAM, SECTIONS, cli
from tests.gateways import SECRET

COMMANDS = [command for _, commands in SECTIONS for command in commands]


def program(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run as an operator does: a process of its own, in the working directory."""
    return subprocess.run(
        [sys.executable, "-m", "gateway", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **environment},
    )


def test_help_shows_every_command_under_its_section(unmigrated):
    """By purpose, not by alphabet; and how to get completion."""
    shown = unmigrated("--help").stdout

    titles = re.findall(r"^(\S.*):$", shown, re.MULTILINE)
    assert titles == ["Options", *(title for title, _ in SECTIONS)]
    assert all(f"  {name} " in shown for name in cli.commands)
    assert 'eval "$(_NEURONETZ_GATEWAY_COMPLETE=bash_source neuronetz-gateway)"' in shown


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_has_help_with_an_example_that_it_takes(command, unmigrated, empty):
    """The example is parsed as it stands, so that it can't go stale."""
    (empty / "path/to").mkdir(parents=True)
    (empty / "path/to/model.gguf").touch()
    shown = unmigrated(command.name, "--help").stdout

    examples = re.findall(rf"^ +{PROGRAM} (.*)$", shown, re.MULTILINE)
    assert examples
    for example in examples:
        name, *arguments = shlex.split(example)
        assert name == command.name
        command.make_context(name, arguments)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_commands(shell, empty):
    """What the help promises."""
    completed = program(_PYTHON__M_GATEWAY_COMPLETE="", _NEURONETZ_GATEWAY_COMPLETE=f"{shell}_source")

    assert completed.returncode == 0
    assert "_neuronetz_gateway_completion" in completed.stdout


@pytest.mark.parametrize(
    ("arguments", "suggestion"),
    [
        (["migrat"], "No such command 'migrat'. Did you mean 'migrate'?"),
        (["list-keys", "--tennant", "x"], "No such option '--tennant'. Did you mean '--tenant'?"),
    ],
)
def test_what_is_mistyped_is_suggested_right(unmigrated, arguments, suggestion):
    """Commands and options; exit code 2 is wrong usage."""
    result = unmigrated(*arguments)

    assert (result.exit_code, result.stdout) == (2, "")
    assert suggestion in result.stderr


def test_mistakes_in_the_settings_are_a_line_each(unmigrated, monkeypatch):
    """All at once, and nothing was tried: exit code 2."""
    monkeypatch.setenv("GATEWAY_BNID", "x")
    monkeypatch.setenv("GATEWAY_DRAIN_S", "soon")

    result = unmigrated("list-keys")

    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        "Error: unknown setting 'GATEWAY_BNID'; did you mean GATEWAY_BIND?",
        "Error: GATEWAY_DRAIN_S is 'soon', but not usable: it takes a number of seconds above 0.",
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        ["create-tenant", "--name", "a"],
        ["list-tenants"],
        ["create-key", "--tenant", "a", "--name", "b"],
        ["list-keys"],
        ["revoke-key", "--prefix", "nz_abc12345"],
        ["update-key", "--prefix", "nz_abc12345", "--name", "b"],
        ["rotate-key", "--prefix", "nz_abc12345"],
        ["suspend-tenant", "--name", "a"],
        ["resume-tenant", "--name", "a"],
        ["delete-tenant", "--name", "a", "--yes"],
        ["list-actions"],
        ["usage"],
        ["audit"],
        ["export-audit"],
        ["purge-tenant", "--name", "a", "--yes"],
        ["show-tenant", "--name", "a"],
        ["show-key", "--prefix", "nz_abc12345"],
        ["set-limits", "--tenant", "a", "--rpm", "1"],
        ["set-budgets", "--tenant", "a", "--daily-tokens", "1"],
        ["warm-model", "a"],
        ["drain-backend", "127.0.0.1:11434"],
        ["set-model", "--name", "a", "--model", "b"],
        ["list-models"],
        ["remove-model", "--name", "a"],
        ["allow-models", "--tenant", "a", "--models", "b"],
        ["explain-key", "--prefix", "nz_abc12345"],
        ["verify-ledger"],
        ["rebuild-counters", "--all"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_without_a_database_commands_say_what_to_run(unmigrated, empty, arguments):
    """They never migrate on their own, and leave nothing behind."""
    result = unmigrated(*arguments)

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        f"Error: There is no database at {empty}/data/gateway.db yet: "
        "run `neuronetz-gateway migrate` first.\n"
    )
    assert list(empty.iterdir()) == []


def test_python_m_gateway_is_the_command(empty):
    """And `migrate` tells what it did."""
    migrated = program("migrate")

    assert (migrated.returncode, migrated.stderr) == (0, "")
    assert migrated.stdout.startswith(f"Applied to {empty}/data/gateway.db: 0001_tenants, ")


@pytest.mark.parametrize(
    ("database_url", "sentence"),
    [
        (
            "sqlite:///a-file/gateway.db",
            "Error: The database {empty}/a-file/gateway.db can't be used: Not a directory.\n",
        ),
        ("sqlite:///a-file", "Error: The database {empty}/a-file can't be used: file is not a database.\n"),
    ],
)
def test_a_database_that_can_not_be_used_is_a_sentence(empty, database_url, sentence):
    """Whatever the system says, there is no traceback."""
    (empty / "a-file").write_text("not a database at all" * 100)

    failed = program("migrate", DATABASE_URL=database_url)

    assert (failed.returncode, failed.stdout, failed.stderr) == (1, "", sentence.format(empty=empty))


@pytest.mark.parametrize("command", ["migrate", "list-tenants", "serve"])
def test_a_postgres_that_does_not_answer_is_a_sentence(empty, command):
    """One line, which names it without the password."""
    url = "postgresql://gw:hunter2@127.0.0.1:1/gateway"

    failed = program(command, DATABASE_URL=url, GATEWAY_SECRET=SECRET)

    assert (failed.returncode, failed.stdout, failed.stderr.count("\n")) == (1, "", 1)
    assert failed.stderr.startswith("Error: The database 127.0.0.1:1/gateway can't be used: ")
    assert "hunter2" not in failed.stderr


def test_a_defect_is_one_line_with_its_place_and_without_its_text(capsys, monkeypatch):
    """The text of an exception may hold anything, a key included."""
    from gateway.cli import main as module

    def fail(**_: object) -> None:
        raise LookupError("nz_secret")

    monkeypatch.setattr(module, "cli", fail)
    with pytest.raises(SystemExit) as exited:
        module.main()

    shown = capsys.readouterr()
    assert (exited.value.code, shown.out) == (1, "")
    assert re.fullmatch(
        r"Error: this is a defect, please report it: LookupError in .*test_main\.py:\d+\.\n", shown.err
    )


def test_a_closed_pipe_is_no_defect(empty):
    """`neuronetz-gateway list-keys | head -0` says nothing."""
    reader, writer = os.pipe()
    os.close(reader)
    failed = subprocess.run(
        [sys.executable, "-m", "gateway", "--help"],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    os.close(writer)

    assert "Traceback" not in failed.stderr
    assert "defect" not in failed.stderr


def test_the_group_is_complete():
    """What the sections name is what the program has."""
    assert list(cli.commands.values()) == COMMANDS
    assert all(isinstance(command, click.Command) for command in COMMANDS)
