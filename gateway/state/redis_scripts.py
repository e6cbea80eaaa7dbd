"""The Lua scripts, put together from their parts. Redis knows a script by the SHA-1 of its text."""

import hashlib
from pathlib import Path
from typing import Final, Self

from attrs import field, frozen

_FOLDER: Final = Path(__file__).parent / "scripts"


def _part(name: str) -> str:
    return (_FOLDER / f"{name}.lua").read_text(encoding="utf-8")


# Defines `server_time_us`: Redis's own clock, the same for all replicas.
SERVER_CLOCK: Final = _part("clock")


@frozen
class Script:
    text: bytes
    sha: str = field(init=False)

    @sha.default
    def _sha_of_text(self) -> str:
        return hashlib.sha1(self.text, usedforsecurity=False).hexdigest()


@frozen
class Scripts:
    take: Script
    settle: Script
    renew: Script
    expired: Script
    heard: Script
    restore: Script
    raise_epoch: Script

    @classmethod
    def with_clock(cls, clock: str = SERVER_CLOCK) -> Self:
        """All scripts, over this definition of `server_time_us`."""
        counting = _part("counting")
        names = ("take", "settle", "renew", "expired", "heard", "restore", "raise_epoch")
        return cls(*(Script("\n".join((clock, counting, _part(name))).encode()) for name in names))
