"""Appending records to files. What was appended survives a kill -9 at once, a power cut after `flush`.

Two laws. The files never take more than `max_bytes`, and a tenth of them is kept for what must still be
written when no new work may begin: that tenth is allocated beforehand, so that it is there even when
somebody else has filled the disk. And no intent is taken while that tenth is not there.

Not thread-safe: everything here but `Unsynced.flush` and `Segment.delete` belongs to the event loop.
"""

import contextlib
import errno
import os
import time
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Final

from attrs import define, field, frozen

from gateway.spool import frames
from gateway.spool.folders import SUFFIX

MIB: Final = 1024 * 1024
SEGMENT_BYTES: Final = 4 * MIB
KEPT_PARTS: Final = 10
# A disk that refused is left alone for so long.
REFUSED_S: Final = 1.0
# Less than this is no room for an intent with its row.
_INTENT_BYTES: Final = 2048
_RESERVE: Final = "reserve"


class JournalFull(Exception):
    """No room for a record of its kind, by our own bound or because the disk says so."""


class Room(Enum):
    """How far a record may reach into the space."""

    INTENT = "intent"
    """Not into the tenth that is kept."""
    REFUSAL = "refusal"
    """Into half of it: a flood of requests that we refuse leaves the rest."""
    END = "end"
    """To the last byte: settlements, and the audit of what was let in."""


@define(eq=False)
class Segment:
    """One file. `written` and `drained` are offsets in bytes: what lies between waits for the database."""

    number: int
    path: Path
    descriptor: int
    max_bytes: int
    is_allocated: bool = False
    written: int = 0
    drained: int = 0
    live: int = 0
    """How many bytes of it are intents that still run."""

    def delete(self) -> None:
        """Take it off the disk; for a thread: the kernel needs a millisecond or two for a whole one."""
        with contextlib.suppress(OSError):  # it stays, and is replayed: that changes nothing
            self.path.unlink()
        os.close(self.descriptor)


@frozen
class Unsynced:
    """What is not yet safe from a power cut. `since` is when the first of it was written (`elapsed`)."""

    since: float
    _descriptors: tuple[int, ...]
    _folder: Path | None

    def flush(self) -> None:
        """Wait for the disk; for a thread. Raises OSError."""
        try:
            for descriptor in self._descriptors:
                os.fdatasync(descriptor)
            if self._folder is not None:
                _sync_folder(self._folder)
        finally:
            for descriptor in self._descriptors:
                os.close(descriptor)


@define(eq=False)
class Journal:
    """The files of one process. `open` first, `close` last."""

    folder: Path
    max_bytes: int
    segment_bytes: int = SEGMENT_BYTES
    elapsed: Callable[[], float] = time.monotonic
    others_bytes: int = 0
    """What leftovers of dead processes take: no intents into what they fill, for it is the same disk."""
    segments: list[Segment] = field(factory=list)
    """The oldest first; the last one is written to."""
    used_bytes: int = 0
    _reserve: Segment | None = None
    _refused_at: float | None = None
    _numbers: int = 0
    _unsynced: set[Segment] = field(factory=set)
    _unsynced_since: float = 0.0
    _is_folder_unsynced: bool = False
    kept_bytes: int = field(init=False)
    """For what must still be written when no new work may begin."""

    def __attrs_post_init__(self) -> None:
        self.kept_bytes = self.max_bytes // KEPT_PARTS

    @property
    def is_full(self) -> bool:
        """True when an intent would be refused."""
        return (
            self._reserve is None
            or self._free_for_new_work() < _INTENT_BYTES
            or (self._refused_at is not None and self.elapsed() - self._refused_at < REFUSED_S)
        )

    def open(self) -> None:
        """Make the first file, and allocate what is kept. Raises OSError when nothing can be written."""
        self._begin_segment()
        self.tend()

    def append(self, payload: bytes, room: Room) -> Segment:
        """Write one record, and return where. Raises JournalFull."""
        data = frames.frame(payload)
        size = len(data)
        # What new work has room for, all else has room for too.
        is_roomy = self._free_for_new_work() >= size
        if not (is_roomy or self._free(room) >= size) or (room is Room.INTENT and self.is_full):
            raise JournalFull
        try:
            segment = self._segment_for(size, is_roomy=is_roomy)
            if segment is not None:
                _write(segment, data)
        except OSError:
            self.refuse()
            if room is Room.INTENT:
                raise JournalFull from None
            segment = None
        segment = segment or self._write_into_reserve(data)
        segment.written += size
        self.used_bytes += size
        if not self._unsynced:
            self._unsynced_since = self.elapsed()
        self._unsynced.add(segment)
        return segment

    def leave_drained_reserve(self) -> None:
        """Go back to an ordinary file, so that what was kept can be kept again. Raises OSError."""
        active = self.segments[-1]
        if active.is_allocated and active.drained == active.written and self._free_for_new_work() > 0:
            self._begin_segment()

    def drop(self, segment: Segment) -> None:
        """Know no more of a segment that is not written to any more. Its space counts until it is `freed`."""
        self.segments.remove(segment)
        self._unsynced.discard(segment)

    def freed(self, segment: Segment) -> None:
        """A segment that was dropped is deleted."""
        self.used_bytes -= segment.written

    def refuse(self) -> None:
        """Take no intents for a moment: the disk failed."""
        self._refused_at = self.elapsed()

    def tend(self) -> None:
        """Allocate what is kept, if it was used and there is room again."""
        if self._reserve is None and self._free(Room.END) >= self.kept_bytes:
            with contextlib.suppress(OSError):  # `is_full` says it
                self._reserve = self._allocated()

    def unsynced(self) -> Unsynced | None:
        """What was written since this was asked last."""
        if not self._unsynced:
            return None
        # Duplicates: a segment may be dropped while the disk is waited for.
        descriptors = tuple(os.dup(segment.descriptor) for segment in self._unsynced)
        folder = self.folder if self._is_folder_unsynced else None
        self._unsynced.clear()
        self._is_folder_unsynced = False
        return Unsynced(self._unsynced_since, descriptors, folder)

    def close(self) -> None:
        """Close all files; they stay."""
        for segment in (*self.segments, *([self._reserve] if self._reserve else [])):
            os.close(segment.descriptor)
        self.segments.clear()
        self._unsynced.clear()
        self._reserve = None

    def _free_for_new_work(self) -> int:
        return self.max_bytes - self.kept_bytes - self.used_bytes - self.others_bytes

    def _free(self, room: Room) -> int:
        match room:
            case Room.INTENT:
                return self._free_for_new_work()
            case Room.REFUSAL:
                return self.max_bytes - self.kept_bytes // 2 - self.used_bytes
            case Room.END:
                return self.max_bytes - self.used_bytes

    def _segment_for(self, size: int, *, is_roomy: bool) -> Segment | None:
        """The segment to write to; None: only what is kept is left. Raises OSError."""
        active = self.segments[-1]
        is_fitting = active.written + size <= active.max_bytes
        if active.is_allocated and is_fitting:
            return active
        if not is_roomy:
            return None
        if not is_fitting:
            self._begin_segment()
        return self.segments[-1]

    def _write_into_reserve(self, data: bytes) -> Segment:
        if self._reserve is None:
            raise JournalFull
        segment, self._reserve = self._reserve, None
        try:
            self._numbers += 1
            segment.number, path = self._numbers, self._path(self._numbers)
            segment.path = segment.path.rename(path)
            self._take_up(segment)
            _write(segment, data)
        except OSError:
            raise JournalFull from None
        return segment

    def _begin_segment(self) -> None:
        self._numbers += 1
        path = self._path(self._numbers)
        self._take_up(Segment(self._numbers, path, _new_file(path), self.segment_bytes))

    def _take_up(self, segment: Segment) -> None:
        self.segments.append(segment)
        self._is_folder_unsynced = True

    def _allocated(self) -> Segment:
        path = self.folder / _RESERVE
        descriptor = _new_file(path)
        try:
            os.posix_fallocate(descriptor, 0, max(1, self.kept_bytes))
        except OSError:
            os.close(descriptor)
            path.unlink()
            raise
        return Segment(0, path, descriptor, self.kept_bytes, is_allocated=True)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:08}{SUFFIX}"


def _new_file(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)


def _write(segment: Segment, data: bytes) -> None:
    """All of it, or nothing that counts: the next record is written over what was torn. Raises OSError."""
    written = os.pwrite(segment.descriptor, data, segment.written)
    if written < len(data):
        if not segment.is_allocated:
            os.ftruncate(segment.descriptor, segment.written)
        raise OSError(errno.ENOSPC, "the disk took a part only")


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
