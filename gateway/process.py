"""One process, from its settings to its exit."""

import gc
import os
from collections.abc import Callable
from functools import partial
from typing import Final

from loguru import logger

from gateway.app import build
from gateway.config import Config
from gateway.ops.app import build as build_ops
from gateway.ops.standing import ProcessStanding
from gateway.reloading import Reloading
from gateway.resources import Resources
from gateway.rules.audit import row_of_refused
from gateway.server.configuration import configuration
from gateway.server.service import Bounds, RefusedRequest
from gateway.server.service_manager import ServiceManager
from gateway.server.worker import Beside, run, serve

OnListening = Callable[[list[tuple[str, int]]], None]

# Of what requests allocate, almost all goes by reference counts; what stays for a while, as streams and rows
# on their way do, is looked at twice and then let be. A look at so many takes a third of a millisecond, in
# which no stream goes on; at five times as many two to five, and at what forty of those had left 20 to 180.
_YOUNG_OBJECTS: Final = 1_000
_YOUNG_LOOKS: Final = 2
# All that there is: once in two million.
_MIDDLE_LOOKS: Final = 700


def serve_until_stopped(
    config: Config,
    on_listening: OnListening,
    on_ops_listening: OnListening,
    read_again: Callable[[], Config] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then drain. The database is up to date before.

    `on_ops_listening` is told where the metrics are, if anywhere, before the start begins.
    With `read_again`, SIGHUP reads the settings by it and takes over the backends. A manager of services
    that the environment names is told of all that.

    Raises SecretUnusable, StartFailed with the reason as its cause, CannotListen.
    """
    resources = Resources(config)
    manager = ServiceManager.of(os.environ)
    reloading = None
    if read_again is not None:
        reloading = Reloading(config, read_again, resources.set_backends, manager.reloading)
    run(
        serve(
            build(resources),
            configuration(str(config.bind)),
            lifecycle=resources.lifecycle,
            new_id=resources.new_id,
            on_error=_log_defect,
            drain_s=config.drain_s,
            bounds=Bounds(write_stall_s=config.write_stall_s),
            on_listening=_with_memory_settled(on_listening),
            on_refused=partial(_record_refused, resources),
            beside=_ops(resources, on_ops_listening),
            on_hangup=reloading.ask if reloading else None,
            service_manager=manager,
            by_hypercorn=config.server == "hypercorn",
        )
    )


def _with_memory_settled(on_listening: OnListening) -> OnListening:
    """The same, once what the start has made, and what stays, is out of the collector's sight."""

    def listening(addresses: list[tuple[str, int]]) -> None:
        gc.collect()
        gc.freeze()
        gc.set_threshold(_YOUNG_OBJECTS, _YOUNG_LOOKS, _MIDDLE_LOOKS)
        on_listening(addresses)

    return listening


def _ops(resources: Resources, on_listening: OnListening) -> Beside | None:
    bind = resources.config.ops_bind
    if bind is None:
        return None
    app = build_ops(resources.metrics.registry, ProcessStanding(resources), bind.host)
    return Beside(app, configuration(str(bind)), on_listening)


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
