"""What operators keep in the database for all processes: in memory here, and read again when it changes."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from loguru import logger

from gateway.errors import StoreUnavailable
from gateway.state.revision_watch import POLL_S, READ_S, RevisionWatch
from gateway.storage.refusals import DatabaseUnusable, Refused

_T = TypeVar("_T")


class Followed(Generic[_T]):
    """`value` is as of the latest revision that is known; while the database is away, as it was before.

    `start` and `stop` inside the event loop. `of` names it for operators; `on_change` is told each
    value that was read.
    """

    def __init__(
        self,
        read: Callable[[], Awaitable[_T]],
        watch: RevisionWatch,
        initial: _T,
        *,
        of: str = "settings",
        on_change: Callable[[_T], None] = lambda _: None,
        poll_s: float = POLL_S,
    ) -> None:
        self.value = initial
        self._read = read
        self._watch = watch
        self._of = of
        self._on_change = on_change
        self._poll_s = poll_s
        self._revision: int | None = None
        self._told: int | None = None
        self._following: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read it once, then follow: nobody is served by what nobody has read.

        Raises StoreUnavailable, and DatabaseUnusable where what is there can't be read.
        """
        try:
            await self._take(self._watch.revision)
        except (StoreUnavailable, Refused):
            raise
        except Exception as error:
            raise DatabaseUnusable(
                f"The database's {self._of} can't be read ({type(error).__name__}): they were changed by "
                "other means, or by a newer version. Start that version, or restore the backup from before."
            ) from error
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
                await self._try(revision)

    async def _try(self, revision: int | None) -> None:
        try:
            await self._take(revision)
        except StoreUnavailable:
            pass  # the watch tells that it is away
        except Exception as error:  # noqa: BLE001 - whatever is there must not end the following for good
            if self._told != revision:
                self._told = revision
                name = type(error).__name__
                logger.error(f"{self._of} can't be read ({name}); what was known before holds")

    async def _take(self, revision: int | None) -> None:
        """Read what is there at this revision, or since."""
        try:
            async with asyncio.timeout(READ_S):
                value = await self._read()
        except TimeoutError as error:
            raise StoreUnavailable from error
        self._revision = revision
        if value != self.value:
            self.value = value
            self._on_change(value)
