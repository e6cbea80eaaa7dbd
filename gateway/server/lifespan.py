"""The app's start and stop: hypercorn's Lifespan, with failures that say what failed."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from hypercorn.asyncio.lifespan import Lifespan
from hypercorn.config import Config
from hypercorn.utils import LifespanFailureError, LifespanTimeoutError, wrap_app

from gateway.server.asgi import ASGIApp, Message, Receive, Scope, Send


class StartFailed(Exception):
    """The app did not start. The reason, where the app gave one, is `__cause__`; never its traceback."""


class StopFailed(Exception):
    """The app did not stop cleanly. The reason, where the app gave one, is `__cause__`."""


class AppLifespan:
    """Starts and stops the app, in one task as ASGI wants it; `state` is what the app left there.

    Hypercorn serves an app whose lifespan raised as one that has none. Here nothing is served
    that did not start.
    """

    def __init__(self, app: ASGIApp, config: Config) -> None:
        self._app = app
        self._started = False
        self._failed = False
        self._cause: BaseException | None = None
        self.state: dict[str, Any] = {}
        wrapped = wrap_app(cast(Any, self._watched), config.wsgi_max_body_size, "asgi")
        self._lifespan = Lifespan(wrapped, config, asyncio.get_running_loop(), self.state)
        self._task: asyncio.Task[None]

    async def start(self) -> None:
        """Return when the app has started. Raises StartFailed; cancelling it cancels the start."""
        self._task = asyncio.create_task(self._lifespan.handle_lifespan())
        try:
            await self._lifespan.wait_for_startup()
        except LifespanTimeoutError:
            await self._end()
            raise StartFailed("the app did not start in time") from None
        except asyncio.CancelledError:
            await self._end()
            raise
        if not self._started:
            await self._end()
            raise StartFailed(f"the app did not start{_because(self._cause)}") from self._cause

    async def stop(self) -> None:
        """Return when the app has stopped. Raises StopFailed."""
        try:
            await self._lifespan.wait_for_shutdown()
        except LifespanTimeoutError:
            self._failed = True
        await self._end()
        if self._failed:
            raise StopFailed(f"the app did not stop cleanly{_because(self._cause)}") from self._cause

    async def _end(self) -> None:
        self._task.cancel()
        await asyncio.wait((self._task,))
        if not self._task.cancelled():
            self._task.exception()  # seen: `_cause` has what lies behind it

    async def _watched(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The app, with an eye on what it says and raises."""

        async def watched_send(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                self._started = True
            await send(message)

        try:
            await self._app(scope, receive, watched_send)
        except LifespanFailureError as error:
            # The app reported it with `.failed`; what it was handling then is the reason.
            self._failed = True
            self._cause = error.__context__
            raise
        except Exception as error:  # the app is foreign here: whatever it raises is its failure
            self._failed = True
            self._cause = error
            raise LifespanFailureError("lifespan", type(error).__name__) from error


def _because(cause: BaseException | None) -> str:
    """The class only: the text of a driver's error may hold a password."""
    return f" ({type(cause).__name__})" if cause is not None else ""
