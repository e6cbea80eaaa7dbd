"""A process that spools onto a disk that fills up. Prints one JSON object of what it saw.

`limit`: no file may grow beyond 64 KiB (RLIMIT_FSIZE). `tmpfs`: the folder is a disk of 1 MiB, and
somebody else fills it.
"""

import asyncio
import json
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from gateway.errors import AuditUnavailable
from gateway.spool import journal
from gateway.spool.spool import Spool
from tests.spool.doubles import Stores
from tests.storage.samples import audit_row, intent, settled

KIB: Final = 1024
ENDS: Final = 20


def limit_files(_: Path) -> Callable[[], None]:
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * KIB, resource.RLIM_INFINITY))
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)


def fill_disk(directory: Path) -> Callable[[], None]:
    other = directory / "somebody else"
    try:
        with other.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4 * KIB))
    except OSError:
        return other.unlink


async def main(mode: str, directory: Path) -> None:
    stores = Stores(failures=10**9)
    one = Spool(
        directory / "spool", stores.ledger, stores.audit, stores, max_bytes=500 * KIB, segment_bytes=400 * KIB
    )
    await one.start()
    for number in range(ENDS):
        one.intent(intent(f"r{number}"))
    make_room = limit_files(directory) if mode == "limit" else fill_disk(directory)
    taken = 0
    try:
        while True:
            one.intent(intent(f"more{taken}"))
            taken += 1
    except AuditUnavailable:
        pass
    was_full = one.is_full
    for number in range(ENDS):
        one.settled(settled(f"r{number}"))
        one.record(audit_row(number))
    held = len(one._backlog._held)
    make_room()
    stores.failures = 0
    await one.flush()
    await asyncio.sleep(journal.REFUSED_S)
    one.intent(intent("after"))
    await one.flush()
    print(
        json.dumps(
            {
                "taken on the full disk": taken,
                "was full": was_full,
                "ends that the disk did not take": held,
                "settled": sum(entry == settled(rid) for rid, entry in stores.entries.items()),
                "audited": len(stores.rows),
                "open": sum(entry.evidence == "intent" for entry in stores.entries.values()),
                "lost": [one.dropped, one.drainer.lost_bytes],
            }
        )
    )
    one.settled(settled("after"))
    await one.stop()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
