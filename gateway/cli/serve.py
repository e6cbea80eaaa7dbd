"""The command that serves."""

from collections.abc import Callable

import click
from loguru import logger

from gateway import config
from gateway.cli.migrate import bring_up_to_date
from gateway.config import Config
from gateway.process import OnListening, serve_until_stopped
from gateway.server.lifespan import StartFailed
from gateway.server.listening import CannotListen
from gateway.sinks import logs
from gateway.storage.refusals import Refused


@click.command()
def serve() -> None:
    """Serve until SIGTERM, then let running requests finish.

    The database is brought up to date first. SIGHUP reads OLLAMA_BACKENDS again, from the .env file where the
    environment does not have it; running requests go on. The log, one JSON object a line, goes to
    standard error.

    \b
    Examples:
      neuronetz-gateway serve
      GATEWAY_BIND=0.0.0.0:8080 OLLAMA_BACKENDS=http://gpu-1:11434 neuronetz-gateway serve
    """
    settings = config.load()
    bring_up_to_date(settings.database_url)
    serve_with(settings, _log_addresses, config.load)


def serve_with(
    settings: Config, on_listening: OnListening, read_again: Callable[[], Config] | None = None
) -> None:
    """Serve, with our log on standard error. Raises ClickException with the reason why it can't."""
    logs.configure(settings.log_level)
    try:
        serve_until_stopped(settings, on_listening, _log_ops_addresses, read_again)
    except CannotListen as error:
        raise click.ClickException(f"cannot listen on {error}; {_remedy(error.bind, settings)}") from error
    except StartFailed as error:
        reason = error.__cause__ if isinstance(error.__cause__, Refused) else error
        raise click.ClickException(str(reason)) from error


def _remedy(bind: str, settings: Config) -> str:
    if bind == str(settings.ops_bind):
        return "GATEWAY_OPS_BIND names another address for metrics, `off` none."
    return "GATEWAY_BIND names another address."


def _log_addresses(addresses: list[tuple[str, int]]) -> None:
    logger.bind(addresses=_written(addresses)).info("listening")


def _log_ops_addresses(addresses: list[tuple[str, int]]) -> None:
    logger.bind(addresses=_written(addresses)).info("listening for operators")


def _written(addresses: list[tuple[str, int]]) -> list[str]:
    return [f"{host}:{port}" for host, port in addresses]
