"""Changing one setting of a .env file: nothing else of it changes, and nobody ever reads half a file."""

import contextlib
import errno
import fcntl
import io
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from dotenv.parser import Binding, parse_stream

# Bytes that are no UTF-8, in a comment for instance, come out as they came in.
_ENCODING: Final = ("utf-8", "surrogateescape")
# It may hold secrets: nobody else's to read, unless it was before.
_NEW_MODE: Final = 0o600
_LINE: Final = r"""
    (?P<head>\s*(?:export[^\S\r\n]+)?'?{name}'?[^\S\r\n]*=[^\S\r\n]*)
    (?P<value>'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|[^\r\n]*?)
    (?P<tail>(?:[^\S\r\n]+\#[^\r\n]*)?[^\S\r\n]*(?:\r\n|\r|\n|$))
"""


class NotWritten(Exception):
    """The file is as it was. `str()` says why, in words that go behind a colon."""


def with_setting(text: str, name: str, value: str) -> str:
    """The text of the file with another value for this name; comments, order and quotes stay.

    Of several lines for one name the last is read, so that one is changed; where there is none, a line is put
    below the one that is commented out, else at the end. The value has no quotes, spaces or line ends.
    """
    bindings = list(parse_stream(io.StringIO(text.removeprefix("\ufeff"), newline="")))
    pieces = [binding.original.string for binding in bindings]
    named = [index for index, binding in enumerate(bindings) if binding.key == name]
    if named:
        pieces[named[-1]] = _replaced(pieces[named[-1]], name, value)
        return _bom(text) + "".join(pieces)
    newline = "\r\n" if "\r\n" in text else "\n"
    line = f"{name}={value}{newline}"
    sample = _sample_of(bindings, name)
    where = len(pieces) if sample is None else sample + 1
    before = "".join(pieces[:where])
    gap = newline if before and not before.endswith(("\n", "\r")) else ""
    return _bom(text) + before + gap + line + "".join(pieces[where:])


def changed(path: Path, edit: Callable[[str], str]) -> None:
    """Replace the file by what `edit` makes of its text, in one step: a crash leaves the old or the new one.

    A symbolic link stays, and what it leads to is replaced. Mode and owner stay. Who comes at the same time
    waits. Raises NotWritten, and what `edit` raises.
    """
    target = Path(os.path.realpath(path))
    try:
        with _alone_in(target.parent):
            text = _read(target)
            _replace(target, edit(text).encode(*_ENCODING))
    except OSError as error:
        raise NotWritten(_reason(error, target)) from error


def _bom(text: str) -> str:
    return text[: len(text) - len(text.removeprefix("\ufeff"))]


def _replaced(line: str, name: str, value: str) -> str:
    found = re.fullmatch(_LINE.format(name=re.escape(name)), line, re.VERBOSE | re.DOTALL)
    if found is None:  # a name without a value
        return f"{line.rstrip()}={value}{line[len(line.rstrip()) :]}"
    quote = found["value"][:1] if found["value"][:1] in ("'", '"') else ""
    return f"{found['head']}{quote}{value}{quote}{found['tail']}"


def _sample_of(bindings: list[Binding], name: str) -> int | None:
    sample = re.compile(rf"\s*#\s*(?:export\s+)?{re.escape(name)}\s*=")
    found = [index for index, binding in enumerate(bindings) if sample.match(binding.original.string)]
    return found[-1] if found else None


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """One at a time changes files here. Goes with the process."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
        # The new name is on the disk, too.
        os.fsync(handle)
    finally:
        os.close(handle)


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode(*_ENCODING)
    except FileNotFoundError:
        return ""


def _replace(path: Path, data: bytes) -> None:
    try:
        before = path.stat()
    except FileNotFoundError:
        before = None
    if before is not None and not os.access(path, os.W_OK):
        # The folder would allow it; whoever made the file read-only meant it.
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    new = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, _NEW_MODE)
    try:
        with open(handle, "wb") as file:
            if before is not None:
                _resemble(handle, before)
            file.write(data)
            file.flush()
            os.fsync(handle)
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def _resemble(handle: int, before: os.stat_result) -> None:
    """Give it the owner and mode of the file that it replaces. Raises PermissionError where it can't."""
    if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
        os.fchown(handle, before.st_uid, before.st_gid)
    os.fchmod(handle, stat.S_IMODE(before.st_mode))


def _reason(error: OSError, path: Path) -> str:
    match error.errno:
        case errno.EACCES | errno.EPERM:
            return f"this user may not write {path}, or not make a file beside it"
        case errno.EROFS:
            return f"{path.parent} is mounted read-only"
        case errno.EBUSY | errno.EXDEV:
            return f"{path} is mounted by itself, so it can't be replaced in one step"
        case errno.ENOSPC | errno.EDQUOT:
            return f"there is no space left for {path}"
        case _:
            return f"{path}: {os.strerror(error.errno or 0)}"
