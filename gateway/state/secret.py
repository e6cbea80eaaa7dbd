"""The secret that stored keys are hashed under: GATEWAY_SECRET, or made once and kept in GATEWAY_DATA_DIR."""

import contextlib
import fcntl
import hmac
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from loguru import logger

from gateway.config import MIN_SECRET_CHARACTERS, Config
from gateway.storage.meta import Meta
from gateway.storage.refusals import SecretUnusable

FILE_NAME: Final = "secret"
_RANDOM_BYTES: Final = 32
_FINGERPRINT: Final = "secret_fingerprint"


def load_secret(config: Config) -> bytes:
    """GATEWAY_SECRET, else the file `secret` in the data directory, which is made where it is missing.

    The same text means the same secret in either place. Raises SecretUnusable.
    """
    if config.secret is not None:
        return config.secret.encode()
    path = config.data_dir.absolute() / FILE_NAME
    try:
        if not path.exists():
            _make(path)
        return _read(path)
    except OSError as error:
        raise SecretUnusable(
            f"The secret {path} can't be read or made: {error.strerror}. Mend that, or set GATEWAY_SECRET."
        ) from error


async def confirm_secret(meta: Meta, secret: bytes) -> None:
    """Make sure that the stored keys, and the audit log's seals, were made under this secret.

    Without this, every key would be refused as wrong and nobody would know why; and the audit log would look
    changed. Raises SecretUnusable, StoreUnavailable.
    """
    mine = _fingerprint(secret)
    if not hmac.compare_digest(await meta.pin(_FINGERPRINT, mine), mine):
        raise SecretUnusable(
            "The keys in this database were made under another secret, or its audit log sealed under one: "
            "no key would be accepted, and no row proven. "
            "Set GATEWAY_SECRET to that secret, or bring back the file 'secret' of its data directory."
        )


def _fingerprint(secret: bytes) -> str:
    return hmac.digest(secret, b"neuronetz-gateway: which secret is this", "sha256").hex()


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        secret = file.read().strip()
    if mode & 0o077:
        logger.warning(f"the secret {path} can be read by others: chmod 600 it")
    if len(secret) < MIN_SECRET_CHARACTERS:
        raise SecretUnusable(
            f"The secret {path} has fewer than {MIN_SECRET_CHARACTERS} characters: bring back the right "
            "one, or remove the file if no key was made yet."
        )
    return secret


def _make(path: Path) -> None:
    """Make the file, whole and on disk or not at all; of processes that race, one makes it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _alone(path.with_name(f"{FILE_NAME}.lock")):
        if path.exists():
            return
        unfinished = path.with_name(f"{FILE_NAME}.new")
        unfinished.unlink(missing_ok=True)  # of a process that was killed
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(_RANDOM_BYTES) + "\n")
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(path)
        _sync_directory(path.parent)


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
