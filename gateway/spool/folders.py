"""One folder for each process, held by the kernel: its lock goes with the process, whatever ends it.

So whoever can take a folder's lock knows that its process is dead, and may adopt what it left behind.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from attrs import define

SUFFIX: Final = ".journal"
_LOCK: Final = "lock"


@define
class Folder:
    """A folder that this process holds, until `release` or `remove`."""

    path: Path
    _lock: int | None

    def segments(self) -> list[Path]:
        """The journal's files, the oldest first."""
        return sorted(self.path.glob(f"*{SUFFIX}"))

    def release(self) -> None:
        """Let others adopt it; once."""
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)

    def remove(self) -> None:
        """Delete what is in it, the lock last, and itself."""
        for file in self.path.iterdir():
            if file.name != _LOCK:
                file.unlink()
        (self.path / _LOCK).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # somebody looked for leftovers meanwhile: they will remove it
            self.path.rmdir()
        self.release()


def make(root: Path) -> Folder:
    """A new folder of our own. Raises OSError."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    while True:
        path = root / f"{os.getpid()}-{os.urandom(6).hex()}"
        path.mkdir(mode=0o700)
        folder = _hold(path)
        # None: in the moment without a lock, somebody took it for a leftover.
        if folder is not None:
            return folder


def leftovers(root: Path) -> Iterator[Folder]:
    """Folders of dead processes, one after the other; each is held once it is given."""
    for path in sorted(root.iterdir()):
        if path.is_dir():
            with contextlib.suppress(OSError):  # gone meanwhile, or not ours to read
                folder = _hold(path)
                if folder is not None:
                    yield folder


def _hold(path: Path) -> Folder | None:
    """The folder, or None when another process holds it or has just removed it. Raises OSError."""
    lock = path / _LOCK
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # A lock on a file that its former holder unlinked holds nothing.
        if lock.stat().st_ino == os.fstat(descriptor).st_ino:
            return Folder(path, descriptor)
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None
