"""The relay's own connections against servers that behave as none should, over real sockets."""

import asyncio
import contextlib
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvloop
from attrs import define, evolve, field

from gateway.backends.answers import BackendTimeouts
from gateway.backends.http import HttpBackend
from gateway.config import BackendConfig
from gateway.errors import BackendFailed, BackendTimeout, BackendUnreachable, ConnectTimeout
from gateway.formats.chat import UpstreamRequest

CHAT = UpstreamRequest("/api/chat", {"model": "m", "stream": True})
LONG_S = 30.0
PATIENT = BackendTimeouts(connect_s=LONG_S, first_byte_s=LONG_S, chunk_gap_s=LONG_S, answer_s=LONG_S)
HASTY = BackendTimeouts(connect_s=0.2, first_byte_s=0.1, chunk_gap_s=0.1, answer_s=0.1)
OK = b"HTTP/1.1 200 OK\r\n"
SHORT = OK + b"Content-Length: 2\r\n\r\n{}"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(params=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Callable[..., object] | None]]:
    """How a connection ends differs between them."""
    return "asyncio", {"loop_factory": uvloop.new_event_loop if request.param == "uvloop" else None}


@define
class Ends:
    """The server's end of one connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def request(self) -> bytes:
        """The body of the next one."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        (length,) = [line for line in head.split(b"\r\n") if line.startswith(b"Content-Length: ")]
        return await self.reader.readexactly(int(length.removeprefix(b"Content-Length: ")))

    async def say(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def until_closed(self) -> None:
        while await self.reader.read(65536):
            pass

    def reset(self) -> None:
        self.writer.get_extra_info("socket").setsockopt(1, 13, struct.pack("ii", 1, 0))  # SO_LINGER
        self.writer.transport.abort()


Session = Callable[[Ends], Awaitable[None]]


@define
class Server:
    """Each connection is served by the next session; by the last one again, when there are no more."""

    sessions: list[Session]
    connections: int = 0
    closed: asyncio.Event = field(factory=asyncio.Event)
    """A session has ended."""
    ended: int = 0
    _serving: set["asyncio.Task[None]"] = field(factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = self.sessions[min(self.connections, len(self.sessions) - 1)]
        self.connections += 1
        self._serving.add(asyncio.create_task(self._serve(session, Ends(reader, writer))))

    async def _serve(self, session: Session, ends: Ends) -> None:
        try:
            with contextlib.suppress(EOFError, OSError):
                await session(ends)
        finally:
            self.closed.set()
            self.ended += 1
            ends.writer.close()
            with contextlib.suppress(OSError):
                await ends.writer.wait_closed()

    async def stop(self) -> None:
        for serving in self._serving:
            serving.cancel()
        if self._serving:
            await asyncio.wait(self._serving)


@asynccontextmanager
async def backend_of(
    *sessions: Session,
    timeouts: BackendTimeouts = PATIENT,
    url: str = "http://127.0.0.1:{port}",
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[tuple[HttpBackend, Server]]:
    server = Server(list(sessions))
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=tls)
    port = listener.sockets[0].getsockname()[1]
    backend = HttpBackend(BackendConfig("b", url.format(port=port)), timeouts)
    await backend.open()
    try:
        yield backend, server
    finally:
        await backend.close()
        listener.close()
        await server.stop()


async def asked(backend: HttpBackend, request: UpstreamRequest = CHAT) -> bytes:
    async with asyncio.timeout(LONG_S), backend.send(request, request_id="r1") as answered:
        return await answered.body()


def answers(*answered: bytes) -> Session:
    """To each request the next of these; then wait for the other side to close."""

    async def session(ends: Ends) -> None:
        for answer in answered:
            await ends.request()
            await ends.say(answer)
        await ends.until_closed()

    return session


# ── connections that are used again ──────────────────────────────────────────────────────


async def test_one_connection_serves_many_requests():
    async with backend_of(answers(*[SHORT] * 50)) as (backend, server):
        assert {await asked(backend) for _ in range(50)} == {b"{}"}
        assert server.connections == 1


async def test_requests_at_the_same_time_have_connections_of_their_own():
    """HTTP/1.1 answers in order: one behind another would wait for it."""
    both = asyncio.Barrier(2)

    async def session(ends: Ends) -> None:
        await ends.request()
        await both.wait()
        await ends.say(SHORT)
        await ends.until_closed()

    async with backend_of(session) as (backend, server):
        assert set(await asyncio.gather(asked(backend), asked(backend))) == {b"{}"}
        assert server.connections == 2


@pytest.mark.parametrize("behind", [b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nFOREIGN", b"garbage", b"H"])
async def test_what_is_sent_behind_an_answer_reaches_nobody(behind: bytes):
    """One tenant's answer would be another's."""
    async with backend_of(answers(SHORT + behind), answers(SHORT)) as (backend, server):
        assert await asked(backend) == b"{}"
        assert await asked(backend) == b"{}"
        assert server.connections == 2


@pytest.mark.parametrize("is_torn", [True, False], ids=["RST", "FIN"])
async def test_a_server_that_closes_behind_each_answer_loses_no_request(is_torn: bool):
    """The close is in the socket when the next request comes, whether or not the loop has seen it."""
    requests = 0

    async def session(ends: Ends) -> None:
        nonlocal requests
        await ends.request()
        requests += 1
        await ends.say(SHORT)
        if is_torn:
            ends.reset()

    async with backend_of(session) as (backend, server):
        for _ in range(30):
            server.closed.clear()
            assert await asked(backend) == b"{}"
            await server.closed.wait()
            await asyncio.sleep(0.005)  # until it is on its way

    assert requests == 30


async def test_a_close_under_a_request_is_told_and_nothing_is_sent_again():
    """It was read, and may have been acted on."""
    requests = 0

    async def session(ends: Ends) -> None:
        nonlocal requests
        for _ in range(2):
            await ends.request()
            requests += 1
            if requests == 1:
                await ends.say(SHORT)

    async with backend_of(session) as (backend, _):
        assert await asked(backend) == b"{}"
        with pytest.raises(BackendFailed) as failed:
            await asked(backend)

    assert not isinstance(failed.value, BackendUnreachable)
    assert requests == 2


async def test_free_connections_are_closed_when_nobody_needs_them(monkeypatch: pytest.MonkeyPatch):
    """By itself: what was closed only at the next request would be open all night."""
    monkeypatch.setattr("gateway.backends.http._KEEP_ALIVE_S", 0.05)
    async with backend_of(answers(SHORT)) as (backend, server):
        assert await asked(backend) == b"{}"
        async with asyncio.timeout(LONG_S):
            await server.closed.wait()


async def test_each_free_connection_has_its_own_time(monkeypatch: pytest.MonkeyPatch):
    """One that was used again meanwhile is closed later than the others, but it is closed."""
    monkeypatch.setattr("gateway.backends.http._KEEP_ALIVE_S", 0.2)
    both = asyncio.Barrier(2)

    async def session(ends: Ends) -> None:
        await ends.request()
        await both.wait()
        await ends.say(SHORT)
        await ends.request()
        await ends.say(SHORT)
        await ends.until_closed()

    # The last one is for a machine so slow that both were closed by then.
    async with backend_of(session, session, answers(SHORT)) as (backend, server):
        await asyncio.gather(asked(backend), asked(backend))
        await asyncio.sleep(0.1)
        await asked(backend)
        async with asyncio.timeout(LONG_S):
            while server.ended < server.connections:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_only_so_many_free_connections_are_kept(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("gateway.backends.connections._MAX_FREE", 1)
    both = asyncio.Barrier(2)

    async def session(ends: Ends) -> None:
        await ends.request()
        await both.wait()
        await ends.say(SHORT)
        await ends.until_closed()

    async with backend_of(session) as (backend, server):
        await asyncio.gather(asked(backend), asked(backend))
        async with asyncio.timeout(LONG_S):
            await server.closed.wait()


# ── answers that are not what was hoped for ──────────────────────────────────────────────


async def test_an_answer_before_the_request_is_read_is_an_answer():
    """413 from a proxy that reads no more: it is told, and the connection is not used again."""

    async def session(ends: Ends) -> None:
        await ends.reader.readuntil(b"\r\n\r\n")
        await ends.say(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\n{}")
        await asyncio.sleep(LONG_S)

    large = UpstreamRequest("/api/chat", {"model": "m", "stream": True, "prompt": "x" * 20_000_000})
    async with backend_of(session, answers(SHORT)) as (backend, server):
        async with asyncio.timeout(LONG_S), backend.send(large, request_id="r1") as answered:
            assert (answered.status, await answered.body()) == (413, b"{}")
        assert await asked(backend) == b"{}"
        assert server.connections == 2


async def test_a_reset_in_the_body_fails_it_and_what_came_before_is_there():
    """Its caller pays for what was produced."""

    async def session(ends: Ends) -> None:
        await ends.request()
        await ends.say(CHUNKED + b"2\r\nab\r\n")
        await asyncio.sleep(0.05)
        ends.reset()

    came = b""

    async def read(backend: HttpBackend) -> None:
        nonlocal came
        async with backend.send(CHAT, request_id="r1") as answered:
            while piece := await answered.read():
                came += piece

    async with backend_of(session) as (backend, _):
        with pytest.raises(BackendFailed):
            await read(backend)

    assert came == b"ab"


async def test_interim_answers_without_an_end_are_no_answer():
    """Each comes in time; together they would hold a request for ever."""

    async def session(ends: Ends) -> None:
        await ends.request()
        while True:
            await ends.say(b"HTTP/1.1 103 Early Hints\r\n\r\n")
            await asyncio.sleep(0.01)

    async with backend_of(session) as (backend, _):
        with pytest.raises(BackendFailed):
            await asked(backend)


async def test_a_head_that_drips_is_not_waited_for():
    """A byte is no sign of life before the first of the answer."""

    async def session(ends: Ends) -> None:
        await ends.request()
        await ends.say(OK)
        while True:
            await ends.say(b"X: y\r\n"[:1])
            await asyncio.sleep(0.01)

    async with backend_of(session, timeouts=HASTY) as (backend, _):
        with pytest.raises(BackendTimeout):
            await asked(backend)


async def test_bytes_that_bring_nothing_keep_no_answer_alive():
    """The size of a chunk, a byte at a time: a reader waits for frames."""

    async def session(ends: Ends) -> None:
        await ends.request()
        await ends.say(CHUNKED + b"2\r\nab\r\n1;")
        while True:
            await ends.say(b"x")
            await asyncio.sleep(0.01)

    async with backend_of(session, timeouts=HASTY) as (backend, _):
        with pytest.raises(BackendTimeout):
            await asked(backend)


async def test_a_large_answer_is_whole():
    """Through every bound on the way."""
    body = bytes(range(256)) * 40_000
    async with backend_of(answers(OK + b"Content-Length: %d\r\n\r\n" % len(body) + body)) as (backend, _):
        assert await asked(backend) == body


async def test_an_answer_without_a_length_ends_with_its_connection():
    async def session(ends: Ends) -> None:
        await ends.request()
        await ends.say(OK + b"\r\nabc")

    async with backend_of(session) as (backend, _):
        assert await asked(backend) == b"abc"


# ── leaving ──────────────────────────────────────────────────────────────────────────────


async def test_a_caller_that_is_cancelled_before_the_head_closes_the_connection():
    """The model would go on reading its prompt."""
    came = asyncio.Event()

    async def session(ends: Ends) -> None:
        await ends.request()
        came.set()
        await ends.until_closed()

    async with backend_of(session) as (backend, server):
        asking = asyncio.create_task(asked(backend))
        await came.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        async with asyncio.timeout(LONG_S):
            await server.closed.wait()
            await backend.idle()


async def test_pieces_are_pushed_without_waking_who_waits():
    """To wake a request for each token would cost more than the token; what fails is told to who waits."""
    taken = asyncio.Event()

    async def session(ends: Ends) -> None:
        await ends.request()
        for piece in (CHUNKED, b"1\r\na\r\n", b"1\r\nb\r\n", b"1\r\nc\r\n"):
            await ends.say(piece)
            await taken.wait()
            taken.clear()

    pieces: list[bytes] = []

    def take(piece: bytes) -> bool:
        assert asyncio.current_task() is None
        pieces.append(piece)
        taken.set()
        if piece == b"c":
            raise ZeroDivisionError
        return piece != b"b"

    async with backend_of(session) as (backend, _), backend.send(CHAT, request_id="r1") as answered:
        taken.set()
        async with asyncio.timeout(LONG_S):
            assert await answered.push(take), "the next piece is to wait"
            assert pieces == [b"a", b"b"]
            with pytest.raises(ZeroDivisionError):
                await answered.push(take)


@pytest.mark.parametrize("is_pushed", [False, True])
async def test_a_slow_reader_stops_the_server(is_pushed: bool):
    """Nothing piles up here: what the caller does not take stays with the backend."""
    said = 0

    async def session(ends: Ends) -> None:
        nonlocal said
        await ends.request()
        await ends.say(CHUNKED)
        for _ in range(2_000):
            await ends.say(b"8000\r\n" + bytes(0x8000) + b"\r\n")
            said += 1
        await ends.say(b"0\r\n\r\n")
        await ends.until_closed()

    async with (
        backend_of(session) as (backend, _),
        backend.send(CHAT, request_id="r1") as answered,
    ):
        size = 0

        def take(piece: bytes) -> bool:
            nonlocal size
            size += len(piece)
            return False

        async def more() -> bool:
            return await answered.push(take) if is_pushed else take(await answered.read()) or size < whole

        whole = 2_000 * 0x8000
        await more()
        before = -1
        while before != said:  # until it can say no more
            before = said
            await asyncio.sleep(0.1)
        assert said < 1_900
        while await more():
            pass

    assert size == whole


async def test_a_backend_that_is_closed_answers_nobody():
    async with backend_of(answers(SHORT)) as (backend, server):
        await backend.close()
        with pytest.raises(BackendUnreachable):
            await asked(backend)
        assert server.connections == 0


async def test_closing_ends_what_is_under_way():
    came = asyncio.Event()

    async def session(ends: Ends) -> None:
        await ends.request()
        came.set()
        await ends.until_closed()

    async with backend_of(session) as (backend, _):
        asking = asyncio.create_task(asked(backend))
        await came.wait()
        await backend.close()
        with pytest.raises(BackendFailed):
            await asking


async def test_what_was_connecting_at_the_close_is_not_kept():
    """Nobody would close it any more."""
    async with backend_of(answers(SHORT)) as (backend, server):
        answering = backend.send(CHAT, request_id="r1")
        await backend.close()
        async with asyncio.timeout(LONG_S):
            async with answering as answered:
                assert await answered.body() == b"{}"
            await server.closed.wait()


# ── connecting ───────────────────────────────────────────────────────────────────────────


async def test_a_host_that_does_not_accept_is_not_waited_for(monkeypatch: pytest.MonkeyPatch):
    """It was not sent: another backend may be asked."""

    async def never(*_: object, **__: object) -> None:
        await asyncio.sleep(LONG_S)

    monkeypatch.setattr("gateway.backends.connections.aiohappyeyeballs.start_connection", never)
    async with backend_of(answers(SHORT), timeouts=evolve(PATIENT, connect_s=0.05)) as (backend, _):
        with pytest.raises(ConnectTimeout):
            await asked(backend)


async def test_a_name_with_two_addresses_is_reached_by_either():
    """`localhost` is ::1 first on many machines, where nobody listens."""
    async with backend_of(answers(SHORT, SHORT), url="http://localhost:{port}") as (backend, _):
        assert await asked(backend) == b"{}"


async def test_a_request_id_that_would_be_two_headers_is_not_sent():
    async with backend_of(answers(SHORT)) as (backend, server):
        with pytest.raises(ValueError, match="printable"):
            backend.send(CHAT, request_id="r1\r\nX-Evil: 1")
        assert server.connections == 0


@pytest.fixture
def server_tls(certificates: dict[str, Path]) -> ssl.SSLContext:
    """For localhost, by an authority of the tests."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates["server"], certificates["server"].with_suffix(".key"))
    return context


async def test_tls_to_who_is_trusted(
    server_tls: ssl.SSLContext, certificates: dict[str, Path], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates["server"]))
    served = answers(SHORT, CHUNKED + b"2\r\n{}\r\n0\r\n\r\n", SHORT)
    async with backend_of(served, url="https://localhost:{port}", tls=server_tls) as (backend, server):
        assert [await asked(backend) for _ in range(3)] == [b"{}"] * 3
        assert server.connections == 1


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"], ids=["no-authority", "another-name"])
async def test_who_is_not_who_was_meant_is_sent_nothing(
    server_tls: ssl.SSLContext, certificates: dict[str, Path], monkeypatch: pytest.MonkeyPatch, host: str
):
    """Neither the chain nor the name is taken on trust."""
    if host == "127.0.0.1":
        monkeypatch.setenv("SSL_CERT_FILE", str(certificates["server"]))
    heard = b""

    async def session(ends: Ends) -> None:
        nonlocal heard
        heard += await ends.reader.read(1)

    url = f"https://{host}:{{port}}"
    async with backend_of(session, url=url, tls=server_tls) as (backend, _):
        with pytest.raises(BackendUnreachable):
            await asked(backend)

    assert heard == b""
