"""One backend over HTTP: constant URLs, our own headers, nothing followed, nothing resent.

Callers' requests go over connections of our own, or by aiohttp; what is asked beside them goes by aiohttp,
whose defaults that would be holes are off: redirects, cookies, proxies from the environment, decompression,
a total timeout that cuts long streams (security.md 1c).
"""

import asyncio
import ssl
from typing import Final

import aiohttp
import orjson
from yarl import URL

from gateway.backends.aiohttp_answer import AiohttpAnswer, Call, Connector
from gateway.backends.answers import BackendTimeouts, HttpAnswer
from gateway.backends.connections import Connections
from gateway.backends.thin import ThinAnswer
from gateway.config import MIB, BackendConfig
from gateway.errors import BackendFailed, BackendTimeout, BackendUnreachable
from gateway.formats.chat import UpstreamRequest
from gateway.formats.ollama.loaded import read_ps
from gateway.formats.ollama.models import read_tags
from gateway.formats.ollama.shown import read_shown, write_show
from gateway.formats.openai.models import props_path, read_loaded, read_models, read_props
from gateway.formats.profiles import PhaseTimeouts
from gateway.model import Engine, LoadedModel, ModelCard

# Some 5,000 models. A mad list is read every few seconds, and all other callers wait while it is.
_MAX_LIST_BYTES: Final = 2 * MIB
# A million tokens, by number.
_MAX_TOLD_BYTES: Final = 8 * MIB
_LISTS: Final = {"ollama": ("/api/tags", read_tags), "openai": ("/v1/models", read_models)}
_LOADED: Final = {"ollama": ("/api/ps", read_ps), "openai": ("/v1/models", read_loaded)}
_CLOSED: Final = "The connection to the model backend is closed."
# What is asked beside the callers' requests: a list, or about one model.
_LIST_TIMEOUT_S: Final = 5.0
# llama.cpp, and uvicorn, which serves vLLM, close a connection that nobody has used for 5 s. A request that
# meets the close is lost, and must not be sent again: so the connection is let go before.
_KEEP_ALIVE_S: Final = 3.0


class HttpBackend:
    """A server of kind ollama or openai. Built closed: `open` inside the event loop, `close` at the end."""

    def __init__(self, config: BackendConfig, timeouts: BackendTimeouts, *, is_thin: bool = True) -> None:
        """`is_thin`: requests go over connections of our own."""
        self.name = config.name
        self.kind = config.kind
        self._root = config.url
        self._timeouts = timeouts
        self._posted: dict[str, URL] = {}
        self._is_thin = is_thin
        self._connections: Connections | None = None
        # By path, all of a request's head that is always the same.
        self._heads: dict[str, bytes] = {}
        self._credential = config.credential
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
            connector=Connector(limit=0, ttl_dns_cache=30, keepalive_timeout=_KEEP_ALIVE_S),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._timeouts.connect_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            skip_auto_headers=("Accept-Encoding", "Accept"),
            headers=self._headers,
        )
        if self._is_thin:
            self._connections = _connections(URL(self._root))

    async def close(self) -> None:
        if self._connections is not None:
            self._connections.close()
            self._connections = None
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
        was_idle = not self._in_use
        self._in_use += uses
        if was_idle:
            self._is_idle.clear()
        elif not self._in_use:
            self._is_idle.set()

    def send(
        self, request: UpstreamRequest, *, request_id: str, timeouts: PhaseTimeouts | None = None
    ) -> HttpAnswer:
        body = orjson.dumps(request.body)
        is_stream = bool(request.body.get("stream"))
        within = self._timeouts if timeouts is None else self._timeouts.over(timeouts)
        within = within if is_stream else within.plain
        # llama.cpp closes the connection behind a stream, though it promises to keep it: a request that came
        # on it before the close did would be lost (measured: every one that came at once).
        is_last = is_stream and self._is_llama_cpp
        if self._is_thin:
            return self._thin(request.path, body, request_id, within, is_last=is_last)
        headers = {"X-Request-Id": request_id}
        if is_last:
            headers["Connection"] = "close"
        return self._answer(self._post(request.path, body, headers), within)

    def _thin(
        self, path: str, body: bytes, request_id: str, within: BackendTimeouts, *, is_last: bool
    ) -> ThinAnswer:
        if self._connections is None:
            raise BackendUnreachable(_CLOSED)
        head = b"%bX-Request-Id: %b\r\nContent-Length: %d\r\n%b\r\n" % (
            self._heads.get(path) or self._head(path),
            _header_value(request_id),
            len(body),
            b"Connection: close\r\n" if is_last else b"",
        )
        return ThinAnswer(self._connections, (head, body), self._use, within, self._credential)

    def _head(self, path: str) -> bytes:
        url = _url(self._root, path)
        lines = [f"POST {url.raw_path_qs} HTTP/1.1", f"Host: {url.host_port_subcomponent}"]
        lines += [f"{name}: {_header_value(value).decode()}" for name, value in self._headers.items()]
        head = self._heads[path] = "".join(f"{line}\r\n" for line in lines).encode("ascii")
        return head

    def _answer(self, call: Call, timeouts: BackendTimeouts) -> AiohttpAnswer:
        return AiohttpAnswer(call, self._use, timeouts, self._credential)

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

    async def _told(self, call: Call) -> bytes:
        status, body = await self._asked(call, _LIST_TIMEOUT_S, _MAX_LIST_BYTES)
        if status != 200:
            raise BackendFailed("A model backend does not tell which models it has.")
        return body

    async def _asked(self, call: Call, timeout_s: float, max_bytes: int) -> tuple[int, bytes]:
        """All of an answer, within this time."""
        timeouts = BackendTimeouts(self._timeouts.connect_s, timeout_s, timeout_s, timeout_s)
        try:
            async with asyncio.timeout(timeout_s), self._answer(call, timeouts) as answer:
                return answer.status, await answer.body(max_bytes)
        except TimeoutError:
            raise BackendTimeout("The model backend did not answer in time.") from None

    def _post(self, path: str, body: bytes, headers: dict[str, str] | None = None) -> Call:
        session, url = self._opened(), self._posted.get(path)
        if url is None:
            url = self._posted[path] = _url(self._root, path)
        return lambda: session.post(url, data=body, headers=headers, allow_redirects=False)

    def _get(self, path: str) -> Call:
        session, url = self._opened(), _url(self._root, path)
        return lambda: session.get(url, allow_redirects=False)

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise BackendUnreachable(_CLOSED)
        return self._session


def _url(root: str, path: str) -> URL:
    # `encoded`: the URL is sent as it stands here; yarl would rewrite it otherwise.
    return URL(root + path, encoded=True)


def _connections(url: URL) -> Connections:
    tls = ssl.create_default_context() if url.scheme == "https" else None
    return Connections(url.raw_host or "", url.port or 0, tls, keep_alive_s=_KEEP_ALIVE_S)


def _header_value(value: str) -> bytes:
    """Raises ValueError for what would not be one value."""
    if not value.isascii() or not value.isprintable():
        raise ValueError("a header's value has to be printable ASCII")
    return value.encode()
