"""One process, from its settings to its exit."""

from collections.abc import Callable
from functools import partial

from loguru import logger

from gateway.app import build
from gateway.config import Config
from gateway.resources import Resources
from gateway.rules.audit import row_of_refused
from gateway.server.configuration import configuration
from gateway.server.service import Bounds, RefusedRequest
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
            on_refused=partial(_record_refused, resources),
        )
    )


def _record_refused(resources: Resources, refused: RefusedRequest) -> None:
    """Record what the server answered itself, before Audit could see it."""
    row = row_of_refused(
        request_id=refused.request_id,
        received_at=resources.clock.now() - refused.duration_s,
        method=refused.method,
        target=refused.target,
        peer=refused.peer,
        status=refused.status,
        duration_s=refused.duration_s,
        bytes_out=refused.bytes_out,
    )
    for sink in resources.sinks:
        sink.record(row)


def _log_defect(error: BaseException) -> None:
    logger.opt(exception=error).error("an answer was cut")
