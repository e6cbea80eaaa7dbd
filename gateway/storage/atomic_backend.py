"""What yoyo's backends lack: applying a migration and remembering it in one transaction, and the way back."""

import contextlib
import datetime
import io
import os
import socket
import uuid
from typing import Any

from yoyo.backends import DatabaseBackend
from yoyo.migrations import Migration


class AtomicBackend(DatabaseBackend):  # type: ignore[misc]
    """To be mixed into one of yoyo's backends, before it. Closes its connection as a context manager."""

    def apply_atomically(self, migration: Migration) -> None:
        """What upstream's `apply_one` does, but in one transaction, on one connection."""
        # yoyo prints what a step returns, and SQLite's ALTER TABLE … CHECK returns its own look at the table.
        with self.transaction(), contextlib.redirect_stdout(io.StringIO()):
            migration.process_steps(self, "apply")
            self.mark_one(migration)

    def roll_back_atomically(self, migration: Migration) -> None:
        """Undo it and forget it, in one transaction."""
        with self.transaction(), contextlib.redirect_stdout(io.StringIO()):
            migration.process_steps(self, "rollback")
            self.unmark_one(migration)

    def get_log_data(self, migration: Migration | None = None, operation: str = "apply") -> dict[str, Any]:
        """Neither asks for the user's name, which containers have none of, nor the DNS for the host's."""
        return {
            "id": str(uuid.uuid1()),
            "migration_id": migration.id if migration else None,
            "migration_hash": migration.hash if migration else None,
            "username": f"uid {os.getuid()}",
            "hostname": socket.gethostname(),
            "created_at_utc": datetime.datetime.now(datetime.UTC).replace(tzinfo=None).isoformat(),
            "operation": operation,
        }
