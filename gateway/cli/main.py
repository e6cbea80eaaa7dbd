"""The entry point: which commands there are, in which sections, and how every failure ends.

Exit codes: 0 done; 1 refused or failed; 2 wrong usage, which includes mistakes in the settings: nothing was
tried yet. No traceback, ever.
"""

import os
import sys
import traceback
from importlib import metadata
from typing import IO, Any, Final

import click
from loguru import logger

from gateway.cli.actions import list_actions
from gateway.cli.audit import audit
from gateway.cli.audit_export import export_audit
from gateway.cli.audit_verifying import verify_audit
from gateway.cli.backends import add_backend, list_backends, remove_backend
from gateway.cli.counters import rebuild_counters
from gateway.cli.doctor import doctor
from gateway.cli.draining import drain_backend
from gateway.cli.explain import explain_key
from gateway.cli.key_life import rotate_key, update_key
from gateway.cli.keys import create_key, list_keys, revoke_key, show_key
from gateway.cli.ledger import verify_ledger
from gateway.cli.limits import set_budgets, set_limits
from gateway.cli.migrate import migrate
from gateway.cli.model_access import allow_models
from gateway.cli.profiles import list_models, remove_model, set_model
from gateway.cli.prompts import purge_prompts, show_prompts
from gateway.cli.purging import purge_tenant
from gateway.cli.quickstart import quickstart
from gateway.cli.retention import apply_retention, set_retention
from gateway.cli.serve import serve
from gateway.cli.tenant_life import delete_tenant, resume_tenant, suspend_tenant
from gateway.cli.tenants import create_tenant, list_tenants, show_tenant
from gateway.cli.top import top
from gateway.cli.usage import usage
from gateway.cli.warming import warm_model
from gateway.config import ConfigError
from gateway.errors import GatewayError
from gateway.storage.refusals import Refused

# As Postgres has it.
_INSUFFICIENT_PRIVILEGE: Final = "42501"

PROGRAM: Final = "neuronetz-gateway"

# The help shows them in this order; a new command is one name here.
SECTIONS: Final[tuple[tuple[str, tuple[click.Command, ...]], ...]] = (
    (
        "Tenants",
        (create_tenant, list_tenants, show_tenant, suspend_tenant, resume_tenant, delete_tenant),
    ),
    (
        "Keys",
        (create_key, list_keys, show_key, update_key, rotate_key, revoke_key),
    ),
    ("Limits and budgets", (set_limits, set_budgets, explain_key)),
    (
        "Models and backends",
        (
            *(allow_models, set_model, list_models, remove_model, warm_model),
            *(add_backend, remove_backend, list_backends, drain_backend),
        ),
    ),
    (
        "Usage and audit",
        (
            *(usage, audit, export_audit, verify_audit, list_actions),
            *(show_prompts, purge_prompts, set_retention, apply_retention, purge_tenant),
        ),
    ),
    ("Operations", (serve, migrate, doctor, top, quickstart, verify_ledger, rebuild_counters)),
)


class SectionedGroup(click.Group):
    """Shows the commands by purpose, and turns what they refuse into a sentence and an exit code."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        width = max(len(command.name or "") for _, commands in SECTIONS for command in commands)
        for title, commands in SECTIONS:
            with formatter.section(title):
                # Padded alike, so that the sections line up.
                rows = [
                    ((command.name or "").ljust(width), command.get_short_help_str(80))
                    for command in commands
                ]
                formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            raise _Misconfigured(str(error)) from error
        except (Refused, GatewayError) as error:
            raise click.ClickException(_sentence(error)) from error


def _sentence(error: Exception) -> str:
    # Callers are told nothing of roles; an operator is.
    if getattr(error.__cause__, "sqlstate", None) == _INSUFFICIENT_PRIVILEGE:
        return (
            "The database role may not do that: give one that may as DATABASE_ADMIN_URL. Nothing was changed."
        )
    return str(error)


class _Misconfigured(click.ClickException):
    """A line for each mistake, on standard error."""

    exit_code = 2

    def show(self, file: IO[Any] | None = None) -> None:
        for mistake in self.message.splitlines():
            click.echo(f"Error: {mistake}", file=file, err=file is None)


@click.group(
    cls=SectionedGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=f"""
    Settings come from the environment, over .env in the working directory; see README.md.

    \b
    Completion of commands and options, for bash (zsh and fish likewise):
      eval "$(_NEURONETZ_GATEWAY_COMPLETE=bash_source {PROGRAM})"
    """,
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=lambda ctx, _, asked: _show_version(ctx) if asked else None,
    help="Show the version and exit.",
)
def cli() -> None:
    """A secure, multi-tenant API gateway in front of Ollama and OpenAI-compatible servers."""
    # Warnings of the adapters, for people; `serve` sends its log elsewhere.
    logger.remove()
    logger.add(
        lambda message: click.echo(message, err=True, nl=False), level="WARNING", format="Warning: {message}"
    )


for _, _commands in SECTIONS:
    for _command in _commands:
        cli.add_command(_command)


def main() -> None:
    """What `neuronetz-gateway` and `python -m gateway` run. Does not return."""
    _open_standard_streams()
    for stream in (sys.stdout, sys.stderr):
        # A name that the terminal's encoding lacks is shown escaped, not answered with a failure.
        getattr(stream, "reconfigure", lambda **_: None)(errors="backslashreplace")
    try:
        cli(prog_name=PROGRAM)
    except Exception as error:  # noqa: BLE001 - the last line of defence: a sentence, and no traceback
        click.echo(f"Error: this is a defect, please report it: {_origin_of(error)}.", err=True)
        sys.exit(1)


def _open_standard_streams() -> None:
    """Where one of them was closed (`2>&-`), the next file or socket would take its number.

    It would be written to as if it were standard error, and libuv aborts the process over it.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115 - for as long as we live


def _origin_of(error: BaseException) -> str:
    """Its kind and where it came from; not its text, which may hold anything."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {frame.filename}:{frame.lineno}"


def _show_version(ctx: click.Context) -> None:
    click.echo(f"{PROGRAM} {metadata.version(PROGRAM)}")
    ctx.exit()
