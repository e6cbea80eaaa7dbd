"""A call by aiohttp: what is asked beside the callers' requests, and the relay where that is chosen."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import aiohttp

from gateway.backends.answers import END_WAIT_S, BackendTimeouts, HttpAnswer
from gateway.errors import BackendFailed, BackendTimeout, BackendUnreachable, ConnectTimeout
from gateway.patience import Patience

Call = Callable[[], Awaitable[aiohttp.ClientResponse]]


class Connector(aiohttp.TCPConnector):
    """aiohttp's, save that a connection on which something came unasked is never used again.

    aiohttp would take that for the answer to the next request: one tenant's for another's.
    """

    async def _get(self, key: Any, traces: Any) -> Any:
        while (kept := await super()._get(key, traces)) is not None:
            if kept.protocol is not None and not kept.protocol.should_close:
                return kept
            kept.close()
        return None


class AiohttpAnswer(HttpAnswer):
    def __init__(
        self, call: Call, use: Callable[[int], None], timeouts: BackendTimeouts, credential: str | None
    ) -> None:
        super().__init__(use, timeouts, credential)
        self._call = call
        self._response: aiohttp.ClientResponse | None = None

    async def __aenter__(self) -> Self:
        self._use(1)
        try:
            await self._open()
        except BaseException:
            self._use(-1)
            raise
        return self

    async def _open(self) -> None:
        try:
            async with asyncio.timeout(self._timeouts.first_byte_s):
                response = self._response = await self._call()
        except aiohttp.ConnectionTimeoutError:
            raise ConnectTimeout("The model backend could not be reached in time.") from None
        except TimeoutError:
            raise BackendTimeout("The model backend did not answer in time.") from None
        except aiohttp.ClientConnectorError:
            raise BackendUnreachable("The model backend could not be reached.") from None
        except (aiohttp.ClientError, OSError, ValueError):
            raise BackendFailed("The model backend broke the connection.") from None
        self.status = response.status
        if 300 <= response.status < 400 or response.headers.get("Content-Encoding", "identity") != "identity":
            response.close()
            raise BackendFailed("The model backend sent an answer that this gateway does not read.")

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # close, not release: an answer that was not read to its end must stop the backend's work. One that
        # was read to its end is already released, and its connection is back in the pool.
        response = self._response
        try:
            if response is not None:
                await self._let_go(response, is_read=kind is None)
        finally:
            self._use(-1)

    async def _let_go(self, response: aiohttp.ClientResponse, *, is_read: bool) -> None:
        try:
            if is_read and not response.content.at_eof():
                await _end_of(response)
        finally:
            response.close()

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The body as it comes: its first piece within the first byte's time, others within a chunk gap."""
        response = self._response
        if response is None:
            raise BackendFailed("The answer was not opened.")
        patience = Patience(self._timeouts.first_byte_s, response.close)
        try:
            async for data in response.content.iter_any():
                # A reader that takes its time is no silence of the backend's.
                patience.hold()
                yield data
                patience.renew(self._timeouts.chunk_gap_s)
        except (aiohttp.ClientError, OSError, ValueError):
            if patience.is_over:
                raise BackendTimeout("The model backend stopped in the middle of its answer.") from None
            raise BackendFailed("The model backend broke off its answer.") from None
        finally:
            patience.end()
        if patience.is_over:
            raise BackendTimeout("The model backend stopped in the middle of its answer.")


async def _end_of(response: aiohttp.ClientResponse) -> None:
    """Wait for the end for a moment; what still comes is nothing that anybody reads."""
    with suppress(TimeoutError, aiohttp.ClientError, OSError, ValueError):
        async with asyncio.timeout(END_WAIT_S):
            async for _ in response.content.iter_any():
                pass
