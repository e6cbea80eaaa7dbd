"""A TCP proxy that makes a network bad while the server behind it is well: late, silent or torn."""

import asyncio
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from attrs import define, field


@define
class FaultProxy:
    """Listens on a port of its own and passes bytes on, as long as nothing else is said."""

    target_port: int
    delay_s: float = 0.0
    """How long each piece waits, in each direction."""
    is_silent: bool = False
    """Takes what comes and passes nothing on; connections stay open."""
    is_deaf: bool = False
    """Passes requests on, and no replies back."""
    port: int = 0
    _server: asyncio.Server | None = None
    _open: set[asyncio.StreamWriter] = field(factory=set)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.reset()
        await asyncio.sleep(0)

    def reset(self) -> None:
        """Tear all connections: RST, not FIN."""
        for writer in list(self._open):
            sock = writer.get_extra_info("socket")
            if sock is not None and sock.fileno() >= 0:
                sock.setsockopt(1, 13, struct.pack("ii", 1, 0))  # SOL_SOCKET, SO_LINGER
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self.target_port)
        except OSError:
            writer.transport.abort()
            return
        both = {writer, back}
        self._open |= both
        pumps = [
            asyncio.create_task(self._pump(reader, back, is_reply=False)),
            asyncio.create_task(self._pump(there, writer, is_reply=True)),
        ]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        for end in both:
            end.transport.abort()
        self._open -= both

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_reply: bool
    ) -> None:
        while data := await reader.read(65536):
            await asyncio.sleep(self.delay_s)
            if self.is_silent or (self.is_deaf and is_reply):
                continue
            writer.write(data)
            await writer.drain()


@contextmanager
def in_thread(proxy: FaultProxy) -> Iterator[FaultProxy]:
    """The proxy at work in an event loop of its own, for tests that have none."""
    ready, stop = threading.Event(), asyncio.Event()

    async def work() -> None:
        async with proxy:
            ready.set()
            await stop.wait()

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=lambda: loop.run_until_complete(work()))
    thread.start()
    assert ready.wait(5)
    yield proxy
    loop.call_soon_threadsafe(stop.set)
    thread.join()
    loop.close()
