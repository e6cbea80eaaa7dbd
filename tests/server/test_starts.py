"""Many requests at once: they begin in order, a few in each turn of the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest
from attrs import define, field

from gateway.server.http1 import Http1Connection
from gateway.server.lifecycle import Lifecycle
from gateway.server.service import RefusedRequest, Service
from gateway.server.starts import AT_ONCE, Starts
from tests.server.live import Client, happens, reply

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


@define
class Turns:
    """Of an event loop what Starts needs: what is to be called in its next turn."""

    soon: list[Callable[[], None]] = field(factory=list)

    def call_soon(self, callback) -> None:
        self.soon.append(callback)

    def pass_one(self) -> None:
        due, self.soon = self.soon, []
        for callback in due:
            callback()


@define(eq=False)
class Request:
    number: int
    begun: list[int]

    def run(self) -> None:
        self.begun.append(self.number)


@pytest.fixture
def turns() -> Turns:
    return Turns()


@pytest.fixture
def starts(turns) -> Starts:
    return Starts(turns)


def requests(count: int) -> tuple[list[Request], list[int]]:
    begun: list[int] = []
    return [Request(number, begun) for number in range(count)], begun


def test_a_request_alone_begins_at_once_and_leaves_nothing_to_do(starts, turns):
    """The usual one costs one callback, and no turn of its own."""
    (one,), begun = requests(1)
    starts.add(one)

    assert begun == [0]
    turns.pass_one()
    assert turns.soon == []


def test_a_few_begin_in_each_turn_in_the_order_in_which_they_came(starts, turns):
    """Also those that come while others wait."""
    many, begun = requests(3 * AT_ONCE + 1)
    for request in many[:-1]:
        starts.add(request)
    seen = [len(begun)]
    turns.pass_one()
    starts.add(many[-1])
    seen.append(len(begun))
    while turns.soon:
        turns.pass_one()
        seen.append(len(begun))

    assert begun == list(range(3 * AT_ONCE + 1))
    assert seen[:4] == [AT_ONCE, 2 * AT_ONCE, 3 * AT_ONCE, 3 * AT_ONCE + 1]


def test_what_is_withdrawn_does_not_begin(starts, turns):
    many, begun = requests(AT_ONCE + 2)
    for request in many:
        starts.add(request)
    starts.withdraw(many[AT_ONCE])
    while turns.soon:
        turns.pass_one()

    assert begun == [*range(AT_ONCE), AT_ONCE + 1]
    with pytest.raises(ValueError, match="not in deque"):
        starts.withdraw(many[0])


def test_all_can_be_told_to_begin(starts, turns):
    """A drain waits for tasks: none may be without one."""
    many, begun = requests(3 * AT_ONCE)
    for request in many:
        starts.add(request)
    starts.run_all()

    assert begun == list(range(3 * AT_ONCE))
    turns.pass_one()
    turns.pass_one()
    assert turns.soon == []


# ── the same of a server, whose loop is held up while the requests come ──


class Held:
    """An app whose request for /hold holds the loop up; of the others it notes in which turn they began."""

    def __init__(self) -> None:
        self.holding = threading.Event()
        self.let_go = threading.Event()
        self.begun: list[tuple[str, int]] = []
        self.left: list[str] = []
        self.turn = 0

    async def __call__(self, scope, receive, send):
        if scope["path"] == "/hold":
            self.holding.set()
            self.let_go.wait(10)  # the whole loop
            asyncio.get_running_loop().call_soon(self._count_turns)
            return await reply(send)
        self.begun.append((scope["path"], self.turn))
        message = await receive()
        if message["type"] == "http.disconnect":
            return self.left.append(scope["path"])
        return await reply(send, b"served")

    def _count_turns(self) -> None:
        self.turn += 1
        if self.turn < 1000:
            asyncio.get_running_loop().call_soon(self._count_turns)


def get(path: str) -> bytes:
    return GET.replace(b"/ ", path.encode() + b" ", 1)


def held_up(server, app: Held, count: int) -> list[Client]:
    """So many clients, connected; then the loop stands still."""
    clients = [server.connect() for _ in range(count)]
    for client in clients:
        client.send(GET).answer()
    app.begun.clear()
    server.connect().send(get("/hold"))
    assert happens(app.holding)
    return clients


def rush(server, app: Held, count: int) -> list[Client]:
    """The same, who have all asked meanwhile, each for its number."""
    clients = held_up(server, app, count)
    for number, client in enumerate(clients):
        client.send(get(f"/{number}"))
    return clients


def test_a_rush_leaves_turns_to_what_runs(serving):
    """No turn begins more than a few; all are served."""
    app = Held()
    server = serving(app)
    clients = rush(server, app, 20)
    app.let_go.set()

    assert [client.answer()[2] for client in clients] == [b"served"] * 20
    turns = [turn for _, turn in app.begun]
    assert max(turns.count(turn) for turn in turns) <= AT_ONCE


def test_a_client_that_leaves_before_its_turn_is_still_heard(serving):
    """Whoever was heard has a row in the audit log: so the app is called, and finds nobody."""
    app = Held()
    server = serving(app)
    clients = rush(server, app, 20)
    for client in clients[10:]:
        client.reset()
    app.let_go.set()

    assert [client.answer()[2] for client in clients[:10]] == [b"served"] * 10
    last = server.connect().send(get("/last"))
    assert last.answer()[2] == b"served"
    assert sorted(path for path, _ in app.begun) == sorted([*(f"/{n}" for n in range(20)), "/last"])


def test_a_drain_waits_for_those_whose_turn_has_not_come(serving):
    """They came before the signal; each of them is answered."""
    app = Held()
    server = serving(app)
    clients = held_up(server, app, 20)
    for client in clients:
        client.send(GET)
    server.ask_to_stop()
    app.let_go.set()

    assert [client.answer()[0] for client in clients] == [200] * 20
    assert server.ended()
    assert server.failure is None


class Wire(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""

    def write(self, data) -> None:
        self.written += data

    def can_write_eof(self) -> bool:
        return False

    def abort(self) -> None: ...


async def test_a_body_that_breaks_before_its_turn_is_refused_and_never_heard():
    """Its second packet is read while it waits: there is one answer, by the server, and one row."""
    heard: list[str] = []
    refused: list[RefusedRequest] = []

    async def app(scope, receive, send):
        heard.append(scope["path"])
        await reply(send)

    service = Service(app, Lifecycle(), lambda: "r1", print, on_refused=refused.append)
    wires = [Wire() for _ in range(AT_ONCE + 1)]
    connections = [Http1Connection(service) for _ in wires]
    for number, (connection, wire) in enumerate(zip(connections, wires, strict=True)):
        connection.connection_made(wire)
        head = b"POST /%d HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.data_received(head % number)
    assert service.lifecycle.in_flight == AT_ONCE + 1
    connections[-1].data_received(b"no size\r\n")
    tasks = service.tasks()
    await asyncio.wait(tasks)
    await asyncio.sleep(0)

    assert wires[-1].written.startswith(b"HTTP/1.1 400 ")
    assert [request.target for request in refused] == [b"/%d" % AT_ONCE]
    assert heard == [f"/{number}" for number in range(AT_ONCE)]
    assert service.lifecycle.in_flight == 0
