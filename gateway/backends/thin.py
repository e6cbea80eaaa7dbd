"""A call over a connection of our own: the relay's way to a backend."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from gateway.backends.answers import END_WAIT_S, STOPPED, BackendTimeouts, HttpAnswer
from gateway.backends.connections import Connections
from gateway.backends.http1 import Broken, Connection
from gateway.errors import BackendFailed, BackendTimeout
from gateway.patience import Patience

_LATE: Final = "The model backend did not answer in time."


class ThinAnswer(HttpAnswer):
    def __init__(
        self,
        connections: Connections,
        request: tuple[bytes, bytes],
        use: Callable[[int], None],
        timeouts: BackendTimeouts,
        credential: str | None,
    ) -> None:
        """`request` is its head and its body."""
        super().__init__(use, timeouts, credential)
        self._connections = connections
        self._request = request
        self._connection: Connection | None = None
        self._patience: Patience | None = None
        self._piece_s = timeouts.first_byte_s
        """How long the next piece of the body may take."""

    async def _open(self) -> None:
        connection = self._connections.free()
        if connection is None:
            connection = await self._connections.made(self._timeouts.connect_s)
        self._connection = connection
        patience = self._patience = Patience(self._timeouts.first_byte_s, connection.abort)
        try:
            connection.ask(*self._request)
            # The answer may take minutes; its request, megabytes maybe, is needed no more.
            self._request = b"", b""
            while not connection.has_head:
                await connection.more()
        except Broken:
            if patience.is_over:
                raise BackendTimeout(_LATE) from None
            raise BackendFailed("The model backend broke the connection.") from None
        patience.hold()
        self.status = connection.status
        if 300 <= self.status < 400 or connection.is_encoded:
            raise BackendFailed("The model backend sent an answer that this gateway does not read.")

    async def _end(self) -> None:
        connection = self._connection
        if connection is None or connection.is_complete:
            return
        with suppress(TimeoutError, Broken):
            async with asyncio.timeout(END_WAIT_S):
                while not connection.is_complete:
                    connection.take()
                    await connection.more()

    def _let_go(self) -> None:
        if self._patience is not None:
            self._patience.end()
        if self._connection is not None:
            self._connections.give_back(self._connection)

    async def read(self) -> bytes:
        connection, _ = self._opened()
        if not connection.has_piece:
            await self._wait(lambda: connection.has_piece)
        self._piece_s = self._timeouts.chunk_gap_s
        return connection.take()

    async def push(self, take: Callable[[bytes], bool]) -> bool:
        """As long as `take` wants more, from where the pieces come in: the task that waits here sleeps on.

        To wake it for each piece of a stream, through all that it is in the middle of, costs more than the
        piece.
        """
        connection, patience = self._opened()
        goes_on, failure = True, None

        def listen(piece: bytes) -> bool:
            nonlocal goes_on, failure
            self._piece_s = self._timeouts.chunk_gap_s
            patience.renew(self._piece_s)
            try:
                goes_on = take(piece)
            except Exception as error:  # noqa: BLE001 - raised below, in the task that waits
                goes_on, failure = False, error
            return goes_on

        connection.listener = listen
        try:
            while goes_on:
                if connection.has_piece:
                    listen(connection.take())
                elif connection.is_complete:
                    return False
                else:
                    await self._wait(lambda: connection.has_piece or not goes_on)
        finally:
            connection.listener = None
            patience.hold()
        if failure is not None:
            raise failure
        return True

    def _opened(self) -> tuple[Connection, Patience]:
        if self._connection is None or self._patience is None:
            raise BackendFailed("The answer was not opened.")
        return self._connection, self._patience

    async def _wait(self, until: Callable[[], bool]) -> None:
        """Until this holds or the answer has ended. Within the time that the next piece may take."""
        connection, patience = self._opened()
        patience.renew(self._piece_s)
        try:
            while not (until() or connection.is_complete):
                await connection.more()
        except Broken:
            if patience.is_over:
                raise BackendTimeout(STOPPED) from None
            raise BackendFailed("The model backend broke off its answer.") from None
        finally:
            # A reader that takes its time is no silence of the backend's.
            patience.hold()
