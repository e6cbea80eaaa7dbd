"""The caller's end of a stream: its head, its pieces, and a sign of life while there are none."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from starlette.types import Send

from gateway.errors import ClientLeft
from gateway.middleware.context import Header, is_done
from gateway.patience import Patience

# Proxies and SDKs give up on silence after 30 to 60 s; a model may load for minutes.
HEARTBEAT_S: Final = 15.0


async def waited(sent: Awaitable[None] | None) -> None:
    """Wait for what a write gave back, if it gave back anything."""
    if sent is not None:
        await sent


class Outgoing:
    """The caller's end of a stream: the head goes out with the first bytes."""

    __slots__ = ("_headers", "_send", "started")

    def __init__(self, send: Send, headers: Callable[[], list[Header]]) -> None:
        self._send = send
        self._headers = headers
        self.started = False

    def write(self, data: bytes) -> Awaitable[None] | None:
        """What is returned is to be waited for: the bytes may not be out before. None where they are."""
        if not data:
            return None
        if not self.started:
            return self._begin(data)
        sent = self._send({"type": "http.response.body", "body": data, "more_body": True})
        return None if is_done(sent) else sent

    async def _begin(self, data: bytes) -> None:
        self.started = True
        await self._send({"type": "http.response.start", "status": 200, "headers": self._headers()})
        await waited(self.write(data))

    async def finish(self) -> None:
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})


class Heartbeat:
    """Writes a comment whenever a stream was silent for a while, the time before its first frame included."""

    def __init__(self, out: Outgoing, comment: Callable[[], bytes | None], every_s: float) -> None:
        self._out = out
        self._comment = comment
        self._every_s = every_s
        self._beating: asyncio.Task[None] | None = None
        self._patience = None if comment() is None else Patience(every_s, self._beat)

    def renew(self) -> None:
        if self._patience is not None:
            self._patience.renew(self._every_s)

    def stop(self) -> None:
        if self._patience is not None:
            self._patience.end()
        if self._beating is not None:
            self._beating.cancel()

    def _beat(self) -> None:
        self._beating = asyncio.get_running_loop().create_task(self._write())
        self._patience = Patience(self._every_s, self._beat)

    async def _write(self) -> None:
        # The watch sees a client that left; a comment for it is nobody's loss.
        with suppress(ClientLeft):
            await waited(self._out.write(self._comment() or b""))
