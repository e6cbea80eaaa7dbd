"""What operators keep in the database for all processes: in memory here, and read again when it changes."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Generic, TypeVar

from loguru import logger

from gateway.errors import StoreUnavailable
from gateway.state.revision_watch import POLL_S, READ_S, RevisionWatch

_T = TypeVar("_T")


class Followed(Generic[_T]):
    """`value` is as of the latest revision that is known; while the database is away, as it was before.

    `start` and `stop` inside the event loop. `on_change` is told each value that was read.
    """

    def __init__(
        self,
        read: Callable[[], Awaitable[_T]],
        watch: RevisionWatch,
        initial: _T,
        *,
        on_change: Callable[[_T], None] = lambda _: None,
        poll_s: float = POLL_S,
    ) -> None:
        self.value = initial
        self._read = read
        self._watch = watch
        self._on_change = on_change
        self._poll_s = poll_s
        self._revision: int | None = None
        self._following: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read it once, then follow. Raises StoreUnavailable: nobody is served by what nobody has read."""
        await self._take(self._watch.revision)
        self._following = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait([self._following])

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(self._poll_s)
            revision = self._watch.revision
            if revision != self._revision and not self._watch.is_pausing:
                with suppress(StoreUnavailable):  # the watch tells that it is away
                    await self._take(revision)

    async def _take(self, revision: int | None) -> None:
        """Read what is there at this revision, or since."""
        try:
            async with asyncio.timeout(READ_S):
                value = await self._read()
        except TimeoutError as error:
            raise StoreUnavailable from error
        except ValueError:
            logger.error("what the database has of models can't be read; what was known before holds")
            return
        self._revision = revision
        if value != self.value:
            self.value = value
            self._on_change(value)
