"""A call by aiohttp: what is asked beside the callers' requests, and the relay where that is chosen."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import aiohttp

from gateway.backends.answers import END_WAIT_S, STOPPED, BackendTimeouts, HttpAnswer
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
        self._patience: Patience | None = None

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
            raise BackendFailed("The model backend sent an answer that this gateway does not read.")

    async def _end(self) -> None:
        if self._response is None or self._response.content.at_eof():
            return
        with suppress(TimeoutError, aiohttp.ClientError, OSError, ValueError):
            async with asyncio.timeout(END_WAIT_S):
                async for _ in self._response.content.iter_any():
                    pass

    def _let_go(self) -> None:
        # close, not release. One that was read to its end is already released, and its connection is back in
        # the pool.
        if self._patience is not None:
            self._patience.end()
        if self._response is not None:
            self._response.close()

    async def read(self) -> bytes:
        response = self._response
        if response is None:
            raise BackendFailed("The answer was not opened.")
        if self._patience is None:
            self._patience = Patience(self._timeouts.first_byte_s, response.close)
        else:
            self._patience.renew(self._timeouts.chunk_gap_s)
        patience = self._patience
        try:
            data = await response.content.readany()
        except (aiohttp.ClientError, OSError, ValueError):
            if patience.is_over:
                raise BackendTimeout(STOPPED) from None
            raise BackendFailed("The model backend broke off its answer.") from None
        finally:
            # A reader that takes its time is no silence of the backend's.
            patience.hold()
        if not data and patience.is_over:
            raise BackendTimeout(STOPPED)
        return data
