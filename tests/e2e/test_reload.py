"""SIGHUP on a running gateway: backends come and go, and no stream is lost."""

import asyncio
import json
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from attrs import define, field

from tests.doubles import HEAD_OF_STREAM, Double, Received, Script, chat_frame, chunk
from tests.engines import wait_until
from tests.gateways import Gateway

# A double closes each connection, which the next part of a call must not be sent on.
CLOSING_HEAD = HEAD_OF_STREAM.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
STREAMS = 100
SOON = 60


@define
class Gate:
    """Streams that have begun wait for it to open."""

    is_open: threading.Event = field(factory=threading.Event)

    def script(self) -> Script:
        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(CLOSING_HEAD + chunk(chat_frame("Hello")))
            await writer.drain()
            await asyncio.to_thread(self.is_open.wait)
            writer.write(chunk(chat_frame(" there")) + chunk(chat_frame(done=True)) + b"0\r\n\r\n")
            await writer.drain()

        return script


def backend_with(model: str, gate: Gate) -> Double:
    double = Double.with_model(model)
    double.scripts["/api/chat"] = gate.script()
    return double


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.is_open.set()


@pytest.fixture
def old(gate: Gate) -> Iterator[Double]:
    with backend_with("double:latest", gate) as double:
        yield double


@pytest.fixture
def new(gate: Gate) -> Iterator[Double]:
    with backend_with("new:latest", gate) as double:
        yield double


@pytest.fixture
def reloaded(tmp_path: Path, old: Double) -> Iterator[Gateway]:
    """A gateway whose backends are in its .env file."""
    gateway = Gateway(tmp_path / "gateway")
    write(gateway, f"old={old.url}")
    gateway.make_first_key()
    try:
        yield gateway.start()
    finally:
        gateway.stop()


def write(gateway: Gateway, backends: str) -> None:
    (gateway.directory / ".env").write_text(f"OLLAMA_BACKENDS={backends}\n")


def hang_up(gateway: Gateway, until: str) -> None:
    """Have it read its backends again, and wait for this in its log."""
    assert gateway.process is not None
    before = gateway.log.read_text().count(until)
    gateway.process.send_signal(signal.SIGHUP)
    assert wait_until(lambda: gateway.log.read_text().count(until) > before, SOON), gateway.log.read_text()


async def streamed(client: httpx.AsyncClient, begun: asyncio.Queue[None]) -> str:
    """All that one stream said, and that it ended well."""
    said = ""
    body = {"model": "double", "messages": [{"role": "user", "content": "Hi"}]}
    async with client.stream("POST", "/api/chat", json=body) as answer:
        async for line in answer.aiter_lines():
            frame = json.loads(line)
            assert "error" not in frame
            if not said:
                begun.put_nowait(None)
            said += frame["message"]["content"]
    assert frame["done"]
    return said


def test_a_reload_under_a_hundred_streams_loses_none(
    reloaded: Gateway, old: Double, new: Double, gate: Gate
) -> None:
    """Their backend goes while they run: they finish, and new requests find only what is listed now."""

    async def run() -> list[str]:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(
            base_url=reloaded.url, headers=reloaded.headers, timeout=SOON, limits=limits, trust_env=False
        ) as client:
            begun: asyncio.Queue[None] = asyncio.Queue()
            streams = [asyncio.create_task(streamed(client, begun)) for _ in range(STREAMS)]
            for _ in range(STREAMS):
                await asyncio.wait_for(begun.get(), SOON)
            write(reloaded, f"new={new.url};slots=4")
            await asyncio.to_thread(hang_up, reloaded, "backends were read again")
            gate.is_open.set()
            return list(await asyncio.gather(*streams))

    assert asyncio.run(run()) == ["Hello there"] * STREAMS
    with reloaded.client() as client:
        gone = client.post("/api/chat", json={"model": "double", "messages": []})
        found = client.post(
            "/api/chat", json={"model": "new", "messages": [{"role": "user", "content": "Hi"}]}
        )
        listed = client.get("/api/tags").json()
    assert (gone.status_code, found.status_code) == (404, 200)
    assert [model["name"] for model in listed["models"]] == ["new:latest"]
    assert (len(old.inference), len(new.inference)) == (STREAMS, 1)


def test_a_reload_cuts_no_call_between_its_parts(
    reloaded: Gateway, old: Double, new: Double, gate: Gate
) -> None:
    """Each of several answers is a request of its own to the backend; all go to the one that began."""
    body = {"model": "double", "n": 4, "stream": True, "messages": [{"role": "user", "content": "Hi"}]}
    said = ""
    with (
        reloaded.client() as client,
        client.stream("POST", "/v1/chat/completions", json=body, timeout=SOON) as answer,
    ):
        for line in answer.iter_lines():
            if "Hello" in line and "Hello" not in said:
                write(reloaded, f"new={new.url}")
                hang_up(reloaded, "backends were read again")
                gate.is_open.set()
            said += line

    assert (said.count(" there"), said.count('"error"')) == (4, 0), said
    assert (len(old.inference), len(new.inference)) == (4, 0)


def test_a_changed_key_leaves_no_moment_without_the_model(reloaded: Gateway, old: Double, gate: Gate) -> None:
    """Neither while the backend is asked with its new key, nor for who waits in its queue meanwhile."""
    write(reloaded, f"old={old.url};slots=1")
    hang_up(reloaded, "backends were read again")
    body = {"model": "double", "messages": [{"role": "user", "content": "Hi"}]}
    may_tell, tags = threading.Event(), old.scripts["/api/tags"]

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.to_thread(may_tell.wait, SOON)
        await tags(reader, writer)

    with reloaded.client() as client, ThreadPoolExecutor(2) as callers:
        asked = [callers.submit(client.post, "/api/chat", json=body, timeout=SOON) for _ in range(2)]
        assert wait_until(lambda: len(old.inference) == 1, SOON)
        old.scripts["/api/tags"] = slow
        write(reloaded, f"old={old.url};slots=1;key-env=NEW_KEY\nNEW_KEY=s3cret")
        assert reloaded.process is not None
        reloaded.process.send_signal(signal.SIGHUP)
        assert wait_until(lambda: any(is_told_the_key(one) for one in old.received), SOON)
        found = client.get("/v1/models/double")
        may_tell.set()
        assert wait_until(lambda: len(old.inference) == 2, SOON), "who waited goes on with the new key"
        gate.is_open.set()
        answers = [one.result(SOON) for one in asked]

    assert found.status_code == 200
    assert [(one.status_code, "error" in one.text) for one in answers] == [(200, False)] * 2
    assert [is_told_the_key(one) for one in old.inference] == [False, True]


def is_told_the_key(request: Received) -> bool:
    return "Bearer s3cret" in request.headers.values()


def test_a_mistake_changes_nothing(reloaded: Gateway, old: Double, new: Double, gate: Gate) -> None:
    gate.is_open.set()
    write(reloaded, f"new={new.url};slots=none")

    hang_up(reloaded, "nothing changes")

    with reloaded.client() as client:
        asked = {"model": "double", "messages": [{"role": "user", "content": "Hi"}]}
        assert client.post("/api/chat", json=asked).status_code == 200
    assert len(old.inference) == 1
