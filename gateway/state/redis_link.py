"""One connection to one Redis server, for the scripts that each request runs: RESP 2, read by hiredis.

Coredis costs more than all that such a script does. Here, what is asked within one turn of the event loop
goes out in one write, and what comes back is matched by its order alone: so a caller may leave at any moment,
its answer is read all the same. Nothing is ever sent twice. A connection that breaks fails what was asked on
it and not answered (nobody knows whether it was done), and is made anew for whoever asks next.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

import hiredis

from gateway.config import MIB
from gateway.redis_address import RedisAddress
from gateway.state.deadlines import Deadlines
from gateway.state.redis_scripts import Script

# Beyond so many questions without an answer, no answer would come in time: more are refused at once.
_MAX_ASKED: Final = 4096
# What scripts answer is a hundredth of it at most. A server that sends more is mad, or none.
_MAX_ANSWER_BYTES: Final = 16 * MIB
_MISSING: Final = object()

Words = tuple[str | bytes | int, ...]
_packed = cast("Callable[[Words], bytes]", hiredis.pack_command)


class ErrorReply(Exception):
    """The server refuses a command, in its own words."""


class LinkFull(OSError):
    """Too much is asked and not answered."""


class Reply:
    """The answer to one command, once it `is_over`: then an `error`, or a `value`."""

    __slots__ = ("_ended", "_waiter", "error", "instead", "is_over", "link", "value")

    def __init__(self, link: "RedisLink", instead: Words | None = None) -> None:
        self.link = link
        self.instead = instead
        """The command to send where the server does not know the script."""
        self.is_over = False
        self.value: Any = None
        self.error: BaseException | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._ended: asyncio.Event | None = None

    @property
    def origin(self) -> object:
        return self.link

    def ended_within(self, seconds: float) -> "asyncio.Future[None]":
        """Wait for it, no longer. For one caller."""
        waiter = self._waiter = self.link.loop.create_future()
        if self.is_over:
            waiter.set_result(None)
        else:
            self.link.deadlines.add(self, seconds)
        return waiter

    async def ended(self) -> None:
        """Wait for it, however long its connection lasts."""
        if not self.is_over:
            if self._ended is None:
                self._ended = asyncio.Event()
            await self._ended.wait()

    def give_up(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def end(self, value: Any = None, error: BaseException | None = None) -> None:
        self.value, self.error, self.is_over = value, error, True
        self.give_up()
        if self._ended is not None:
            self._ended.set()


class RedisLink:
    """Used inside the event loop that it was made in: `open`, `run` and `ping`, `close`."""

    def __init__(self, address: RedisAddress, tls: ssl.SSLContext | None, *, timeout_s: float) -> None:
        """To the address's first host; `timeout_s` is for making a connection."""
        self.loop = asyncio.get_running_loop()
        self.deadlines = Deadlines()
        self._address = address
        self._tls = tls
        self._timeout_s = timeout_s
        self._connection: _Connection | None = None
        self._connecting: asyncio.Task[None] | None = None
        # Asked while there was no connection.
        self._waiting: list[tuple[Reply, bytes]] = []
        self._is_closed = False

    async def open(self) -> None:
        """Connect. Raises OSError, also for TLS and for time; ErrorReply when refused."""
        first = self.ping()
        await first.ended()
        if first.error is not None:
            raise first.error

    def close(self) -> None:
        self._is_closed = True
        self.deadlines.close()
        if self._connecting is not None:
            self._connecting.cancel()
        closed = ConnectionAbortedError("closed")
        self._fail_waiting(closed)
        if self._connection is not None:
            self._connection.abort(closed)

    def run(self, script: Script, keys: Sequence[str], arguments: Sequence[str | bytes | int]) -> Reply:
        """Send it now, whether or not anybody waits for the answer. Raises OSError when full or closed."""
        rest = (len(keys), *keys, *arguments)
        reply = Reply(self, ("EVAL", script.text, *rest))
        self._ask(reply, ("EVALSHA", script.sha, *rest))
        return reply

    def ping(self) -> Reply:
        reply = Reply(self)
        self._ask(reply, ("PING",))
        return reply

    def _ask(self, reply: Reply, words: Words) -> None:
        if self._is_closed:
            raise ConnectionAbortedError("closed")
        command = _packed(words)
        if self._connection is not None:
            self._connection.ask(reply, command)
            return
        if len(self._waiting) >= _MAX_ASKED:
            raise LinkFull("too many commands without an answer")
        self._waiting.append((reply, command))
        if self._connecting is None:
            self._connecting = self.loop.create_task(self._connect())

    # ── the connection's life ────────────────────────────────────────────────────────────

    async def _connect(self) -> None:
        try:
            connection = self._connection = await self._made()
        except BaseException as error:
            # Whatever it was, those who wait are told: nothing of theirs was sent.
            self._fail_waiting(error)
            if not isinstance(error, Exception):
                raise
        else:
            waiting, self._waiting = self._waiting, []
            for reply, command in waiting:
                connection.ask(reply, command)
        finally:
            self._connecting = None

    async def _made(self) -> "_Connection":
        host, port = self._address.hosts[0]
        name = host if self._tls is not None else None
        connection = _Connection(self._lost)
        try:
            async with asyncio.timeout(self._timeout_s):
                await self.loop.create_connection(
                    lambda: connection, host, port, ssl=self._tls, server_hostname=name
                )
                await self._introduce(connection)
        except BaseException:
            connection.abort(ConnectionAbortedError("it was not made"))
            raise
        return connection

    async def _introduce(self, connection: "_Connection") -> None:
        """Nothing else is said before it is known who asks, and of which database."""
        commands: list[Words] = []
        if self._address.password is not None:
            name = () if self._address.username is None else (self._address.username,)
            commands.append(("AUTH", *name, self._address.password))
        if self._address.db:
            commands.append(("SELECT", self._address.db))
        for command in commands or [("PING",)]:
            reply = Reply(self)
            connection.ask(reply, _packed(command))
            await reply.ended()
            if reply.error is not None:
                raise reply.error

    def _lost(self, connection: "_Connection") -> None:
        """Whoever asks next has another one made."""
        if connection is self._connection:
            self._connection = None

    def _fail_waiting(self, error: BaseException) -> None:
        waiting, self._waiting = self._waiting, []
        for reply, _ in waiting:
            reply.end(error=error)


class _Connection(asyncio.Protocol):
    """Commands out, all of one turn together; answers in, in the same order."""

    def __init__(self, on_lost: "Callable[[_Connection], None]") -> None:
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._reader = hiredis.Reader(replyError=ErrorReply, notEnoughData=_MISSING)
        self._asked: deque[Reply] = deque()
        self._unsent: list[bytes] = []
        self._is_paused = False
        self._unread_bytes = 0
        # Why it is of no use any more.
        self._error: BaseException | None = None

    def ask(self, reply: Reply, command: bytes) -> None:
        """Where the connection was lost meanwhile, the answer is why. Raises LinkFull."""
        if self._error is not None:
            reply.end(error=self._error)
            return
        if len(self._asked) >= _MAX_ASKED:
            raise LinkFull("too many commands without an answer")
        self._asked.append(reply)
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(command)

    def abort(self, error: BaseException) -> None:
        """Of no use any more: nobody knows what became of that which was asked and not answered."""
        if self._error is not None:
            return
        self._error = error
        self._on_lost(self)
        if self._transport is not None:
            self._transport.abort()
        asked, self._asked = self._asked, deque()
        for reply in asked:
            reply.end(error=error)

    def _flush(self) -> None:
        if self._error is None and not self._is_paused and self._transport is not None and self._unsent:
            self._transport.write(b"".join(self._unsent))
            self._unsent.clear()

    def _answered(self, answer: object) -> None:
        if isinstance(answer, hiredis.PushNotification):
            return  # by its own word no answer; we ask for none
        if not self._asked:
            raise hiredis.ProtocolError("an answer to nothing")
        reply = self._asked.popleft()
        if not isinstance(answer, ErrorReply):
            reply.end(answer)
        elif reply.instead is not None and str(answer).startswith("NOSCRIPT"):
            instead, reply.instead = reply.instead, None
            self.ask(reply, _packed(instead))
        else:
            reply.end(error=answer)

    # ── what the transport tells ─────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if self._error is not None:
            self._transport.abort()
        self._flush()

    def data_received(self, data: bytes) -> None:
        self._unread_bytes += len(data)
        try:
            self._reader.feed(data)
            while (answer := self._reader.gets()) is not _MISSING:
                self._unread_bytes = 0
                self._answered(answer)
        except hiredis.HiredisError as error:
            self.abort(error)
        if self._unread_bytes > _MAX_ANSWER_BYTES:
            self.abort(hiredis.ProtocolError("an answer without an end"))

    def pause_writing(self) -> None:
        self._is_paused = True

    def resume_writing(self) -> None:
        self._is_paused = False
        self._flush()

    def connection_lost(self, error: Exception | None) -> None:
        self.abort(error or ConnectionResetError("Redis closed the connection"))
