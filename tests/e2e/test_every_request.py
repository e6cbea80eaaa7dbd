"""Thousands of requests of every kind, and kills in their midst, leave exactly as many audit rows.

Each brings an id of its own, which its row has. Whoever has a whole answer finds its row with that status; so
does whoever left. A request that a kill ended without an answer has at most one: what was not read left none.
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx
import pytest
from attrs import define, field

from tests.doubles import Double, answer, chat_frame, stream
from tests.effort import times
from tests.engines import wait_until
from tests.gateways import SECRET, Gateway
from tests.servers import RedisServer

# FUZZ_FACTOR=10 makes it ten thousand.
REQUESTS: Final = times(1000)
WORKERS: Final = 16
KILLS: Final = 2
# A gateway has read by then what a client that left had sent.
READ_S: Final = 5.0

CHAT: Final = {"messages": [{"role": "user", "content": "Hi"}]}
# Of each kind: method, path, body, whose key; what is declared of a body beyond what is sent is never sent.
KINDS: Final = {
    "list": ("GET", "/v1/models", None, "good"),
    "chat": ("POST", "/api/chat", {**CHAT, "model": "double", "stream": False}, "good"),
    "stream": ("POST", "/v1/chat/completions", {**CHAT, "model": "double", "stream": True}, "good"),
    "no key": ("GET", "/v1/models", None, "none"),
    "blocked": ("POST", "/api/pull", {}, "good"),
    "unknown": ("GET", "/nowhere", None, "good"),
    "denied": ("POST", "/api/chat", {**CHAT, "model": "double"}, "denied"),
    "invalid": ("POST", "/api/chat", {"model": "double", "messages": 1}, "good"),
    "backend fails": ("POST", "/api/chat", {**CHAT, "model": "broken", "stream": False}, "good"),
    "too large": ("POST", "/api/chat", None, "good"),
    "leaves in the body": ("POST", "/api/chat", None, "good"),
    "leaves in the answer": ("POST", "/api/chat", {**CHAT, "model": "double", "stream": True}, "good"),
}
DECLARED: Final = {"too large": 1 << 40, "leaves in the body": 1000}


@define
class Replica:
    gateway: Gateway
    killed: list[float] = field(factory=list)
    """When, on the monotonic clock."""


@define
class Sent:
    """A request. `status` is that of its whole answer, None where there was none."""

    kind: str
    replica: Replica
    began: float
    kills: int
    status: int | None = None
    ended: float = 0.0

    @property
    def may_be_lost(self) -> bool:
        """A kill came before its gateway had surely read it, or had an answer out."""
        if self.status is not None:
            return False
        during = len(self.replica.killed) != self.kills
        return during or any(0 <= at - self.ended < READ_S for at in self.replica.killed)


@pytest.fixture
def backends() -> Iterator[str]:
    with Double() as good, Double.with_model("broken") as broken:
        good.scripts["/api/chat"] = stream(chat_frame("He"), chat_frame("llo", done=True))
        broken.scripts["/api/chat"] = answer(500, {"error": "no"})
        yield f"good={good.url},broken={broken.url}"


@pytest.fixture(params=["embedded", "fleet"])
def replicas(request: pytest.FixtureRequest, tmp_path: Path, backends: str) -> Iterator[list[Replica]]:
    settings = {"OLLAMA_BACKENDS": backends, "GATEWAY_SECRET": SECRET}
    names = ["one"]
    if request.param == "fleet":
        redis: RedisServer = request.getfixturevalue("redis_server")
        redis.ask("FLUSHALL")
        settings |= {"DATABASE_URL": request.getfixturevalue("postgres_url"), "REDIS_URL": redis.url}
        names.append("two")
    found = [Replica(Gateway(tmp_path / name, **settings)) for name in names]
    key = found[0].gateway.make_first_key()
    try:
        for replica in found:
            replica.gateway.key = key
            replica.gateway.start()
        yield found
    finally:
        for replica in found:
            replica.gateway.stop()


class Callers:
    """Send all requests, some at a time, and kill a replica now and then."""

    def __init__(self, replicas: list[Replica], keys: dict[str, str]) -> None:
        self._replicas = replicas
        self._keys = keys
        self._numbers = iter(range(REQUESTS))
        self.sent: dict[str, Sent] = {}

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(WORKERS):
                group.create_task(self._work())
            group.create_task(self._kill())

    async def _kill(self) -> None:
        for number in range(KILLS):
            while len(self.sent) < REQUESTS * (number + 1) // (KILLS + 1):  # noqa: ASYNC110 - a count
                await asyncio.sleep(0.01)
            replica = self._replicas[number % len(self._replicas)]
            replica.killed.append(time.monotonic())
            process = replica.gateway.process
            assert process is not None
            process.kill()
            process.wait()
            await asyncio.to_thread(replica.gateway.start)

    async def _work(self) -> None:
        kinds = list(KINDS)
        for number in self._numbers:
            replica = self._replicas[number % len(self._replicas)]
            await self._send(f"c-{number}", kinds[number * 7 % len(kinds)], replica)

    async def _send(self, name: str, kind: str, replica: Replica) -> None:
        while True:
            url = replica.gateway.url.removeprefix("http://") or "127.0.0.1:1"
            host, _, port = url.rpartition(":")
            kills, began = len(replica.killed), time.monotonic()
            try:
                reader, writer = await asyncio.open_connection(host, int(port))
            except OSError:
                await asyncio.sleep(0.05)  # it is being started: nothing was sent
                continue
            sent = self.sent[name] = Sent(kind, replica, began, kills)
            try:
                sent.status = await self._asked(reader, writer, name, kind)
            except OSError:
                pass
            finally:
                sent.ended = time.monotonic()
                writer.close()
            return

    async def _asked(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: str, kind: str
    ) -> int | None:
        method, path, body, whose = KINDS[kind]
        data = b"" if body is None else json.dumps(body).encode()
        length = DECLARED.get(kind, len(data))
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Request-Id: {name}\r\n"
            f"Authorization: Bearer {self._keys[whose]}\r\nContent-Length: {length}\r\n\r\n"
        )
        writer.write(head.encode() + data)
        await writer.drain()
        if kind == "leaves in the body":
            return None
        if kind == "leaves in the answer":
            await reader.read(1)
            return None
        return _whole(await reader.read())


def _whole(data: bytes) -> int | None:
    """The status of a whole answer; None where it was cut."""
    head, end, body = data.partition(b"\r\n\r\n")
    if not end:
        return None
    lines = head.lower().split(b"\r\n")
    lengths = [int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length:")]
    is_whole = len(body) == lengths[0] if lengths else body.endswith(b"0\r\n\r\n")
    return int(lines[0].split()[1]) if is_whole else None


def is_drained(replica: Replica) -> bool:
    told = httpx.get(f"{replica.gateway.ops_url}/metrics", trust_env=False, timeout=30).text
    return "\ngateway_spool_records 0.0" in told and "\ngateway_requests_in_flight 0.0" in told


def test_every_request_has_one_row_and_no_more(replicas: list[Replica]):
    first = replicas[0].gateway
    denied = first.json("create-key", "--tenant", "acme", "--name", "denied", "--rpm", "0")["key"]
    callers = Callers(replicas, {"good": first.key, "denied": denied, "none": "nope"})

    asyncio.run(callers.run())
    assert wait_until(lambda: all(map(is_drained, replicas)), 60)

    rows = first.rows("client_request_id LIKE 'c-%'")
    found = Counter(row["client_request_id"] for row in rows)
    statuses = {row["client_request_id"]: row["status"] for row in rows}
    sent = callers.sent
    assert len(sent) == REQUESTS
    assert [name for name, count in found.items() if count > 1] == []
    assert [(name, sent[name].kind) for name in sent if not found[name] and not sent[name].may_be_lost] == []
    wrong = {
        name: (one.kind, one.status, statuses[name])
        for name, one in sent.items()
        if one.status is not None and one.status != statuses[name]
    }
    assert wrong == {}
    assert len(first.rows()) == len(rows)
    answered = {one.status for one in sent.values()}
    assert answered >= {200, 400, 401, 403, 404, 413, 429, 502}
    assert sum(len(replica.killed) for replica in replicas) == KILLS
    # Only what ran, or had just left, when its gateway was killed.
    assert REQUESTS - len(rows) <= KILLS * WORKERS * 2
    print(f"{REQUESTS} requests, {len(rows)} rows: {Counter(str(one.status) for one in sent.values())}")
