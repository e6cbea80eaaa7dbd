"""One process, from its settings to its exit."""

from collections.abc import Callable

from loguru import logger

from gateway.app import build
from gateway.config import Config
from gateway.resources import Resources
from gateway.server.configuration import configuration
from gateway.server.service import Bounds
from gateway.server.worker import run, serve

OnListening = Callable[[list[tuple[str, int]]], None]


def serve_until_stopped(config: Config, on_listening: OnListening) -> None:
    """Serve until SIGTERM or SIGINT, then drain. The database is up to date before.

    Raises SecretUnusable, StartFailed with the reason as its cause, CannotListen.
    """
    resources = Resources(config)
    run(
        serve(
            build(resources),
            configuration(str(config.bind)),
            lifecycle=resources.lifecycle,
            new_id=resources.new_id,
            on_error=_log_defect,
            drain_s=config.drain_s,
            bounds=Bounds(write_stall_s=config.write_stall_s),
            on_listening=on_listening,
        )
    )


def _log_defect(error: BaseException) -> None:
    logger.opt(exception=error).error("an answer was cut")
