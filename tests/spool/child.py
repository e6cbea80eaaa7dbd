"""A process that spools requests into a real database until it kills itself, or is killed, with SIGKILL.

It is its own witness: each line of the file `witness` is written after the call that it speaks of returned.
As in a gateway, a request that a full spool refuses ends there. On a disk that stalls that is soon: this
spool has room for a few hundred requests, and as many come in half a second.
"""

import asyncio
import contextlib
import os
import random
import signal
import sys
from pathlib import Path
from typing import Any, Final

from gateway.errors import AuditUnavailable, StoreUnavailable
from gateway.spool import adoption, draining
from gateway.spool.folders import Folder
from gateway.spool.journal import Journal
from gateway.spool.spool import Spool
from gateway.storage import ledger as ledger_module
from gateway.storage.audit import AuditLog
from gateway.storage.database import Database
from gateway.storage.engines import database_at
from gateway.storage.ledger import Ledger
from gateway.storage.quarantine import Quarantine
from tests.storage.samples import CHAIN, audit_row, intent, settled

KIB: Final = 1024
REQUESTS: Final = 60


def die(*_: object, **__: object) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def dies_at(call: int) -> Any:
    """A function that dies when it is called for that time; what else it does is up to the caller."""
    calls = iter(range(call - 1))
    return lambda: next(calls, None) is None and die()


def sabotage(point: str) -> None:
    """Let the process die where the point says."""
    keep, write = ledger_module._keep, AuditLog.write
    match point:
        case "in a transaction":

            async def keep_and_die(*given: Any) -> None:
                await keep(*given)
                die()

            setattr(ledger_module, "_keep", keep_and_die)  # noqa: B010 - mypy counts arguments
        case "between the commits of ledger and audit":
            AuditLog.write = die  # type: ignore[method-assign]
        case "between the commits and the deletion":
            Journal.drop = die  # type: ignore[method-assign]
        case "after the last commit":
            last = dies_at(3)

            async def write_and_die(*given: Any) -> None:
                await write(*given)
                last()

            setattr(AuditLog, "write", write_and_die)  # noqa: B010 - mypy counts arguments
        case "before leftovers are deleted":
            Folder.remove = die  # type: ignore[method-assign]


def spool_at(directory: Path, database: Database) -> Spool:
    return Spool(
        directory / "spool",
        Ledger(database),
        AuditLog(database, CHAIN),
        Quarantine(database),
        max_bytes=400 * KIB,
        segment_bytes=8 * KIB,
    )


async def serve(directory: Path, point: str, name: str) -> None:
    """Let some requests run beside each other, each with an intent, an end and a row."""
    draining.BATCH_WAIT_S = 0.005  # type: ignore[misc]
    adoption.ADOPT_S = 0.05  # type: ignore[misc]
    draw = random.Random(name)
    witness = os.open(directory / "witness", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    async with database_at(f"sqlite:///{directory}/gateway.db") as database:
        one = spool_at(directory, database)
        sabotage(point)
        await one.start()

        async def request(number: int) -> None:
            rid = f"{name}-{number:04}"
            try:
                one.intent(intent(rid), audit_row(number, request_id=rid, status=499))
            except AuditUnavailable:
                return
            os.write(witness, f"intent {rid}\n".encode())
            if point == "after an intent" and number == REQUESTS // 2:
                die()
            await asyncio.sleep(draw.choice([0, 0.001, 0.02]))
            one.settled(settled(rid))
            os.write(witness, f"settled {rid}\n".encode())
            if point == "after a settlement" and number == REQUESTS // 2:
                die()
            one.record(audit_row(number, request_id=rid))
            os.write(witness, f"recorded {rid}\n".encode())
            if point == "after a row" and number == REQUESTS // 2:
                die()

        async with asyncio.TaskGroup() as running:
            for number in range(REQUESTS if point != "at any moment" else 100_000):
                running.create_task(request(number))
                await asyncio.sleep(0.0005)
        with contextlib.suppress(StoreUnavailable):  # then the spool keeps the rest for others
            await one.stop()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
