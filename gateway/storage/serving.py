"""Who serves on a database: gateways that count limits and budgets together, or one that counts alone.

Two that count alone would each allow the whole of every limit. The kernel's lock on a file beside the
database goes with the process, whatever ends it.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from gateway.storage.database import database_path, unusable
from gateway.storage.refusals import DatabaseUnusable


@contextmanager
def serving(database_url: str, *, alone: bool) -> Iterator[None]:
    """Serve on the database meanwhile. Raises DatabaseUnusable where that would break somebody's limits."""
    path = database_path(database_url)
    try:
        descriptor = os.open(f"{path}.serving", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise unusable(path, error) from error
    try:
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DatabaseUnusable(
                f"Another gateway serves on the database {path}: stop it, or give both the same REDIS_URL, "
                "so that they count limits and budgets together."
            ) from None
        yield
    finally:
        os.close(descriptor)
