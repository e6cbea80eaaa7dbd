"""Bringing the database's schema up to date, with yoyo, on either engine.

yoyo's own lock is a row that a killed process leaves behind, and yoyo applies a migration in one transaction
and remembers it in another. Here the lock is one that goes with the process; applying and remembering are one
transaction. So a kill at any moment leaves nothing that blocks.
"""

import importlib.resources
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Final, Protocol

from yoyo import read_migrations
from yoyo.migrations import MigrationList

from gateway.postgres_address import is_postgres
from gateway.storage.atomic_backend import AtomicBackend
from gateway.storage.refusals import DatabaseUnusable

# Another process that migrates is waited for; a step of ours takes milliseconds.
LOCK_S: Final = 60.0
_LOCK_POLL_S: Final = 0.05


class Migrator(Protocol):
    """An engine's way of doing it. What the drivers raise is told by `errors_told` around all of them."""

    @property
    def folder(self) -> str:
        """Of the migrations."""

    @property
    def name(self) -> str:
        """Of the database, for people."""

    @property
    def exists(self) -> bool: ...

    def make(self) -> None:
        """Make an empty database where there is none, and where that is for us to do."""

    def may_change(self) -> bool:
        """Whether this role may change the schema."""

    def applied(self) -> set[str]:
        """Ids that the database remembers. Reads only, and makes nothing."""

    def backend(self) -> AtomicBackend:
        """yoyo's view of the database."""

    def lock(self) -> AbstractContextManager[Callable[[], bool]]:
        """Gives what tries, without waiting, to be the only one who migrates until the context ends."""

    def errors_told(self) -> AbstractContextManager[None]:
        """Turn the driver's errors into DatabaseUnusable."""


def migrate(database_url: str, *, lock_s: float = LOCK_S) -> list[str]:
    """Apply what is pending, making the database where there is none. Returns the ids that were applied now.

    Where nothing is pending it only reads. Raises DatabaseUnusable: the database can't be opened, was made by
    a newer version, or another process has been migrating it for `lock_s` seconds.
    """
    migrator = migrator_of(database_url)
    migrator.make()
    with migrator.errors_told():
        if not _pending(migrator):
            return []
        if not migrator.may_change():
            raise _lacking(migrator, _pending(migrator))
        with _alone(migrator, lock_s):
            _refuse_newer(migrator)
            return _apply_pending(migrator)


def roll_back(database_url: str, to: str, *, lock_s: float = LOCK_S) -> list[str]:
    """Undo all that came after the migration `to`, the newest first. Returns the ids that were undone.

    What only their tables and columns hold is gone. Gateways of this version can't go on with what is left.
    Raises DatabaseUnusable as `migrate` does, or when `to` is not one of the applied ones.
    """
    migrator = migrator_of(database_url)
    with migrator.errors_told(), _alone(migrator, lock_s):
        applied = applied_after(migrator, to)
        with migrator.backend() as backend:
            backend.init_database()
            backend.break_lock()
            todo = [one for one in backend.to_rollback(known(migrator)) if one.id in applied]
            for migration in todo:
                backend.roll_back_atomically(migration)
    return [migration.id for migration in todo]


def applied_after(migrator: Migrator, to: str) -> list[str]:
    """What `roll_back` would undo. Raises DatabaseUnusable."""
    applied = sorted(_refuse_newer(migrator))
    if to not in applied:
        raise DatabaseUnusable(
            f"The database {migrator.name} has no migration '{to}'; it has {', '.join(applied) or 'none'}."
        )
    return [one for one in applied if one > to]


def pending(database_url: str) -> list[str]:
    """The ids that `migrate` would apply; changes nothing. Raises DatabaseUnusable as `migrate` does."""
    migrator = migrator_of(database_url)
    with migrator.errors_told():
        return _pending(migrator)


def refuse_pending(database_url: str) -> None:
    """Raise DatabaseUnusable with what to do, unless the database is up to date."""
    migrator = migrator_of(database_url)
    if not migrator.exists:
        raise DatabaseUnusable(
            f"There is no database at {migrator.name} yet: run `neuronetz-gateway migrate` first."
        )
    if missing := pending(database_url):
        raise _lacking(migrator, missing)


def _lacking(migrator: Migrator, missing: Sequence[str]) -> DatabaseUnusable:
    return DatabaseUnusable(
        f"The database {migrator.name} lacks {', '.join(missing)}: run `neuronetz-gateway migrate` first."
    )


def migrator_of(database_url: str) -> Migrator:
    if is_postgres(database_url):
        from gateway.storage.postgres.migrating import PostgresMigrator  # see storage.engines

        return PostgresMigrator(database_url)
    from gateway.storage.sqlite.migrating import SqliteMigrator

    return SqliteMigrator(database_url)


def known(migrator: Migrator) -> MigrationList:
    """All migrations, in their order. The folder is found as a package: a checkout and a wheel have it."""
    return read_migrations(str(importlib.resources.files("gateway.migrations") / migrator.folder))


def _pending(migrator: Migrator) -> list[str]:
    applied = _refuse_newer(migrator)
    return [migration.id for migration in known(migrator) if migration.id not in applied]


def _apply_pending(migrator: Migrator) -> list[str]:
    with migrator.backend() as backend:
        backend.init_database()
        backend.break_lock()  # we are alone: whoever left it was killed
        todo = backend.to_apply(known(migrator))
        for migration in todo:
            backend.apply_atomically(migration)
    return [migration.id for migration in todo]


def _refuse_newer(migrator: Migrator) -> set[str]:
    """What is applied."""
    applied = migrator.applied()
    if unknown := applied - {migration.id for migration in known(migrator)}:
        raise DatabaseUnusable(
            f"The database {migrator.name} was made by a newer version of this gateway: it has "
            f"{', '.join(sorted(unknown))}. Start that version, or restore the backup from before it."
        )
    return applied


@contextmanager
def _alone(migrator: Migrator, lock_s: float) -> Iterator[None]:
    deadline = time.monotonic() + lock_s
    with migrator.lock() as is_ours:
        while not is_ours():
            if time.monotonic() >= deadline:
                raise DatabaseUnusable(
                    f"Another process has been migrating {migrator.name} for {lock_s:.0f} s; see to it first."
                )
            time.sleep(_LOCK_POLL_S)
        yield
