"""Argon2id, in a pool of threads that can't be flooded. The GIL is released while a thread hashes."""

import asyncio
import os
import secrets
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from passlib.hash import argon2

from gateway.errors import Overloaded

# OWASP's floor for Argon2id. A key has 202 secret bits: the cost defends against a weak generator only.
MEMORY_KIB: Final = 19_456
ROUNDS: Final = 2
LANES: Final = 1
# Beyond these a stored hash was not made by us; verifying it would cost whatever its writer liked.
MAX_MEMORY_KIB: Final = 16 * MEMORY_KIB
MAX_ROUNDS: Final = 16
MAX_LANES: Final = 16

MAX_WAITING: Final = 32

# passlib's own defaults take 64 MiB and 100 ms.
_argon2id: Any = argon2.using(  # type: ignore[no-untyped-call]
    type="ID", memory_cost=MEMORY_KIB, rounds=ROUNDS, parallelism=LANES
)


class UnusableHash(Exception):
    """A stored hash that is no Argon2id, or costs more than any of ours: the database was tampered with."""


def argon2_of(token: str) -> str:
    """Hash a key, in this thread: tens of milliseconds, 19 MiB. A PHC string."""
    return str(_argon2id.hash(token))


def argon2_matches(token: str, stored: str) -> bool:
    """Verify a key, in this thread. Raises UnusableHash before any work is done."""
    _refuse_unusable(stored)
    return bool(_argon2id.verify(token, stored))


class Hasher:
    """Verifies keys in threads: one core stays free, a few wait, the rest is told Overloaded."""

    def __init__(self, threads: int | None = None, max_waiting: int = MAX_WAITING) -> None:
        self._threads = threads or max(1, _cores() - 1)
        self._max_waiting = max_waiting
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="argon2")
        self._running = 0
        self.verifications = 0
        """How often Argon2 was run to verify a key."""

    async def start(self) -> None:
        """Load the backend and touch its memory, so that the first caller does not wait for it."""
        warm_up = secrets.token_hex(16)
        await asyncio.get_running_loop().run_in_executor(self._pool, argon2_of, warm_up)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def matches(self, token: str, stored: str) -> bool:
        """Whether `stored` is the hash of this key. Raises Overloaded, UnusableHash."""
        if self._running >= self._threads + self._max_waiting:
            raise Overloaded("Too many keys are being checked at the moment; try again shortly.")
        self.verifications += 1
        self._running += 1
        verification = asyncio.get_running_loop().run_in_executor(self._pool, argon2_matches, token, stored)
        # Counted until the thread is done, also when nobody waits for it any more.
        verification.add_done_callback(self._finished)
        return await asyncio.shield(verification)

    def _finished(self, verification: "asyncio.Future[bool]") -> None:
        self._running -= 1
        if not verification.cancelled():
            verification.exception()  # seen, also when its caller has left


def _cores() -> int:
    """Those that this process may use, where the system says so."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _refuse_unusable(stored: str) -> None:
    try:
        parts = argon2.from_string(stored)
    except (ValueError, TypeError) as error:
        raise UnusableHash("not an Argon2 hash") from error
    too_costly = (
        parts.memory_cost > MAX_MEMORY_KIB or parts.rounds > MAX_ROUNDS or parts.parallelism > MAX_LANES
    )
    if parts.type != "id" or too_costly:
        raise UnusableHash("not an Argon2id hash of ours")
