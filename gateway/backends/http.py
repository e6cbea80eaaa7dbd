"""One backend over HTTP, by aiohttp: constant URLs, our own headers, nothing followed, nothing resent.

aiohttp's defaults that would be holes are off: redirects, cookies, proxies from the environment,
decompression, a total timeout that cuts long streams (security.md 1c).
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from functools import cached_property
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
import orjson
from attrs import evolve, frozen
from yarl import URL

from gateway.config import MIB, BackendConfig
from gateway.errors import BackendFailed, BackendTimeout, BackendUnreachable, ConnectTimeout
from gateway.formats.chat import UpstreamRequest
from gateway.formats.ollama.loaded import read_ps
from gateway.formats.ollama.models import read_tags
from gateway.formats.ollama.shown import read_shown, write_show
from gateway.formats.openai.models import props_path, read_loaded, read_models, read_props
from gateway.formats.profiles import PhaseTimeouts
from gateway.model import Engine, LoadedModel, ModelCard
from gateway.patience import Patience

# No answer of a model comes near: 32 MiB is a million tokens of JSON. A backend that sends more is broken.
_MAX_BODY_BYTES: Final = 32 * MIB
# Some 5,000 models. A mad list is read every few seconds, and all other callers wait while it is.
_MAX_LIST_BYTES: Final = 2 * MIB
# A million tokens, by number.
_MAX_TOLD_BYTES: Final = 8 * MIB
_LISTS: Final = {"ollama": ("/api/tags", read_tags), "openai": ("/v1/models", read_models)}
_LOADED: Final = {"ollama": ("/api/ps", read_ps), "openai": ("/v1/models", read_loaded)}
# What is asked beside the callers' requests: a list, or about one model.
_LIST_TIMEOUT_S: Final = 5.0
# Ollama writes its last chunk right behind its last frame.
_END_WAIT_S: Final = 0.25
# llama.cpp, and uvicorn, which serves vLLM, close a connection that nobody has used for 5 s. A request that
# meets the close is lost, and must not be sent again: so the connection is let go before.
_KEEP_ALIVE_S: Final = 3.0


@frozen
class BackendTimeouts:
    """Seconds for each phase of a call."""

    connect_s: float
    first_byte_s: float
    chunk_gap_s: float
    answer_s: float
    """A whole answer that is not streamed."""

    @cached_property
    def plain(self) -> Self:
        """Of what is not streamed: it has its first byte when the last token is there."""
        return evolve(self, first_byte_s=self.answer_s)

    def over(self, other: PhaseTimeouts) -> Self:
        """With what the other says in place of these."""
        return evolve(
            self,
            first_byte_s=other.first_byte_s or self.first_byte_s,
            chunk_gap_s=other.chunk_gap_s or self.chunk_gap_s,
            answer_s=other.answer_s or self.answer_s,
        )


class _Connector(aiohttp.TCPConnector):
    """aiohttp's, save that a connection on which something came unasked is never used again.

    aiohttp would take that for the answer to the next request: one tenant's for another's.
    """

    async def _get(self, key: Any, traces: Any) -> Any:
        while (kept := await super()._get(key, traces)) is not None:
            if kept.protocol is not None and not kept.protocol.should_close:
                return kept
            kept.close()
        return None


class HttpBackend:
    """A server of kind ollama or openai. Built closed: `open` inside the event loop, `close` at the end."""

    def __init__(self, config: BackendConfig, timeouts: BackendTimeouts) -> None:
        self.name = config.name
        self.kind = config.kind
        self._root = config.url
        self._timeouts = timeouts
        self._posted: dict[str, URL] = {}
        self._headers = {"Content-Type": "application/json", "User-Agent": "neuronetz-gateway"}
        if config.credential:
            self._headers["Authorization"] = f"Bearer {config.credential}"
        self._is_llama_cpp = False
        self._session: aiohttp.ClientSession | None = None
        self._in_use = 0
        self._is_idle = asyncio.Event()
        self._is_idle.set()

    async def open(self) -> None:
        """Also a second time: a reload may come before the start is over."""
        if self._session is not None:
            return
        self._session = aiohttp.ClientSession(
            connector=_Connector(limit=0, ttl_dns_cache=30, keepalive_timeout=_KEEP_ALIVE_S),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._timeouts.connect_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            skip_auto_headers=("Accept-Encoding", "Accept"),
            headers=self._headers,
        )

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def idle(self) -> None:
        """Return when nobody uses it: no answer is under way, and no visit lasts."""
        while self._in_use:
            # Whoever comes between the signal and this look at it is waited for as well.
            await self._is_idle.wait()

    def hold(self) -> None:
        self._use(1)

    def let_go(self) -> None:
        self._use(-1)

    def _use(self, uses: int) -> None:
        """So many more answers are under way or visits last, or fewer."""
        self._in_use += uses
        if self._in_use:
            self._is_idle.clear()
        else:
            self._is_idle.set()

    def send(
        self, request: UpstreamRequest, *, request_id: str, timeouts: PhaseTimeouts | None = None
    ) -> "HttpAnswer":
        body = orjson.dumps(request.body)
        is_stream = bool(request.body.get("stream"))
        within = self._timeouts if timeouts is None else self._timeouts.over(timeouts)
        within = within if is_stream else within.plain
        headers = {"X-Request-Id": request_id}
        if is_stream and self._is_llama_cpp:
            # It closes the connection behind a stream, though it promises to keep it: a request that came
            # on it before the close did would be lost (measured: every one that came at once).
            headers["Connection"] = "close"
        return HttpAnswer(self._post(request.path, body, headers), self._use, within)

    async def models(self) -> tuple[ModelCard, ...]:
        path, read = _LISTS[self.kind]
        cards = read(await self._told(self._get(path)))
        self._is_llama_cpp = any(card.engine is Engine.LLAMA_CPP for card in cards)
        return cards

    async def loaded(self) -> tuple[LoadedModel, ...]:
        path, read = _LOADED[self.kind]
        return read(await self._told(self._get(path)))

    async def completed(self, card: ModelCard) -> ModelCard:
        if self.kind == "ollama":
            request = write_show(card.name)
            return read_shown(await self._told(self._post(request.path, orjson.dumps(request.body))), card)
        if card.engine is Engine.LLAMA_CPP and card.context is None:
            return read_props(await self._told(self._get(props_path(card.name))), card)
        return card

    async def ask(self, request: UpstreamRequest, *, request_id: str, timeout_s: float) -> tuple[int, bytes]:
        call = self._post(request.path, orjson.dumps(request.body), {"X-Request-Id": request_id})
        return await self._asked(call, timeout_s, _MAX_TOLD_BYTES)

    async def _told(self, call: "Call") -> bytes:
        status, body = await self._asked(call, _LIST_TIMEOUT_S, _MAX_LIST_BYTES)
        if status != 200:
            raise BackendFailed("A model backend does not tell which models it has.")
        return body

    async def _asked(self, call: "Call", timeout_s: float, max_bytes: int) -> tuple[int, bytes]:
        """All of an answer, within this time."""
        timeouts = BackendTimeouts(self._timeouts.connect_s, timeout_s, timeout_s, timeout_s)
        try:
            async with asyncio.timeout(timeout_s), HttpAnswer(call, self._use, timeouts) as answer:
                return answer.status, await answer.body(max_bytes)
        except TimeoutError:
            raise BackendTimeout("The model backend did not answer in time.") from None

    def _post(self, path: str, body: bytes, headers: dict[str, str] | None = None) -> "Call":
        session, url = self._opened(), self._posted.get(path)
        if url is None:
            url = self._posted[path] = _url(self._root, path)
        return lambda: session.post(url, data=body, headers=headers, allow_redirects=False)

    def _get(self, path: str) -> "Call":
        session, url = self._opened(), _url(self._root, path)
        return lambda: session.get(url, allow_redirects=False)

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise BackendUnreachable("The connection to the model backend is closed.")
        return self._session


Call = Callable[[], Awaitable[aiohttp.ClientResponse]]


class HttpAnswer:
    """One call: `async with` sends it and waits for the head; leaving lets go, unread parts included.

    Whoever leaves without an error has read what it wanted: then the end of the answer gets a moment to
    come, so that the connection can be used again.
    """

    def __init__(self, call: Call, use: Callable[[int], None], timeouts: BackendTimeouts) -> None:
        self._call = call
        self._use = use
        self._timeouts = timeouts
        self._response: aiohttp.ClientResponse | None = None
        self.status = 0

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

    async def body(self, max_bytes: int = _MAX_BODY_BYTES) -> bytes:
        pieces: list[bytes] = []
        size = 0
        async with aclosing(self.chunks()) as chunks:
            async for piece in chunks:
                size += len(piece)
                if size > max_bytes:
                    raise BackendFailed("The model backend sent an answer that is too large.")
                pieces.append(piece)
        whole = b"".join(pieces)
        return whole if self.status == 200 else self._without_credential(whole)

    def _without_credential(self, body: bytes) -> bytes:
        """An error that repeats what it was sent may reach a caller, but not with our credential in it."""
        sent = self._response.request_info.headers.get("Authorization", "") if self._response else ""
        credential = sent.removeprefix("Bearer ").encode()
        return body.replace(credential, "…".encode()) if credential else body


def _url(root: str, path: str) -> URL:
    # `encoded`: the URL is sent as it stands here; yarl would rewrite it otherwise.
    return URL(root + path, encoded=True)


async def _end_of(response: aiohttp.ClientResponse) -> None:
    """Wait for the end for a moment; what still comes is nothing that anybody reads."""
    with suppress(TimeoutError, aiohttp.ClientError, OSError, ValueError):
        async with asyncio.timeout(_END_WAIT_S):
            async for _ in response.content.iter_any():
                pass
