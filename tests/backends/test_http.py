"""One backend over HTTP: what it is sent, and what becomes of each way in which it can fail."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

import pytest
from attrs import evolve

from gateway.backends.answers import BackendTimeouts, HttpAnswer
from gateway.backends.http import HttpBackend
from gateway.config import BackendConfig
from gateway.demo.engine import Engine
from gateway.errors import BackendFailed, BackendTimeout, BackendUnreachable, GatewayError
from gateway.formats.chat import UpstreamRequest
from gateway.formats.profiles import PhaseTimeouts
from tests.doubles import (
    HEAD_OF_STREAM,
    Double,
    Script,
    answer,
    chat_frame,
    chat_stream,
    chunk,
    hang,
    raw,
    reset_after,
    zipped,
)

CHAT = UpstreamRequest("/api/chat", {"model": "double:latest", "stream": True})
PATIENT = BackendTimeouts(connect_s=3, first_byte_s=5, chunk_gap_s=5, answer_s=5)
HASTY = BackendTimeouts(connect_s=0.2, first_byte_s=0.1, chunk_gap_s=0.1, answer_s=0.1)


@pytest.fixture(autouse=True, params=["thin", "aiohttp"])
def by_either_client(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it over connections of our own, and by aiohttp."""
    backend = partial(HttpBackend, is_thin=request.param == "thin")
    monkeypatch.setattr(f"{__name__}.HttpBackend", backend)


@pytest.fixture
def double():
    with Double() as one:
        yield one


async def whole(got: HttpAnswer) -> bytes:
    return await got.body()


async def pushed(got: HttpAnswer, each_s: float = 0) -> bytes:
    """All of the body, with a break of so long behind every second piece."""
    pieces: list[bytes] = []

    def take(piece: bytes) -> bool:
        pieces.append(piece)
        return len(pieces) % 2 == 0

    goes_on = True
    while goes_on:
        goes_on = await got.push(take)
        await asyncio.sleep(each_s)
    return b"".join(pieces)


Read = Callable[[HttpAnswer], Awaitable[bytes]]


async def received_from(
    double: Double, timeouts: BackendTimeouts = PATIENT, url: str = "", read: Read = whole
) -> bytes:
    backend = HttpBackend(BackendConfig("b", url or double.url, credential="s3cret"), timeouts)
    await backend.open()
    try:
        async with backend.send(CHAT, request_id="r1") as got:
            return await read(got)
    finally:
        await backend.close()


async def test_a_request_has_our_headers_only(double: Double):
    """Nothing of the caller's head goes upstream: it is made from scratch."""
    double.scripts["/api/chat"] = answer(200, {})

    await received_from(double)

    (received,) = double.received
    assert (received.method, received.target, received.json()) == ("POST", "/api/chat", CHAT.body)
    assert set(received.headers) == {
        "host", "content-type", "content-length", "user-agent", "authorization", "x-request-id",
    }  # fmt: skip
    assert received.headers["authorization"] == "Bearer s3cret"


@pytest.mark.parametrize("read", [whole, pushed])
async def test_a_stream_comes_as_it_is(double: Double, read: Read):
    double.scripts["/api/chat"] = chat_stream(["a", "b"])

    assert (await received_from(double, read=read)).count(b"\n") == 3


async def test_streams_of_llama_cpp_can_follow_each_other_at_once(engine_greeting: Engine):
    """It closes the connection behind each, though it promises to keep it."""
    body = {"prompt": "Hello", "max_tokens": 3, "stream": True}
    backend = HttpBackend(BackendConfig("b", engine_greeting.url, kind="openai"), PATIENT)
    await backend.open()
    await backend.models()

    answers = []
    for _ in range(20):
        async with backend.send(UpstreamRequest("/v1/completions", body), request_id="r1") as got:
            answers.append(await got.body())
    await backend.close()

    assert all(answered.endswith(b"data: [DONE]\n\n") for answered in answers)


FAILURES: dict[str, tuple[Script, BackendTimeouts, type[GatewayError]]] = {
    "says nothing": (hang(), HASTY, BackendTimeout),
    "stops within its head": (hang(b"HTTP/1.1 200 OK\r\n"), HASTY, BackendTimeout),
    "stops before its first byte": (hang(HEAD_OF_STREAM), HASTY, BackendTimeout),
    "stops between two chunks": (hang(HEAD_OF_STREAM + chunk(chat_frame("a"))), HASTY, BackendTimeout),
    "closes at once": (raw(), PATIENT, BackendFailed),
    "resets at once": (reset_after(), PATIENT, BackendFailed),
    "resets in mid-stream": (reset_after(HEAD_OF_STREAM + chunk(chat_frame("a"))), PATIENT, BackendFailed),
    "closes without the last chunk": (raw(HEAD_OF_STREAM + chunk(chat_frame("a"))), PATIENT, BackendFailed),
    "promises more than it sends": (
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{}"),
        PATIENT,
        BackendFailed,
    ),
    "cuts a chunk": (raw(HEAD_OF_STREAM + b"ff\r\n{"), PATIENT, BackendFailed),
    "sends a bad chunk length": (raw(HEAD_OF_STREAM + b"zz\r\n{}\r\n"), PATIENT, BackendFailed),
    "speaks no HTTP": (raw(b"SSH-2.0-OpenSSH\r\n\r\n"), PATIENT, BackendFailed),
    "sends a head that is too large": (
        raw(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n"),
        PATIENT,
        BackendFailed,
    ),
    "redirects": (answer(307, {}, Location="http://127.0.0.1:1/api/pull"), PATIENT, BackendFailed),
    "compresses unasked": (zipped(b"{}"), PATIENT, BackendFailed),
}


@pytest.mark.parametrize("read", [whole, pushed])
@pytest.mark.parametrize(("script", "timeouts", "error"), FAILURES.values(), ids=FAILURES)
async def test_a_backend_that(
    double: Double, script: Script, timeouts: BackendTimeouts, error: type[GatewayError], read: Read
):
    """Every failure is one of two outcomes, told without a host, a port or a driver's words."""
    double.scripts["/api/chat"] = script

    with pytest.raises(error) as caught:
        await received_from(double, timeouts, read=read)

    assert "127.0.0.1" not in caught.value.sentence
    assert len(double.received) == 1, "nothing is sent twice"


async def test_a_model_may_have_timeouts_of_its_own(double: Double):
    """A large one takes long to load, on a backend whose others must not; what is not said stays."""
    double.scripts["/api/chat"] = raw(b"", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", gap_s=0.3)
    backend = HttpBackend(BackendConfig("b", double.url), HASTY)
    await backend.open()

    async with backend.send(CHAT, request_id="r1", timeouts=PhaseTimeouts(first_byte_s=30.0)) as got:
        body = await got.body()
    with pytest.raises(BackendTimeout):
        async with backend.send(CHAT, request_id="r1", timeouts=PhaseTimeouts(answer_s=30.0)) as got:
            await got.body()
    await backend.close()

    assert body == b"{}"


async def test_a_plain_answer_may_take_as_long_as_its_last_token(double: Double):
    """Its first byte comes when all is said, which may be long after a stream's would."""
    double.scripts["/api/chat"] = raw(b"", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", gap_s=0.3)
    backend = HttpBackend(BackendConfig("b", double.url), evolve(HASTY, answer_s=5))
    await backend.open()
    plain = UpstreamRequest("/api/chat", {"model": "double:latest", "stream": False})

    async with backend.send(plain, request_id="r1") as got:
        body = await got.body()
    with pytest.raises(BackendTimeout):
        async with backend.send(CHAT, request_id="r1") as got:
            await got.body()
    await backend.close()

    assert body == b"{}"


async def test_a_port_that_nobody_listens_on(double: Double):
    with pytest.raises(BackendFailed):
        await received_from(double, url="http://127.0.0.1:1")


async def test_a_name_that_does_not_resolve(double: Double):
    with pytest.raises(BackendFailed):
        await received_from(double, url="http://no-such-host.invalid")


async def test_a_reader_that_takes_its_time_is_no_silence_of_the_backend(double: Double):
    """The gap between chunks is judged while we wait for the backend, not while our caller reads slowly."""
    frames = [chunk(chat_frame(str(number) * 50_000)) for number in range(8)]
    double.scripts["/api/chat"] = raw(HEAD_OF_STREAM + b"".join(frames) + b"0\r\n\r\n")
    backend = HttpBackend(BackendConfig("b", double.url), evolve(PATIENT, chunk_gap_s=0.1))
    await backend.open()

    lines = 0
    async with backend.send(CHAT, request_id="r1") as got:
        while piece := await got.read():
            lines += piece.count(b"\n")
            await asyncio.sleep(0.2)
    async with backend.send(CHAT, request_id="r2") as got:
        body = await pushed(got, each_s=0.2)
    await backend.close()

    assert (lines, body.count(b"\n")) == (8, 8)


async def test_an_answer_left_behind_its_last_frame_keeps_its_connection(double: Double):
    """The last chunk comes a moment later; a connection made anew for each answer would cost more."""
    double.scripts["/api/chat"] = raw(HEAD_OF_STREAM + chunk(chat_frame(done=True)), b"0\r\n\r\n", gap_s=0.05)
    backend = HttpBackend(BackendConfig("b", double.url), PATIENT)
    await backend.open()

    async with backend.send(CHAT, request_id="r1") as got:
        await got.read()
    await backend.close()

    assert not double.closed_early.is_set()


async def test_a_connection_that_was_idle_for_long_is_not_used(monkeypatch: pytest.MonkeyPatch):
    """Servers close what was idle for some seconds: a request that comes at that moment would be lost."""
    monkeypatch.setattr("gateway.backends.http._KEEP_ALIVE_S", 0.05)
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while await reader.readuntil(b"}"):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    backend = HttpBackend(BackendConfig("b", f"http://127.0.0.1:{port}"), PATIENT)
    await backend.open()
    for _ in range(2):
        async with backend.send(CHAT, request_id="r1") as answered:
            await answered.body()
        await asyncio.sleep(0.1)
    await backend.close()
    server.close()

    assert connections == 2


async def test_a_kept_connection_that_breaks_under_a_request_is_told_and_nothing_sent_again():
    """G14: the server has read it, and may have acted on it, before it went."""
    received: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readuntil(b"}")
            received.append(1)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            await reader.readuntil(b"}")
            received.append(2)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    backend = HttpBackend(BackendConfig("b", f"http://127.0.0.1:{port}"), PATIENT)
    await backend.open()
    async with backend.send(CHAT, request_id="r1") as answered:
        await answered.body()

    with pytest.raises(BackendFailed) as caught:
        await backend.send(CHAT, request_id="r2").__aenter__()

    assert not isinstance(caught.value, BackendUnreachable), "it was sent: nobody else may be asked"
    assert received == [1, 2]
    await backend.close()
    server.close()


async def test_a_restart_between_two_requests_loses_none():
    """G14: the connection that it closed meanwhile is not used for the next one."""
    received = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal received
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readuntil(b"}")
            received += 1
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    backend = HttpBackend(BackendConfig("b", f"http://127.0.0.1:{port}"), PATIENT)
    await backend.open()
    for _ in range(3):
        async with backend.send(CHAT, request_id="r1") as answered:
            assert await answered.body() == b"{}"
        await asyncio.sleep(0.1)
    await backend.close()
    server.close()

    assert received == 3


async def test_leaving_an_answer_stops_the_backend(double: Double):
    """An answer that is not read to its end must not keep a GPU busy."""
    double.scripts["/api/chat"] = hang(HEAD_OF_STREAM + chunk(chat_frame("a")))
    backend = HttpBackend(BackendConfig("b", double.url), PATIENT)
    await backend.open()

    async with backend.send(CHAT, request_id="r1") as got:
        await got.read()

    assert await asyncio.to_thread(double.closed_early.wait, 2)
    await backend.close()


async def test_cookies_of_a_backend_are_not_kept(double: Double):
    """F4: what it sets in one tenant's answer must not come back with another's request."""
    double.scripts["/api/chat"] = answer(200, {}, **{"Set-Cookie": "session=a"})
    backend = HttpBackend(BackendConfig("b", double.url), PATIENT)
    await backend.open()

    for _ in range(2):
        async with backend.send(CHAT, request_id="r1") as got:
            await got.body()
    await backend.close()

    assert all("cookie" not in one.headers for one in double.received)


async def test_what_comes_unasked_is_nobody_s_answer():
    """A backend, or a proxy before it, that is one answer ahead must not give one tenant's to another."""
    asked, foreign = 0, asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while await reader.readuntil(b"}"):
                asked += 1
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % asked)
                await asyncio.sleep(0.02)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nFOREIGN")
                foreign.set()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    backend = HttpBackend(BackendConfig("b", f"http://127.0.0.1:{port}"), PATIENT)
    await backend.open()
    got = []
    for _ in range(3):
        async with backend.send(CHAT, request_id="r1") as answered:
            got.append(await answered.body())
        await foreign.wait()
        foreign.clear()
        # What is there by then is read first.
        await asyncio.sleep(0.01)
    await backend.close()
    server.close()

    assert got == [b"1", b"2", b"3"]


async def test_the_models_are_listed(double: Double):
    backend = HttpBackend(BackendConfig("b", double.url), PATIENT)
    await backend.open()

    (card,) = await backend.models()
    await backend.close()

    assert card.name == "double:latest"


@pytest.mark.parametrize(
    "script",
    [
        answer(500, {}),
        answer(200, b"<html>"),
        answer(200, []),
        raw(),
        answer(200, {"models": [{"name": f"m{number}"} for number in range(150_000)]}),
    ],
    ids=["500", "a page", "an array", "nothing", "more than 2 MiB"],
)
async def test_a_list_that_cannot_be_read_is_a_failed_backend(double: Double, script: Script):
    double.scripts["/api/tags"] = script
    backend = HttpBackend(BackendConfig("b", double.url), PATIENT)
    await backend.open()

    with pytest.raises(BackendFailed):
        await backend.models()
    await backend.close()
