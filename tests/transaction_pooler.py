"""A transaction pooler, as pgbouncer is one: each transaction of a client is in another server session.

It is stricter than a real one: where there are two sessions, no two transactions in a row are on the same.
"""

import asyncio
import struct
from typing import Self

from attrs import define, field

_SSL_REQUEST = 80877103
_CANCEL_REQUEST = 80877102
# Kinds of messages.
_AUTHENTICATION, _READY, _QUERY, _SYNC, _TERMINATE = b"R", b"Z", b"Q", b"S", b"X"
# Of authentication: those that the client has to answer.
_QUESTIONS = (3, 5, 10, 11)

_Message = tuple[bytes, bytes]


@define(eq=False)
class _Session:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


@define
class TransactionPooler:
    """Listens on a port of its own. Each client that logs in brings a session, which then is anybody's."""

    target_port: int
    port: int = 0
    _free: asyncio.Queue[_Session] = field(factory=asyncio.Queue)
    _all: list[_Session] = field(factory=list)
    _server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for session in self._all:
            session.writer.transport.abort()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            code, hello = await _startup(reader)
            if code == _SSL_REQUEST:
                writer.write(b"N")
                code, hello = await _startup(reader)
            if code != _CANCEL_REQUEST:
                await self._log_in(hello, reader, writer)
                inbox: asyncio.Queue[_Message] = asyncio.Queue()
                reading = asyncio.create_task(_read(reader, inbox))
                try:
                    while (message := await inbox.get())[0] != _TERMINATE:
                        await self._transact(message, inbox, writer)
                finally:
                    reading.cancel()
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.transport.abort()

    async def _log_in(self, hello: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = _Session(*await asyncio.open_connection("127.0.0.1", self.target_port))
        self._all.append(session)
        session.writer.write(hello)
        kind = b""
        while kind != _READY:
            kind, text = await _message(session.reader)
            writer.write(text)
            if kind == _AUTHENTICATION and struct.unpack("!I", text[5:9])[0] in _QUESTIONS:
                session.writer.write((await _message(reader))[1])
        self._free.put_nowait(session)

    async def _transact(
        self, first: _Message, inbox: asyncio.Queue[_Message], writer: asyncio.StreamWriter
    ) -> None:
        """From the first message to the end of the transaction, on the session that waits the longest."""
        session = await self._free.get()
        session.writer.write(first[1])
        unanswered = int(first[0] in (_QUERY, _SYNC))
        asked = asyncio.create_task(inbox.get())
        answered = asyncio.create_task(_message(session.reader))
        while True:
            await asyncio.wait([asked, answered], return_when=asyncio.FIRST_COMPLETED)
            if answered.done():
                kind, text = answered.result()
                writer.write(text)
                unanswered -= kind == _READY
                if kind == _READY and not unanswered and text[5:6] == b"I":
                    asked.cancel()  # nobody says more before it has heard this
                    self._free.put_nowait(session)
                    return
                answered = asyncio.create_task(_message(session.reader))
            if asked.done():
                kind, text = asked.result()
                if kind == _TERMINATE:  # in the midst of it
                    answered.cancel()
                    session.writer.transport.abort()
                    raise ConnectionError
                session.writer.write(text)
                unanswered += kind in (_QUERY, _SYNC)
                asked = asyncio.create_task(inbox.get())


async def _read(reader: asyncio.StreamReader, inbox: asyncio.Queue[_Message]) -> None:
    """All that a client says; at last that it leaves."""
    try:
        while True:
            inbox.put_nowait(await _message(reader))
    except (asyncio.IncompleteReadError, OSError):
        inbox.put_nowait((_TERMINATE, b""))


async def _startup(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    length = await reader.readexactly(4)
    text = await reader.readexactly(struct.unpack("!I", length)[0] - 4)
    return struct.unpack("!I", text[:4])[0], length + text


async def _message(reader: asyncio.StreamReader) -> _Message:
    head = await reader.readexactly(5)
    return head[:1], head + await reader.readexactly(struct.unpack("!I", head[1:])[0] - 4)
