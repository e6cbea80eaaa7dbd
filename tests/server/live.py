"""A real server in a thread and a raw client: nothing between the test and the bytes."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import socket
import subprocess
import threading

from hypercorn.config import Config

from gateway.server.lifecycle import Lifecycle, Shutdown
from gateway.server.worker import serve

PATIENCE_S = 5.0  # for what happens at once; only a failing test waits that long


class Client:
    """A raw connection that sends what it is told and reads answers one by one."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        self.unread = b""

    def send(self, data: bytes) -> Client:
        self.sock.sendall(data)
        return self

    def leave(self) -> None:
        self.sock.close()

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.sock.close()

    def more(self) -> bytes:
        """What comes next; b"" at the end of the connection."""
        data = self.sock.recv(1 << 16)
        self.unread += data
        return data

    def until(self, mark: bytes) -> bytes:
        """Read up to and with `mark`."""
        while mark not in self.unread:
            if not self.more():
                raise AssertionError(f"closed before {mark!r}: {self.unread[-300:]!r}")
        before, _, self.unread = self.unread.partition(mark)
        return before + mark

    def rest(self) -> bytes:
        """All until the server closes; ConnectionResetError when it resets."""
        while self.more():
            pass
        data, self.unread = self.unread, b""
        return data

    def head(self) -> tuple[int, dict[bytes, bytes]]:
        start, *lines = self.until(b"\r\n\r\n")[:-4].split(b"\r\n")
        fields = [line.split(b": ", 1) for line in lines]
        assert len({name for name, _ in fields}) == len(fields), f"repeated field in {lines}"
        return int(start.split(b" ")[1]), dict(fields)

    def answer(self) -> tuple[int, dict[bytes, bytes], bytes]:
        """One whole answer with a content-length or in chunks."""
        status, fields = self.head()
        if b"content-length" in fields:
            size = int(fields[b"content-length"])
            while len(self.unread) < size and self.more():
                pass
            body, self.unread = self.unread[:size], self.unread[size:]
            return status, fields, body
        body = b""
        while size := int(self.until(b"\r\n"), 16):
            body += self._exactly(size)
        self.until(b"\r\n")
        return status, fields, body

    def rest_of_chunks(self) -> int:
        """Read a chunked body to its end; how many bytes it had."""
        total = 0
        while size := int(self.until(b"\r\n"), 16):
            total += len(self._exactly(size))
        return total

    def _exactly(self, size: int) -> bytes:
        while len(self.unread) < size + 2:
            assert self.more()
        data, end, self.unread = self.unread[:size], self.unread[size : size + 2], self.unread[size + 2 :]
        assert end == b"\r\n"
        return data


class Server:
    """`serve` in a thread of its own; `errors` are what the app raised, `failure` what serve did."""

    def __init__(self, app, loop_factory, **options) -> None:
        self.config = Config()
        self.config.bind = ["127.0.0.1:0"]
        for name, value in options.pop("config", {}).items():
            setattr(self.config, name, value)
        self.lifecycle = Lifecycle()
        self.errors: list[BaseException] = []
        self.failure: BaseException | None = None
        self.loop = loop_factory()
        self._listening: queue.Queue[list[tuple[str, int]]] = queue.Queue()
        self._clients: list[Client] = []
        self._options = options
        self._app = app
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self.addresses = self._listening.get(timeout=PATIENCE_S)
        self.port = self.addresses[0][1] if self.addresses else 0

    def connect(self) -> Client:
        client = Client(self.port)
        self._clients.append(client)
        return client

    def ask_to_stop(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop may have ended already
            self.loop.call_soon_threadsafe(self.shutdown.ask)

    def ended(self, timeout: float = PATIENCE_S) -> bool:
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def stop(self) -> None:
        self.ask_to_stop()
        self.ask_to_stop()
        for client in self._clients:
            client.leave()
        assert self.ended(10), "the server did not end"

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
            try:
                runner.run(self._serve())
            except Exception as error:  # noqa: BLE001 - told to the test
                self.failure = error
                self._listening.put([])

    async def _serve(self) -> None:
        self.shutdown = Shutdown()
        await serve(
            self._app,
            self.config,
            lifecycle=self.lifecycle,
            new_id=lambda: "req_of_the_server",
            on_error=self.errors.append,
            on_listening=self._listening.put,
            shutdown=self.shutdown,
            **self._options,
        )


def with_lifespan(answer):
    """An ASGI app out of a function for http scopes."""

    async def lifespan(receive, send):
        kind = ""
        while kind != "lifespan.shutdown":
            kind = (await receive())["type"]
            await send({"type": f"{kind}.complete"})

    def app(scope, receive, send):
        return answer(scope, receive, send) if scope["type"] == "http" else lifespan(receive, send)

    return app


async def reply(send, body=b"", status=200, headers=()):
    """A whole answer with its length."""
    fields = [*headers, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body})


async def read_body(receive):
    """The whole body, or None when the client left before its end."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message["body"]
        if not message["more_body"]:
            return bytes(body)


def line_from(child: subprocess.Popen[str]) -> str:
    """What a child process prints next."""
    assert child.stdout is not None
    return child.stdout.readline()


def finish(child: subprocess.Popen[str]) -> None:
    """End it if it has not ended, and let go of its pipes."""
    child.kill()
    with child:
        child.wait()


def happens(event: threading.Event) -> bool:
    """Wait for what has to happen at once."""
    return event.wait(PATIENCE_S)
