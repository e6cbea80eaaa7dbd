"""Notices the client leaving while we wait for a backend: an ASGI server tells only those who ask.

Ours calls who has left word with it (`gateway.on_leave`); any other one is asked in a task of its own.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

from starlette.types import Receive, Scope

from gateway.errors import ClientLeft


class ClientWatch:
    """Within `async with`, a disconnect cancels the body, which leaves as ClientLeft.

    The request must have been read to its end.
    """

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._receive = receive
        self._tell: Callable[[Callable[[], None] | None], None] | None = scope.get("extensions", {}).get(
            "gateway.on_leave"
        )
        self._watched: asyncio.Task[object] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self.gone = False

    async def __aenter__(self) -> Self:
        self._watched = asyncio.current_task()
        if self._tell is not None:
            self._tell(self._left)
        else:
            self._watcher = asyncio.create_task(self._watch())
        return self

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._left()

    def _left(self) -> None:
        self.gone = True
        if self._watched is not None:
            self._watched.cancel()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._tell is not None:
            self._tell(None)
        if self._watcher is not None:
            self._watcher.cancel()
            with suppress(asyncio.CancelledError):
                await self._watcher
        if self.gone and isinstance(error, asyncio.CancelledError):
            if self._watched is not None:
                self._watched.uncancel()
            raise ClientLeft from None
