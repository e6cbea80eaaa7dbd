"""A backend that misbehaves on command, and remembers every byte that it was sent.

Where a real engine behaves, tests use a real engine; this one is for what a real one does not do when
asked: break off, stall, lie about lengths, redirect, compress. It runs in a thread, over real sockets.
"""

import asyncio
import gzip
import json
import struct
import threading
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Self

from attrs import define, field, frozen


def tags_of(name: str) -> dict[str, Any]:
    """What an Ollama with this one model answers to /api/tags."""
    card = {
        "name": name,
        "model": name,
        "modified_at": "2026-01-12T14:13:43Z",
        "size": 1321098329,
        "digest": "ba" * 32,
        "details": {
            "parent_model": "",
            "format": "gguf",
            "family": "llama",
            "families": ["llama"],
            "parameter_size": "1B",
            "quantization_level": "Q8_0",
        },
    }
    return {"models": [card]}


TAGS = tags_of("double:latest")

SHOWN = {"model_info": {"general.architecture": "llama", "llama.context_length": 131_072}}

# What is asked in the background.
KNOWLEDGE = ("/api/tags", "/api/show", "/api/ps", "/v1/models")


@frozen
class Received:
    """One request as it came over the socket."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


# ── what it can be told to do ────────────────────────────────────────────────────────────


def raw(*pieces: bytes, gap_s: float = 0.0) -> Script:
    """Write these bytes as they are, then close."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(gap_s)

    return script


def answer(status: int, body: object, **headers: str) -> Script:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return raw(
        head_of(status, {"Content-Length": str(len(data)), "Content-Type": "application/json", **headers})
        + data
    )


def stream(*frames: object, gap_s: float = 0.0, complete: bool = True) -> Script:
    """Send JSON lines as chunks; not `complete`: close without the last chunk."""
    lines = [json.dumps(frame).encode() + b"\n" for frame in frames]
    head = head_of(200, {"Transfer-Encoding": "chunked", "Content-Type": "application/x-ndjson"})
    chunks = [b"%x\r\n%b\r\n" % (len(line), line) for line in lines]
    return raw(head, *chunks, *([b"0\r\n\r\n"] if complete else []), gap_s=gap_s)


def reset_after(*pieces: bytes) -> Script:
    """Write, then RST instead of FIN."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.get_extra_info("socket").setsockopt(1, 13, struct.pack("ii", 1, 0))  # SOL_SOCKET, SO_LINGER
        writer.transport.abort()

    return script


def hang(*pieces: bytes) -> Script:
    """Write, then say nothing until the other side closes."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
        await writer.drain()
        await reader.read()

    return script


def zipped(body: bytes) -> Script:
    """An answer compressed without having been asked for."""
    data = gzip.compress(body)
    return raw(head_of(200, {"Content-Length": str(len(data)), "Content-Encoding": "gzip"}) + data)


def chat_frame(content: str = "", *, done: bool = False, **extra: object) -> dict[str, object]:
    frame: dict[str, object] = {
        "model": "double:latest",
        "created_at": "2026-01-12T14:13:43.416799Z",
        "message": {"role": "assistant", "content": content},
        "done": done,
    }
    if done:
        frame |= {
            "done_reason": "stop",
            "prompt_eval_count": 26,
            "eval_count": 3,
            "total_duration": 5_000_000,
        }
    return frame | extra


def chat_stream(words: Iterable[str] = ("Hello", " there", "!"), gap_s: float = 0.0) -> Script:
    return stream(*(chat_frame(word) for word in words), chat_frame(done=True), gap_s=gap_s)


HEAD_OF_STREAM = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
)


def chunk(frame: object) -> bytes:
    line = json.dumps(frame).encode() + b"\n"
    return b"%x\r\n%b\r\n" % (len(line), line)


# ── the double ───────────────────────────────────────────────────────────────────────────


@define(kw_only=True)
class SocketServer:
    """Gives each connection to `answer`, in a thread of its own. Entered again, on the port that it had."""

    port: int = 0
    _loop: asyncio.AbstractEventLoop | None = None
    _thread: threading.Thread | None = None
    _stop: asyncio.Event | None = None

    def __enter__(self) -> Self:
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(ready)), daemon=True)
        self._thread.start()
        assert ready.wait(5)
        return self

    def __exit__(self, *exc_info: object) -> None:
        assert self._loop is not None
        assert self._stop is not None
        assert self._thread is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(5)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise NotImplementedError

    async def _serve(self, ready: threading.Event) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self.answer, "127.0.0.1", self.port, backlog=1000)
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        await self._stop.wait()
        server.close()


@define
class Double(SocketServer):
    """`scripts` by path; what has none is 404. `/api/tags` lists one model, `double:latest`."""

    scripts: dict[str, Script] = field(
        factory=lambda: {
            "/api/tags": answer(200, TAGS),
            "/api/show": answer(200, SHOWN),
            "/api/ps": answer(200, {"models": []}),
        }
    )
    received: list[Received] = field(factory=list)
    closed_early: threading.Event = field(factory=threading.Event)
    """Set when a caller closed before a `hang` or a stream was over."""

    @classmethod
    def with_model(cls, name: str) -> Self:
        """One whose list has a model of this name."""
        return cls({"/api/tags": answer(200, tags_of(name))})

    @property
    def inference(self) -> list[Received]:
        """What it was asked beside what it knows of its models."""
        return [one for one in self.received if one.target not in KNOWLEDGE]

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await read_request(reader)
            self.received.append(request)
            await self.scripts.get(request.target, answer(404, {"error": "not found"}))(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            self.closed_early.set()
        else:
            if reader.at_eof():
                self.closed_early.set()
        finally:
            writer.close()


async def read_request(reader: asyncio.StreamReader) -> Received:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, target, _ = head[0].split(" ")
    headers = {
        name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)
    }
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Received(method, target, headers, body)


def head_of(status: int, headers: dict[str, str]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} Scripted\r\n{lines}Connection: close\r\n\r\n".encode()
