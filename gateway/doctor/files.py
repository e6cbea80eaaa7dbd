"""The data directory, its disk, and who may read what is in it. Looks, and makes nothing."""

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from gateway.config import MIB, Config
from gateway.doctor.findings import Finding, failed, ok, warning
from gateway.postgres_address import is_postgres
from gateway.state.secret import FILE_NAME

# Beside the spool: the database, a model of the demo, the log of an engine.
_SPARE_BYTES: Final = 100 * MIB
_OTHERS: Final = 0o077


def examine_files(config: Config, env_file: Path = Path(".env")) -> Iterator[Finding]:
    yield _data_dir(config.data_dir)
    yield _disk(config)
    yield _modes(config, env_file)


def _data_dir(folder: Path) -> Finding:
    there = _nearest(folder)
    if not os.access(there, os.W_OK | os.X_OK):
        return failed(
            "data dir",
            f"{folder.absolute()} can't be written to by this user.",
            f"Give {there} to the user that serves (chown), or name another folder in GATEWAY_DATA_DIR.",
        )
    if there != folder.absolute():
        return ok("data dir", f"{folder.absolute()} is not there yet; the first start makes it.")
    return ok("data dir", f"{folder.absolute()} is there and can be written to.")


def _disk(config: Config) -> Finding:
    free = shutil.disk_usage(_nearest(config.data_dir)).free
    told = f"{free // MIB} MiB are free for {config.data_dir.absolute()}"
    if free < config.spool_max_bytes:
        return failed(
            "disk",
            f"{told}; the spool may need {config.spool_max_bytes // MIB}.",
            "Free some space, or lower GATEWAY_SPOOL_MAX_BYTES: on a full disk new inference is 503.",
        )
    if free < config.spool_max_bytes + _SPARE_BYTES:
        return warning("disk", f"{told}: enough for the spool and little else.", "Free some space soon.")
    return ok("disk", f"{told}; the spool takes {config.spool_max_bytes // MIB} at most.")


def _modes(config: Config, env_file: Path) -> Finding:
    private = [config.data_dir / FILE_NAME, env_file, *_database_files(config)]
    open_to_others = [str(path) for path in private if _mode(path) & _OTHERS]
    if open_to_others:
        return warning(
            "file modes",
            f"Other users of this machine can read {', '.join(open_to_others)}.",
            f"chmod go= {' '.join(open_to_others)}",
        )
    return ok("file modes", "No file with secrets or tenants' data is open to other users.")


def _database_files(config: Config) -> list[Path]:
    if is_postgres(config.database_url):
        return []
    return [Path(unquote(config.database_url.removeprefix("sqlite:///")))]


def _mode(path: Path) -> int:
    """0 for what is not there, what was lent to us, or what lies in a folder that keeps others out anyway."""
    try:
        folder = stat.S_IMODE(path.absolute().parent.stat().st_mode)
        file = path.stat()
    except OSError:
        return 0
    if not folder & 0o011 or is_lent(file, os.geteuid(), os.getegid()):
        return 0
    return stat.S_IMODE(file.st_mode)


def is_lent(file: os.stat_result, user: int, group: int) -> bool:
    """Whether it is root's, for our own group to read, and for nobody else.

    So a service is given settings that it must not change: deploy/systemd does.
    """
    is_for_us_alone = stat.S_IMODE(file.st_mode) & 0o037 == 0
    return file.st_uid == 0 != user and file.st_gid == group and is_for_us_alone


def _nearest(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    found = folder.absolute()
    while not found.exists() and found != found.parent:
        found = found.parent
    return found
