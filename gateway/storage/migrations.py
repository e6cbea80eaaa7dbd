"""Bringing the database's schema up to date, with yoyo.

yoyo's own lock is a row that a killed process leaves behind, and yoyo applies a migration in one transaction
and remembers it in another. Here the lock is the kernel's, on a file beside the database, and goes with the
process; applying and remembering are one transaction. So a kill at any moment leaves nothing that blocks.
"""

import contextlib
import datetime
import fcntl
import importlib.resources
import io
import os
import socket
import sqlite3
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from yoyo import read_migrations
from yoyo.backends.core.sqlite3 import SQLiteBackend
from yoyo.connections import parse_uri
from yoyo.migrations import Migration, MigrationList, default_migration_table

from gateway.storage.database import BUSY_S, database_path, make_database_file, unusable
from gateway.storage.refusals import DatabaseUnusable

# Another process that migrates is waited for; a step of ours takes milliseconds.
LOCK_S: Final = 60.0
_LOCK_POLL_S: Final = 0.05


def migrate(database_url: str, *, lock_s: float = LOCK_S) -> list[str]:
    """Apply what is pending, making the database where there is none. Returns the ids that were applied now.

    Raises DatabaseUnusable: the database can't be opened, was made by a newer version, or another
    process has been migrating it for `lock_s` seconds.
    """
    path = make_database_file(database_url)
    with _errors_told(path), _migrating_alone(path, lock_s):
        _refuse_newer(path)
        with contextlib.closing(sqlite3.connect(path, timeout=BUSY_S)) as connection:
            # Kept in the file. Done here, alone: switching does not wait for others.
            connection.execute("PRAGMA journal_mode=WAL")
        return _apply_pending(path)


def pending(database_url: str) -> list[str]:
    """The ids that `migrate` would apply; changes nothing. Raises DatabaseUnusable as `migrate` does."""
    path = database_path(database_url)
    with _errors_told(path):
        _refuse_newer(path)
        applied = _applied(path)
    return [migration.id for migration in _known() if migration.id not in applied]


def refuse_pending(database_url: str) -> None:
    """Raise DatabaseUnusable with what to do, unless the database is up to date."""
    path = database_path(database_url)
    if not path.exists():
        raise DatabaseUnusable(f"There is no database at {path} yet: run `neuronetz-gateway migrate` first.")
    missing = pending(database_url)
    if missing:
        raise DatabaseUnusable(
            f"The database {path} lacks {', '.join(missing)}: run `neuronetz-gateway migrate` first."
        )


class _AtomicBackend(SQLiteBackend):  # type: ignore[misc]
    """yoyo's SQLite backend; what differs is said at each method."""

    _in_transaction: bool

    def connect(self, dburi: Any) -> sqlite3.Connection:
        """No shared cache, whose table locks don't wait; waits for a gateway that is writing."""
        return sqlite3.connect(dburi.database, isolation_level=None, timeout=BUSY_S)

    def begin(self) -> None:
        """IMMEDIATE: a transaction that first reads must not fail when it then writes."""
        assert not self._in_transaction  # noqa: S101 - as upstream
        self._in_transaction = True
        self.execute("BEGIN IMMEDIATE")

    def apply_atomically(self, migration: Migration) -> None:
        """What upstream's `apply_one` does, but in one transaction, on one connection."""
        # yoyo prints what a step returns, and SQLite's ALTER TABLE … CHECK returns its own look at the table.
        with self.transaction(), contextlib.redirect_stdout(io.StringIO()):
            migration.process_steps(self, "apply")
            self.mark_one(migration)

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


def _known() -> MigrationList:
    """All migrations, in their order. The folder is found as a package: a checkout and a wheel have it."""
    folder = importlib.resources.files("gateway.migrations") / "sqlite"
    return read_migrations(str(folder))


def _apply_pending(path: Path) -> list[str]:
    with backend_at(path) as backend:
        backend.break_lock()  # we are alone: whoever left it was killed
        todo = backend.to_apply(_known())
        for migration in todo:
            backend.apply_atomically(migration)
    return [migration.id for migration in todo]


def backend_at(path: Path) -> _AtomicBackend:
    """yoyo's view of the database; closes its connection as a context manager."""
    uri = parse_uri("sqlite:///")._replace(database=str(path))
    backend = _AtomicBackend(uri, default_migration_table)
    backend.init_database()
    return backend


def _refuse_newer(path: Path) -> None:
    unknown = _applied(path) - {migration.id for migration in _known()}
    if unknown:
        raise DatabaseUnusable(
            f"The database {path} was made by a newer version of this gateway: it has "
            f"{', '.join(sorted(unknown))}. Start that version, or restore the backup from before it."
        )


def _applied(path: Path) -> set[str]:
    """Ids that the database remembers. Reads only, and makes no file."""
    if not path.exists():
        return set()
    with contextlib.closing(
        sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=BUSY_S)
    ) as connection:
        tables = connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (default_migration_table,))
        if tables.fetchone() is None:
            return set()
        return {row[0] for row in connection.execute("SELECT migration_id FROM _yoyo_migration")}


@contextlib.contextmanager
def _migrating_alone(path: Path, lock_s: float) -> Iterator[None]:
    """Hold an exclusive lock on a file beside the database. The file stays: without it, no lock."""
    descriptor = os.open(f"{path}.migrating", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + lock_s
        while not _locked(descriptor):
            if time.monotonic() >= deadline:
                raise DatabaseUnusable(
                    f"Another process has been migrating {path} for {lock_s:.0f} s; see to it first."
                )
            time.sleep(_LOCK_POLL_S)
        yield
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def _errors_told(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise unusable(path, error) from error
