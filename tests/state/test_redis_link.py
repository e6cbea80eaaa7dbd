"""The link to Redis against a server that says anything: a byte at a time, too much, too little, nothing."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import hiredis
import pytest
import uvloop
from attrs import define, field

from gateway.redis_address import redis_address
from gateway.state import redis_link
from gateway.state.redis_link import ErrorReply, LinkFull, RedisLink, Reply
from gateway.state.redis_scripts import Script

LONG_S = 30.0
SCRIPT = Script(b"return ARGV[1]")
TAKEN = b"*2\r\n$5\r\ntaken\r\n:1\r\n"
Session = Callable[["Ends"], Awaitable[None]]


@pytest.fixture(params=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Callable[..., object] | None]]:
    return "asyncio", {"loop_factory": uvloop.new_event_loop if request.param == "uvloop" else None}


@define
class Ends:
    """The server's end of one connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    _commands: hiredis.Reader = field(factory=hiredis.Reader)

    async def command(self) -> list[bytes]:
        while (command := self._commands.gets()) is False:
            data = await self.reader.read(65536)
            if not data:
                raise EOFError
            self._commands.feed(data)
        return list(command)

    async def say(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def say_byte_by_byte(self, data: bytes) -> None:
        for number in range(len(data)):
            await self.say(data[number : number + 1])
            await asyncio.sleep(0)

    async def pong(self) -> None:
        """Answer what a link without a password says first."""
        assert await self.command() == [b"PING"]
        await self.say(b"+PONG\r\n")

    async def until_closed(self) -> None:
        while await self.reader.read(65536):
            pass


@define
class Server:
    """Each connection is served by the next session; by the last one again, when there are no more."""

    sessions: list[Session]
    connections: int = 0
    _serving: set["asyncio.Task[None]"] = field(factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = self.sessions[min(self.connections, len(self.sessions) - 1)]
        self.connections += 1
        serving = asyncio.create_task(self._serve(session, reader, writer))
        self._serving.add(serving)

    async def _serve(
        self, session: Session, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            with contextlib.suppress(EOFError, OSError):
                await session(Ends(reader, writer))
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def stop(self) -> None:
        """Raises what a session asserted."""
        for serving in self._serving:
            serving.cancel()
        if self._serving:
            await asyncio.wait(self._serving)
        for serving in self._serving:
            if not serving.cancelled():
                serving.result()


@asynccontextmanager
async def link_to(
    *sessions: Session, url: str = "redis://127.0.0.1:{port}", timeout_s: float = LONG_S
) -> AsyncIterator[tuple[RedisLink, Server]]:
    server = Server(list(sessions))
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    link = RedisLink(redis_address(url.format(port=port)), None, timeout_s=timeout_s)
    try:
        yield link, server
    finally:
        link.close()
        listener.close()
        await server.stop()


async def is_over_within(reply: Reply, seconds: float) -> bool:
    await reply.ended_within(seconds)
    return reply.is_over


def ask(link: RedisLink, word: str = "hello") -> Reply:
    return link.run(SCRIPT, ["{t:acme}:sums"], [word])


async def answer(reply: Reply) -> object:
    """Its value; raises its error."""
    async with asyncio.timeout(LONG_S):
        await reply.ended()
    if reply.error is not None:
        raise reply.error
    return reply.value


def says(data: bytes) -> Session:
    """Answer every command so."""

    async def session(ends: Ends) -> None:
        await ends.pong()
        while await ends.command():
            await ends.say(data)

    return session


async def says_nothing(ends: Ends) -> None:
    await ends.until_closed()


# ── answers in any cut ───────────────────────────────────────────────────────────────────


async def test_answers_that_come_byte_by_byte():
    """Each is the answer to what was asked in its place."""

    async def session(ends: Ends) -> None:
        await ends.pong()
        for _ in range(3):
            await ends.command()
        await ends.say_byte_by_byte(b"*3\r\n$5\r\ntaken\r\n:12\r\n*1\r\n:-1\r\n:7\r\n$-1\r\n")
        await ends.until_closed()

    async with link_to(session) as (link, _):
        replies = [ask(link) for _ in range(3)]

        assert [await answer(reply) for reply in replies] == [[b"taken", 12, [-1]], 7, None]


async def test_answers_that_come_together():
    async def session(ends: Ends) -> None:
        await ends.pong()
        for _ in range(100):
            await ends.command()
        await ends.say(b"".join(b":%d\r\n" % number for number in range(100)))
        await ends.until_closed()

    async with link_to(session) as (link, _):
        replies = [ask(link) for _ in range(100)]

        assert [await answer(reply) for reply in replies] == list(range(100))


@define
class Noting:
    """A transport that remembers what was written."""

    transport: asyncio.Transport
    writes: list[bytes] = field(factory=list)

    def write(self, data: bytes) -> None:
        self.writes.append(data)
        self.transport.write(data)

    def abort(self) -> None:
        self.transport.abort()


async def test_what_is_asked_in_one_turn_goes_out_in_one_write(monkeypatch: pytest.MonkeyPatch):
    """However many ask: a write costs more than a command."""
    async with link_to(says(b":1\r\n")) as (link, _):
        await link.open()
        connection = link._connection
        assert connection is not None
        assert connection._transport is not None
        noting = Noting(connection._transport)
        monkeypatch.setattr(connection, "_transport", noting)

        await asyncio.gather(*(answer(ask(link, str(number))) for number in range(50)))

    assert len(noting.writes) == 1
    assert noting.writes[0].count(b"EVALSHA") == 50


async def test_a_push_is_no_answer():
    """It has a type of its own, and nobody asked for it."""
    async with link_to(says(b">2\r\n$10\r\ninvalidate\r\n*0\r\n:5\r\n")) as (link, _):
        assert await answer(ask(link)) == 5
        assert await answer(ask(link)) == 5


# ── errors ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "words",
    [
        "LOADING Redis is loading the dataset in memory",
        "READONLY You can't write against a read only replica.",
        "MOVED 3999 127.0.0.1:6381",
        "NOPERM User gateway has no permissions to run the 'evalsha' command",
        "BUSY Redis is busy running a script.",
        "OOM command not allowed when used memory > 'maxmemory'.",
        "ERR max number of clients reached",
    ],
    ids=lambda words: words.split()[0],
)
async def test_an_error_is_of_its_command_alone(words: str):
    """The connection goes on; who asked is told that it was refused."""

    async def session(ends: Ends) -> None:
        await ends.pong()
        await ends.command()
        await ends.command()
        await ends.say(f"-{words}\r\n:2\r\n".encode())
        await ends.until_closed()

    async with link_to(session) as (link, server):
        refused, served = ask(link), ask(link)

        with pytest.raises(ErrorReply, match=words.split(maxsplit=1)[0]):
            await answer(refused)
        assert await answer(served) == 2
        assert server.connections == 1


async def test_a_script_that_is_not_known_is_sent_in_full():
    """Once; and other answers are not moved by it."""
    seen: list[list[bytes]] = []

    async def session(ends: Ends) -> None:
        await ends.pong()
        seen.append(await ends.command())
        seen.append(await ends.command())
        await ends.say(b"-NOSCRIPT No matching script. Please use EVAL.\r\n:2\r\n")
        seen.append(await ends.command())
        await ends.say(b"-NOSCRIPT still not\r\n")
        await ends.until_closed()

    async with link_to(session) as (link, _):
        first, second = ask(link, "one"), ask(link, "two")

        assert await answer(second) == 2
        with pytest.raises(ErrorReply, match="still not"):
            await answer(first)

    rest = [b"1", b"{t:acme}:sums"]
    assert seen == [
        [b"EVALSHA", SCRIPT.sha.encode(), *rest, b"one"],
        [b"EVALSHA", SCRIPT.sha.encode(), *rest, b"two"],
        [b"EVAL", SCRIPT.text, *rest, b"one"],
    ]


# ── connections that end ─────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("is_torn", [True, False], ids=["RST", "FIN"])
@pytest.mark.parametrize("sent", range(0, len(TAKEN), 4))
async def test_a_connection_cut_in_an_answer_fails_what_is_in_flight_and_no_more(sent: int, is_torn: bool):
    """What is asked later has a new connection. Nothing is sent twice."""
    asked: list[bytes] = []
    first_came = asyncio.Event()

    async def cut(ends: Ends) -> None:
        await ends.pong()
        asked.extend([(await ends.command())[-1] for _ in range(3)])
        await ends.say(b":1\r\n" + TAKEN[:sent])
        if is_torn:
            await first_came.wait()  # a reset would overtake it
            ends.writer.transport.abort()

    async def whole(ends: Ends) -> None:
        await ends.pong()
        asked.append((await ends.command())[-1])
        await ends.say(TAKEN)
        await ends.until_closed()

    async with link_to(cut, whole) as (link, _):
        answered, cut_short, unread = ask(link, "a"), ask(link, "b"), ask(link, "c")

        assert await answer(answered) == 1
        first_came.set()
        for reply in (cut_short, unread):
            with pytest.raises(ConnectionResetError):
                await answer(reply)
        assert await answer(ask(link, "d")) == [b"taken", 1]

    assert asked == [b"a", b"b", b"c", b"d"]


@pytest.mark.parametrize(
    "said",
    [b"?what\r\n", b":1\r\n:2\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"*3\r\n:1\r\n?x\r\n", b":x1\r\n"],
    ids=["no-type", "an-answer-to-nothing", "another-protocol", "nested", "no-number"],
)
async def test_what_is_no_redis_is_left(said: bytes):
    """Rather than giving one caller what was said to another: the connection is made anew."""
    async with link_to(says(said), says(b":7\r\n")) as (link, server):
        first = ask(link)
        async with asyncio.timeout(LONG_S):
            await first.ended()
            while link._connection is not None:  # noqa: ASYNC110
                await asyncio.sleep(0.001)

        assert first.value == 1 or isinstance(first.error, hiredis.ProtocolError)
        assert await answer(ask(link)) == 7
        assert server.connections == 2


async def test_an_answer_without_an_end_is_left(monkeypatch: pytest.MonkeyPatch):
    """It would fill the memory."""
    monkeypatch.setattr(redis_link, "_MAX_ANSWER_BYTES", 100_000)

    async def session(ends: Ends) -> None:
        await ends.pong()
        await ends.command()
        await ends.say(b"$400000000\r\n" + bytes(200_000))
        await ends.until_closed()

    async with link_to(session) as (link, _):
        with pytest.raises(hiredis.ProtocolError, match="without an end"):
            await answer(ask(link))


async def test_one_that_closes_whatever_it_is_asked_is_not_asked_without_end():
    """Each who asks has one try."""

    async def session(ends: Ends) -> None:
        await ends.command()

    async with link_to(session) as (link, server):
        for _ in range(5):
            with pytest.raises(ConnectionResetError):
                await answer(ask(link))
        await asyncio.sleep(0.05)

        assert server.connections == 5


async def test_nobody_listens():
    link = RedisLink(redis_address("redis://127.0.0.1:1"), None, timeout_s=LONG_S)
    with pytest.raises(ConnectionRefusedError):
        await link.open()
    link.close()


async def test_one_that_accepts_and_says_nothing_is_left_in_time():
    async with link_to(says_nothing, timeout_s=0.05) as (link, _):
        with pytest.raises(TimeoutError):
            await link.open()
        with pytest.raises(TimeoutError):
            await answer(ask(link))


async def test_what_is_closed_says_so():
    """To those who wait, at once; and to whoever asks later."""
    async with link_to(says_nothing) as (link, _):
        waiting = ask(link)
        link.close()
        with pytest.raises(ConnectionAbortedError):
            await answer(waiting)
        with pytest.raises(ConnectionAbortedError):
            ask(link)

    async def opens(ends: Ends) -> None:
        await ends.pong()
        await ends.pong()
        await ends.until_closed()

    async with link_to(opens) as (link, _):
        await link.open()
        sent = ask(link)
        link.close()
        with pytest.raises(ConnectionAbortedError):
            await answer(sent)


# ── patience ─────────────────────────────────────────────────────────────────────────────


async def test_an_answer_that_comes_too_late_is_read_and_given_to_nobody():
    """The next one gets its own."""
    release = asyncio.Event()

    async def session(ends: Ends) -> None:
        await ends.pong()
        await ends.command()
        await release.wait()
        await ends.say(b":1\r\n")
        await ends.command()
        await ends.say(b":2\r\n")
        await ends.until_closed()

    async with link_to(session) as (link, _):
        late = ask(link)
        assert not await is_over_within(late, 0.02)
        second = ask(link)
        release.set()

        assert await is_over_within(second, LONG_S)
        assert (late.value, second.value) == (1, 2)


async def test_a_caller_that_leaves_moves_no_answers():
    async with link_to(says(b":1\r\n")) as (link, _):
        await link.open()
        leaving = asyncio.create_task(is_over_within(ask(link), LONG_S))
        await asyncio.sleep(0)
        staying = ask(link)
        leaving.cancel()

        assert await is_over_within(staying, LONG_S)
        with pytest.raises(asyncio.CancelledError):
            await leaving


async def test_too_much_that_is_not_answered_is_refused(monkeypatch: pytest.MonkeyPatch):
    """Connected or not: it would only be too late, and memory."""
    monkeypatch.setattr(redis_link, "_MAX_ASKED", 10)

    async def session(ends: Ends) -> None:
        await ends.pong()
        await ends.until_closed()

    async with link_to(session) as (link, _):
        for _ in range(10):
            ask(link)
        with pytest.raises(LinkFull):
            ask(link)

    async with link_to(session) as (link, _):
        connecting = asyncio.create_task(link._made())
        link._connection = await connecting
        for _ in range(10):
            ask(link)
        with pytest.raises(LinkFull):
            ask(link)


async def test_a_server_that_does_not_read_stalls_nobody_else():
    """What can't be written waits here, and goes out when it reads again."""
    release = asyncio.Event()

    async def session(ends: Ends) -> None:
        await ends.pong()
        await release.wait()
        for _ in range(100):
            await ends.command()
        await ends.say(b":1\r\n" * 100)
        await ends.until_closed()

    async with link_to(session) as (link, _):
        connection = link._connection = await link._made()
        replies = []
        for _ in range(100):
            replies.append(ask(link, "x" * 200_000))
            await asyncio.sleep(0)
        assert connection._is_paused
        release.set()

        assert [await answer(reply) for reply in replies] == [1] * 100


# ── who asks ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://:secret@127.0.0.1:{port}", [[b"AUTH", b"secret"]]),
        ("redis://me:secret@127.0.0.1:{port}/3", [[b"AUTH", b"me", b"secret"], [b"SELECT", b"3"]]),
        ("redis://127.0.0.1:{port}/3", [[b"SELECT", b"3"]]),
        ("redis://127.0.0.1:{port}", [[b"PING"]]),
    ],
    ids=["password", "user-and-database", "database", "nobody"],
)
async def test_who_asks_is_said_before_anything_else(url: str, said: list[list[bytes]]):
    """Where that is refused, nothing is asked; each who waits is told."""
    seen: list[list[bytes]] = []

    async def refuses(ends: Ends) -> None:
        for _ in said:
            seen.append(await ends.command())
            await ends.say(b"+OK\r\n" if len(seen) < len(said) else b"-WRONGPASS no\r\n")
        with contextlib.suppress(EOFError):
            seen.append(await ends.command())

    async def welcomes(ends: Ends) -> None:
        for _ in said:
            await ends.command()
            await ends.say(b"+OK\r\n")
        await ends.command()
        await ends.say(b":1\r\n")
        await ends.until_closed()

    async with link_to(refuses, welcomes, url=url) as (link, _):
        for reply in (ask(link), ask(link)):
            with pytest.raises(ErrorReply, match="WRONGPASS"):
                await answer(reply)
        assert await answer(ask(link)) == 1

    assert seen == said


async def test_a_certificate_that_nobody_trusts_ends_it(certificates: dict[str, Path]):
    """Nothing was said by then."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates["server"], certificates["server"].with_suffix(".key"))
    server = Server([says_nothing])
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=context)
    port = listener.sockets[0].getsockname()[1]
    trusts = ssl.create_default_context()
    link = RedisLink(redis_address(f"rediss://localhost:{port}"), trusts, timeout_s=LONG_S)

    with pytest.raises(ssl.SSLCertVerificationError):
        await link.open()

    link.close()
    listener.close()
    await server.stop()
