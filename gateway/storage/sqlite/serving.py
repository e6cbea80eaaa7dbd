"""Who serves on a SQLite file: the kernel's lock on a file beside it, which goes with the process."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from gateway.storage.refusals import AnotherServes
from gateway.storage.sqlite.database import database_path, unusable


@contextmanager
def serving(database_url: str, *, alone: bool) -> Iterator[None]:
    """See `storage.engines.serving`."""
    path = database_path(database_url)
    try:
        descriptor = os.open(f"{path}.serving", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise unusable(path, error) from error
    try:
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AnotherServes(str(path)) from None
        yield
    finally:
        os.close(descriptor)
