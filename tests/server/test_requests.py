"""What the app is told: the scope, the body, and that the client has left."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from tests.server.live import happens, read_body, reply


def get(path: bytes = b"/", *fields: bytes) -> bytes:
    return b"GET " + path + b" HTTP/1.1\r\nHost: a\r\n" + b"".join(f + b"\r\n" for f in fields) + b"\r\n"


def post(body: bytes, *fields: bytes, length: int | None = None) -> bytes:
    size = b"Content-Length: %d" % (len(body) if length is None else length)
    head = b"POST / HTTP/1.1\r\nHost: a\r\n" + b"".join(f + b"\r\n" for f in (size, *fields))
    return head + b"\r\n" + body


async def echo(scope, receive, send):
    await reply(send, await read_body(receive))


class Watched:
    """An app that waits for the client to leave, before or within its answer."""

    def __init__(self, answer_first: bool = False) -> None:
        self.at_work = threading.Event()
        self.saw_leave = threading.Event()
        self.calls = 0
        self._answer_first = answer_first

    async def __call__(self, scope, receive, send):
        self.calls += 1
        await read_body(receive)
        if self._answer_first:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
        self.at_work.set()
        await self.wait(scope, receive)
        self.saw_leave.set()

    async def wait(self, scope, receive):
        assert (await receive())["type"] == "http.disconnect"


class Told(Watched):
    """The same, without asking: it leaves word with the server."""

    async def wait(self, scope, receive):
        left = asyncio.Event()
        scope["extensions"]["gateway.on_leave"](left.set)
        await left.wait()
        # Whoever leaves word too late is told at once.
        left.clear()
        scope["extensions"]["gateway.on_leave"](left.set)
        assert left.is_set()


# ── the scope ──


def test_the_scope_is_what_was_received(serving):
    seen: dict[str, Any] = {}

    async def app(scope, receive, send):
        # A copy: with the request goes what the server was left to call.
        seen.update(scope, extensions=dict(scope["extensions"]))
        await reply(send)

    server = serving(app, config={"root_path": "/root"})
    client = server.connect().send(get(b"/a%2Fb%FF/../c?q=%20&r", b"X-One: 1 ", b"x-one:2", b"X_Two:"))
    client.answer()

    assert callable(seen["extensions"].pop("gateway.on_leave"))
    assert callable(seen["extensions"].pop("gateway.rest_of_body"))
    assert seen == {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/a/b\ufffd/../c",
        "raw_path": b"/a%2Fb%FF/../c",
        "query_string": b"q=%20&r",
        "root_path": "/root",
        "headers": [(b"host", b"a"), (b"x-one", b"1"), (b"x-one", b"2"), (b"x_two", b"")],
        "client": client.sock.getsockname(),
        "server": ("127.0.0.1", server.port),
        "extensions": {},
        "state": {},
    }


@pytest.mark.parametrize("target", [b"http://b/c", b"*", b"/#f", b"//c", b"/\\", b"/%zz%"])
def test_odd_targets_reach_the_app_as_they_are(serving, target):
    """Whether they are allowed is the app's rule."""
    seen = []

    async def app(scope, receive, send):
        seen.append(scope["raw_path"])
        await reply(send)

    assert serving(app).connect().send(get(target)).answer()[0] == 200
    assert seen == [target]


def test_each_request_gets_its_own_copy_of_the_state(starting):
    states = []

    async def app(scope, receive, send):
        if scope["type"] == "http":
            states.append(dict(scope["state"]))
            scope["state"]["mine"] = True
            return await reply(send)
        scope["state"]["pool"] = 1
        while True:
            kind = (await receive())["type"]
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return None

    client = starting(app).connect()
    client.send(get()).answer()
    client.send(get()).answer()

    assert states == [{"pool": 1}, {"pool": 1}]


def test_a_connection_is_kept(serving):
    client = serving(echo).connect()

    answers = [client.send(post(b"%d" % n)).answer()[2] for n in range(5)]

    assert answers == [b"0", b"1", b"2", b"3", b"4"]


@pytest.mark.parametrize("fields", [(b"Connection: close",), (b"Connection: keep-alive, close",)])
def test_a_client_may_close(serving, fields):
    client = serving(echo).connect().send(get(b"/", *fields))

    assert client.answer()[1][b"connection"] == b"close"
    assert client.rest() == b""


# ── the body ──


@pytest.mark.parametrize("size", [0, 1, 65_536, 3_000_000])
def test_a_body_arrives_whole(serving, size):
    body = bytes(range(256)) * (size // 256) + b"z" * (size % 256)
    client = serving(echo).connect()
    sender = threading.Thread(target=client.send, args=(post(body),))
    sender.start()

    assert client.answer()[2] == body
    sender.join()


def test_a_chunked_body_arrives_without_its_chunks(serving):
    client = serving(echo).connect()
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    for piece in (b"5\r\nhel", b"lo\r\n6\r\n wor", b"ld\r\n0\r\nX-Trailer: y\r\n\r\n"):
        client.send(piece)

    assert client.answer()[2] == b"hello world"


def test_a_body_that_has_come_is_given_at_once(serving):
    """And once: `receive` then waits for the client to leave."""
    left = threading.Event()
    told: list[object] = []

    async def app(scope, receive, send):
        rest_of_body = scope["extensions"]["gateway.rest_of_body"]
        told.extend((rest_of_body(), rest_of_body()))
        await reply(send)
        told.append((await receive())["type"])
        left.set()

    client = serving(app).connect().send(post(b"hello"))
    client.answer()
    client.leave()

    assert happens(left)
    assert told == [b"hello", None, "http.disconnect"]


def test_of_a_body_that_is_still_to_come_nothing_is_given(serving):
    asked = threading.Event()

    async def app(scope, receive, send):
        rest_of_body = scope["extensions"]["gateway.rest_of_body"]
        early = rest_of_body()
        asked.set()
        first = await receive()
        assert (early, first["more_body"]) == (None, True)
        await reply(send, first["body"] + await read_body(receive))

    client = serving(app).connect().send(post(b"hel", length=5))
    assert happens(asked)

    assert client.send(b"lo").answer()[2] == b"hello"


def test_a_body_that_nobody_asks_for_is_not_read(serving):
    """Back-pressure: the kernel's buffers fill, ours do not, and the sender has to wait."""
    go_on, taken = threading.Event(), []

    async def app(scope, receive, send):
        await asyncio.to_thread(go_on.wait)
        taken.append(len((await receive())["body"]))
        await reply(send, b"%d" % (taken[0] + len(await read_body(receive))))

    size = 50_000_000
    client = serving(app).connect()
    sender = threading.Thread(target=client.send, args=(post(b"", length=size) + bytes(size),))
    sender.start()
    sender.join(0.3)
    assert sender.is_alive(), "50 MB were taken in although the app has read nothing"
    go_on.set()

    assert client.answer()[2] == b"%d" % size
    assert taken[0] < 1_000_000
    sender.join()


def test_100_continue_is_sent_when_the_app_asks_for_the_body(serving):
    asked = threading.Event()

    async def app(scope, receive, send):
        await asyncio.to_thread(asked.wait)
        await echo(scope, receive, send)

    client = serving(app).connect().send(post(b"", b"Expect: 100-Continue", length=5))
    client.sock.settimeout(0.1)
    with pytest.raises(TimeoutError):
        client.more()
    client.sock.settimeout(5)
    asked.set()

    assert client.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert client.send(b"hello").answer()[2] == b"hello"


def test_a_refusal_needs_no_100_continue(serving):
    """An unauthenticated caller is refused without its body, and the connection can not go on."""

    async def app(scope, receive, send):
        await reply(send, b"no", status=401)

    client = serving(app).connect().send(post(b"", b"Expect: 100-continue", length=100_000_000))

    status, fields, body = client.answer()
    assert (status, fields[b"connection"], body) == (401, b"close", b"no")
    assert client.rest() == b""


def test_a_client_that_does_not_wait_for_100_gets_none(serving):
    client = serving(echo).connect().send(post(b"hello", b"Expect: 100-continue"))

    assert client.answer()[::2] == (200, b"hello")


UPGRADES = {
    "h2c": (
        b"Connection: Upgrade, HTTP2-Settings",
        b"Upgrade: h2c",
        b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
    ),
    "websocket": (
        b"Connection: Upgrade",
        b"Upgrade: websocket",
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ),
}


@pytest.mark.parametrize("fields", UPGRADES.values(), ids=UPGRADES.keys())
def test_an_upgrade_is_ignored(serving, fields):
    """RFC 9110 section 7.8: a server may; curl --http2 and Java's HttpClient go on in HTTP/1.1."""
    client = serving(echo).connect()

    assert client.send(get(b"/", *fields)).answer()[0] == 200
    assert client.send(post(b"hello", *fields)).answer()[2] == b"hello"
    client.send(post(b"", *fields, length=11) + b"hello")
    assert client.send(b" world").answer()[2] == b"hello world"
    chunked = (
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n" + b"\r\n".join(fields) + b"\r\n\r\n"
    )
    assert client.send(chunked + b"2\r\nhi\r\n0\r\n\r\n").answer()[2] == b"hi"
    assert client.send(post(b"plain")).answer()[2] == b"plain"


# ── one at a time ──


@pytest.mark.parametrize("together", [True, False], ids=["in one packet", "later"])
def test_a_pipelined_request_is_never_executed(serving, together):
    """The first is answered with an end; what followed it is thrown away."""
    paths, at_work, go_on = [], threading.Event(), threading.Event()

    async def app(scope, receive, send):
        paths.append(scope["path"])
        await read_body(receive)
        at_work.set()
        await asyncio.to_thread(go_on.wait)
        await reply(send, b"first")

    client = serving(app).connect()
    if together:
        client.send(get(b"/1") + get(b"/2"))
        assert happens(at_work)
    else:
        client.send(get(b"/1"))
        assert happens(at_work)
        client.send(get(b"/2"))
        time.sleep(0.05)  # nothing tells when the server has read them
    go_on.set()

    status, fields, body = client.answer()
    assert (status, fields[b"connection"], body) == (200, b"close", b"first")
    assert client.rest() == b""
    assert paths == ["/1"]


def test_an_empty_line_after_a_body_is_no_request(serving):
    """Some old clients send one; RFC 9112 section 2.2 wants it ignored."""
    client = serving(echo).connect()

    assert client.send(post(b"a") + b"\r\n").answer()[2] == b"a"
    assert client.send(post(b"b")).answer()[2] == b"b"


# ── leaving ──

LEAVING = {
    "FIN": lambda client: client.leave(),
    "RST": lambda client: client.reset(),
    "half-close": lambda client: client.sock.shutdown(1),
    "FIN behind pipelined bytes": lambda client: (client.send(get(b"/2") * 100), client.leave()),
    "FIN behind garbage": lambda client: (client.send(bytes(100_000)), client.leave()),
}


@pytest.mark.parametrize("leave", LEAVING.values(), ids=LEAVING.keys())
@pytest.mark.parametrize("answer_first", [False, True], ids=["before the answer", "within the answer"])
@pytest.mark.parametrize("kind", [Watched, Told])
def test_a_client_that_leaves_is_noticed_at_once(serving, leave, answer_first, kind):
    app = kind(answer_first)
    client = serving(app).connect().send(post(b"hello"))
    assert happens(app.at_work)
    leave(client)

    assert happens(app.saw_leave)
    assert app.calls == 1


def test_a_client_that_leaves_within_its_body_is_noticed(serving):
    left = threading.Event()

    async def app(scope, receive, send):
        if await read_body(receive) is None:
            left.set()

    client = serving(app).connect().send(post(b"hello", length=10))
    client.leave()

    assert happens(left)


def test_sending_to_a_client_that_left_is_an_os_error(serving):
    """ASGI 2.4; without it, an app that never looks at receive works for nobody."""
    raised, errors = threading.Event(), []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while True:
                await send({"type": "http.response.body", "body": b"x", "more_body": True})
                await asyncio.sleep(0.001)
        except OSError as error:
            errors.append(error)
            raised.set()
            raise

    server = serving(app)
    client = server.connect().send(get())
    client.until(b"x")
    client.leave()

    assert happens(raised)
    assert isinstance(errors[0], ConnectionError)
    assert server.errors == []  # a client that leaves is no failure of the app


def test_after_its_answer_a_request_sees_no_more_than_the_end(serving):
    """A watcher that outlives the answer must not read the next request."""
    outcomes, ended = [], threading.Event()

    async def app(scope, receive, send):
        await read_body(receive)
        watcher = asyncio.create_task(receive())
        await asyncio.sleep(0)
        await reply(send)
        outcomes.append((await watcher)["type"])
        outcomes.append((await receive())["type"])
        ended.set()

    client = serving(app).connect().send(get())
    client.answer()

    assert happens(ended)
    assert outcomes == ["http.disconnect", "http.disconnect"]


def test_a_cancelled_receive_loses_nothing(serving):
    """A watcher is cancelled and started again around every step of an app."""

    async def app(scope, receive, send):
        watcher = asyncio.create_task(receive())
        await asyncio.sleep(0)
        watcher.cancel()
        await asyncio.wait({watcher})
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "more_body": True})
        await send({"type": "http.response.body", "body": await read_body(receive)})

    client = serving(app).connect().send(post(b"", length=5))
    client.until(b"\r\n\r\n")
    client.send(b"hello")

    assert client.until(b"0\r\n\r\n") == b"5\r\nhello\r\n0\r\n\r\n"
