"""SIGHUP: the backends are read again, and nothing else changes."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Final

from attrs import fields
from loguru import logger

from gateway.config import BackendConfig, Config, ConfigError

_NAMES: Final = {"database_url": "DATABASE_URL", "redis": "REDIS_URL"}
# `admin_database_url` is of the commands alone, which read it at each start.
_NOT_OURS: Final = frozenset({"backends", "admin_database_url"})


class Reloading:
    """Reads the settings when it is asked to, one time after another. `around` is entered for each."""

    def __init__(
        self,
        current: Config,
        read: Callable[[], Config],
        apply: Callable[[tuple[BackendConfig, ...]], Awaitable[None]],
        around: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._current = current
        self._read = read
        self._apply = apply
        self._around = around
        self._backends = current.backends
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def ask(self) -> None:
        """For a signal handler of the loop: begin, and return."""
        task = asyncio.get_running_loop().create_task(self.reload())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def reload(self) -> None:
        """Read the settings and apply the backends; a mistake is logged, and then nothing changes."""
        async with self._lock:
            with self._around():
                await self._read_and_apply()

    async def _read_and_apply(self) -> None:
        try:
            read = await asyncio.to_thread(self._read)
        except (ConfigError, OSError, UnicodeDecodeError) as error:
            mistakes = error.mistakes if isinstance(error, ConfigError) else [str(error)]
            for mistake in mistakes:
                logger.error("settings could not be read again, nothing changes: {}", mistake)
            return
        for name in _changed(self._current, read):
            logger.warning("{} has changed and takes effect with the next start only", name)
        before, self._backends = self._backends, read.backends
        await self._apply(read.backends)
        _log(before, read.backends)


def _changed(before: Config, after: Config) -> list[str]:
    """The names of other settings that differ; their values may be secrets."""
    differing = (
        field.name for field in fields(Config) if getattr(before, field.name) != getattr(after, field.name)
    )
    return [_NAMES.get(name, f"GATEWAY_{name.upper()}") for name in differing if name not in _NOT_OURS]


def _log(before: tuple[BackendConfig, ...], after: tuple[BackendConfig, ...]) -> None:
    old, new = {one.name: one for one in before}, {one.name: one for one in after}
    logger.bind(
        added=sorted(new.keys() - old.keys()),
        removed=sorted(old.keys() - new.keys()),
        changed=sorted(name for name in new.keys() & old.keys() if new[name] != old[name]),
    ).info("backends were read again")
