"""What could not be stored, kept as it was: the adapter behind `ports.Quarantine`."""

import hashlib
import time
from collections.abc import Callable
from typing import Final

from gateway.storage.database import Database

_KEEP: Final = """
    INSERT INTO quarantine (digest, kind, record, reason, kept_at)
    VALUES (:digest, :kind, :record, :reason, :kept_at)
    ON CONFLICT (digest) DO NOTHING
"""


class Quarantine:
    """All raise StoreUnavailable when the database does not answer."""

    def __init__(self, database: Database, now: Callable[[], float] = time.time) -> None:
        self._database = database
        self._now = now

    async def keep(self, kind: str, record: bytes, reason: str) -> None:
        """Set a record of the spool aside, with why. The same record again changes nothing."""
        values = {
            "digest": hashlib.sha256(record).digest(),
            "kind": kind,
            "record": record,
            "reason": reason,
            "kept_at": self._now(),
        }
        async with self._database.transaction() as connection:
            await connection.execute(_KEEP, values)

    async def count(self) -> int:
        """How many records wait for somebody to look at them."""
        async with self._database.session() as connection:
            return int(await connection.fetch_val("SELECT count(*) FROM quarantine"))
