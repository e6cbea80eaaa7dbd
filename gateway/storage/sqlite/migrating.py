"""Migrating SQLite. The lock is the kernel's, on a file beside the database, and goes with the process."""

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any, Final

from yoyo.backends.core.sqlite3 import SQLiteBackend
from yoyo.connections import parse_uri
from yoyo.migrations import default_migration_table

from gateway.storage.atomic_backend import AtomicBackend
from gateway.storage.sqlite.database import BUSY_S, database_path, make_database_file, unusable


class SqliteMigrator:
    """`storage.migrations.Migrator`."""

    folder: Final = "sqlite"

    def __init__(self, database_url: str) -> None:
        self._path = database_path(database_url)
        self._url = database_url
        self.name = str(self._path)

    @property
    def exists(self) -> bool:
        return self._path.exists()

    def make(self) -> None:
        make_database_file(self._url)

    def may_change(self) -> bool:
        return True

    def applied(self) -> set[str]:
        if not self.exists:
            return set()
        with contextlib.closing(
            sqlite3.connect(f"{self._path.as_uri()}?mode=ro", uri=True, timeout=BUSY_S)
        ) as connection:
            tables = connection.execute(
                "SELECT 1 FROM sqlite_master WHERE name = ?", (default_migration_table,)
            )
            if tables.fetchone() is None:
                return set()
            return {row[0] for row in connection.execute("SELECT migration_id FROM _yoyo_migration")}

    def backend(self) -> AtomicBackend:
        with contextlib.closing(sqlite3.connect(self._path, timeout=BUSY_S)) as connection:
            # Kept in the file. Done here, alone: switching does not wait for others.
            connection.execute("PRAGMA journal_mode=WAL")
        uri = parse_uri("sqlite:///")._replace(database=self.name)
        return _AtomicSqlite(uri, default_migration_table)

    @contextlib.contextmanager
    def lock(self) -> Iterator[Callable[[], bool]]:
        # The file stays: without it, no lock.
        descriptor = os.open(f"{self._path}.migrating", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            yield lambda: _locked(descriptor)
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def errors_told(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise unusable(self._path, error) from error


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class _AtomicSqlite(AtomicBackend, SQLiteBackend):  # type: ignore[misc]
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
