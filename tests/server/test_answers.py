"""What the client is told: framing, slow readers, early answers and failures."""

from __future__ import annotations

import asyncio
import json
import threading
import time

import pytest

from tests.server.live import happens, reply

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
MEGABYTE = bytes(1_000_000)


def start(*headers, status=200):
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def piece(body: bytes, more: bool = True):
    return {"type": "http.response.body", "body": body, "more_body": more}


def sends(*messages):
    """An app that sends these, whatever it is asked."""

    async def app(scope, receive, send):
        for message in messages:
            await send(message)

    return app


# ── without a task ──


@pytest.mark.parametrize("is_whole", [True, False])
def test_what_the_app_answers_when_it_is_called_needs_no_task(serving, is_whole):
    """It returns what `send` did. Half an answer is the failure that it always is."""
    tasks = []

    def app(scope, receive, send):
        tasks.append(asyncio.current_task())
        send(start())
        return send(piece(b"a", more=not is_whole))

    client = serving(app).connect().send(GET)

    assert client.until(b"1\r\na\r\n").startswith(b"HTTP/1.1 200")
    assert client.rest() == b"" if not is_whole else client.until(b"0\r\n\r\n")
    assert tasks == [None]


def test_what_the_app_raises_when_it_is_called_is_a_failure_like_any_other(serving):
    def app(scope, receive, send):
        raise ZeroDivisionError

    server = serving(app)

    assert server.connect().send(GET).head()[0] == 500


# ── framing ──


def test_head_and_first_piece_go_out_together(serving):
    """One write: one packet, one wake-up of the client."""
    client = serving(sends(start(), piece(b"a"), piece(b"b", more=False))).connect().send(GET)

    assert client.more().endswith(b"\r\n\r\n1\r\na\r\n") or client.unread.endswith(b"0\r\n\r\n")


def test_the_head_waits_for_the_first_piece(serving):
    go_on = threading.Event()

    async def app(scope, receive, send):
        await send(start())
        await asyncio.to_thread(go_on.wait)
        await send(piece(b"", more=False))

    client = serving(app).connect().send(GET)
    client.sock.settimeout(0.1)
    with pytest.raises(TimeoutError):
        client.more()
    client.sock.settimeout(5)
    go_on.set()

    assert client.answer()[2] == b""


def test_the_app_is_called_before_the_end_of_its_answer_goes_out(serving):
    """What must be done before the client can know is done then."""
    called, go_on = threading.Event(), threading.Event()

    def before_end(_is_at_once):
        called.set()
        go_on.wait(5)

    async def app(scope, receive, send):
        scope["extensions"]["gateway.before_end"] = before_end
        await sends(start(), piece(b"a"), piece(b"b", more=False))(scope, receive, send)

    client = serving(app).connect().send(GET)
    client.until(b"\r\na\r\n")
    assert happens(called)
    client.sock.settimeout(0.1)
    with pytest.raises(TimeoutError):
        client.more()
    client.sock.settimeout(5)
    go_on.set()

    assert client.rest_of_chunks() == 1


@pytest.mark.parametrize(
    ("pieces", "is_at_once"),
    [([b"a"], True), ([b"a" * 1000, b"b"], True), ([MEGABYTE], False), ([MEGABYTE * 8, b"b"], False)],
    ids=["small", "small end", "large", "end behind a slow reader"],
)
def test_the_app_is_told_whether_its_end_waits_for_the_client(serving, pieces, is_at_once):
    called, told = threading.Event(), []

    async def app(scope, receive, send):
        def before_end(is_at_once):
            told.append(is_at_once)
            called.set()

        scope["extensions"]["gateway.before_end"] = before_end
        await send(start())
        *first, last = pieces
        for one in first:
            sending = asyncio.ensure_future(send(piece(one)))
            await asyncio.sleep(0.05)
        await send(piece(last, more=False))
        if first:
            await sending

    client = serving(app).connect().send(GET)

    assert happens(called)
    assert client.rest_of_chunks() if client.head() else None
    assert told == [is_at_once]


def test_an_end_that_nobody_hears_is_not_announced(serving):
    called: list[bool] = []
    ended = threading.Event()

    async def app(scope, receive, send):
        scope["extensions"]["gateway.before_end"] = called.append
        await send(start())
        await send(piece(b"a"))
        while (await receive())["type"] != "http.disconnect":
            pass
        try:
            await send(piece(b"b", more=False))
        except OSError:
            ended.set()

    client = serving(app).connect().send(GET)
    client.until(b"\r\na\r\n")
    client.leave()

    assert happens(ended)
    assert called == []


def test_an_answer_without_length_is_chunked(serving):
    client = serving(sends(start(), piece(b"hello "), piece(b""), piece(b"world", more=False))).connect()

    client.send(GET)
    assert client.head()[1][b"transfer-encoding"] == b"chunked"
    assert client.until(b"0\r\n\r\n") == b"6\r\nhello \r\n5\r\nworld\r\n0\r\n\r\n"


def test_http_1_0_gets_no_chunks_and_an_end(serving):
    client = serving(sends(start(), piece(b"hello "), piece(b"world", more=False))).connect()

    head, body = client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").rest().split(b"\r\n\r\n")
    assert body == b"hello world"
    assert b"\r\nconnection: close" in head
    assert b"chunked" not in head


@pytest.mark.parametrize(
    ("method", "status"), [(b"HEAD", 200), (b"GET", 204), (b"GET", 304)], ids=["HEAD", "204", "304"]
)
def test_some_answers_have_no_body(serving, method, status):
    """The next answer starts right behind the head."""
    app = sends(start((b"content-length", b"5"), status=status), piece(b"hello", more=False))
    client = serving(app).connect()

    for _ in range(2):
        client.send(method + b" / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.head()[0] == status
    assert client.unread == b""


# ── slow readers ──


def test_sending_waits_for_a_slow_reader(serving):
    """Memory stays flat: no more is produced than was read, save what the kernel holds."""
    sent, full = [], threading.Event()

    async def app(scope, receive, send):
        await send(start())
        for _ in range(100):
            sent.append(len(MEGABYTE))
            if len(sent) == 5:
                full.set()
            await send(piece(MEGABYTE))
        await send(piece(b"", more=False))

    client = serving(app).connect().send(GET)
    client.until(b"\r\n\r\n")
    full.wait(0.3)
    assert len(sent) < 50

    assert client.rest_of_chunks() == 100_000_000


def test_a_client_that_stops_reading_is_cut(serving):
    """The app gets an OSError and the watcher a disconnect, after write_stall_s."""
    outcomes, ended = [], threading.Event()

    async def app(scope, receive, send):
        await receive()
        watcher = asyncio.create_task(receive())
        try:
            await send(start())
            while True:
                await send(piece(MEGABYTE))
        except OSError as error:
            outcomes.append(type(error).__name__)
        outcomes.append((await watcher)["type"])
        ended.set()

    client = serving(app, bounds={"write_stall_s": 0.2}).connect().send(GET)

    assert happens(ended)
    assert outcomes == ["ClientLeft", "http.disconnect"]
    with pytest.raises(ConnectionResetError):
        client.rest()


def test_a_slow_reader_of_the_last_piece_has_not_left(serving):
    """Who watches for the client leaving is not told so while the end of the answer is on its way."""
    outcomes, waiting, ended = [], threading.Event(), threading.Event()

    async def app(scope, receive, send):
        await receive()
        watcher = asyncio.create_task(receive())
        asyncio.get_running_loop().call_later(0.1, waiting.set)
        await send(start())
        await send(piece(30 * MEGABYTE, more=False))
        outcomes.append(watcher.done())
        outcomes.append((await watcher)["type"])
        ended.set()

    client = serving(app).connect().send(GET)
    assert happens(waiting)
    client.head()

    assert client.rest_of_chunks() == 30_000_000
    assert happens(ended)
    assert outcomes == [False, "http.disconnect"]


def test_a_slow_reader_that_moves_is_not_cut(serving):
    """Thrice write_stall_s in all, never that long without reading.

    Fails without TCP_NOTSENT_LOWAT: the kernel then asks for more a megabyte at a time, and
    until it does, the client seems to stand still.
    """
    app = sends(start(), *[piece(MEGABYTE)] * 3, piece(b"", more=False))
    client = serving(app, bounds={"write_stall_s": 0.3}).connect().send(GET)

    received = b""
    count = 0
    while not received.endswith(b"0\r\n\r\n"):
        data = client.sock.recv(30_000)
        assert data, "cut"
        received = received[-10:] + data
        count += len(data)
        time.sleep(0.008)
    assert count > 3_000_000


def test_an_unread_last_piece_does_not_hold_the_connection_for_ever(serving):
    """The answer is complete for the app, but the client never takes it."""
    ended, outcomes = threading.Event(), []

    async def app(scope, receive, send):
        try:
            await reply(send, MEGABYTE * 20)
        except OSError as error:
            outcomes.append(type(error).__name__)
        ended.set()

    server = serving(app, bounds={"write_stall_s": 0.2, "idle_s": 60})
    server.connect().send(GET)

    assert happens(ended)
    assert outcomes == ["ClientLeft"]


# ── early answers ──


def test_an_early_answer_is_readable_while_the_body_is_on_its_way(serving):
    """50 MB in flight: closing at once would send an RST that destroys the answer."""

    async def app(scope, receive, send):
        await reply(send, b"too large", status=413)

    client = serving(app).connect()
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 50000000\r\n\r\n" + bytes(50_000_000))

    status, fields, body = client.answer()
    assert (status, fields[b"connection"], body) == (413, b"close", b"too large")
    assert client.rest() == b""


@pytest.mark.parametrize("bound", [{"linger_s": 0.2}, {"linger_bytes": 100_000}], ids=["time", "bytes"])
def test_lingering_has_an_end(serving, bound):
    """Whoever goes on sending is cut."""

    async def app(scope, receive, send):
        await reply(send, b"no", status=401)

    client = serving(app, bounds=bound).connect()
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999\r\n\r\n")
    assert client.answer()[0] == 401

    def send_for_ever():
        while True:
            client.send(bytes(50_000))
            time.sleep(0.001)

    with pytest.raises(ConnectionError):
        send_for_ever()


# ── failures of the app ──


def test_a_failure_before_the_answer_is_a_500_without_details(serving):
    async def app(scope, receive, send):
        await send(start())
        raise LookupError("secret")

    server = serving(app)
    client = server.connect().send(GET)
    status, fields, body = client.answer()

    assert status == 500
    assert fields[b"x-request-id"] == b"req_of_the_server"
    assert fields[b"connection"] == b"close"
    assert json.loads(body)["error"]["code"] == "internal_error"
    assert b"secret" not in body
    assert b"LookupError" not in body
    assert client.rest() == b""
    assert [repr(error) for error in server.errors] == ["LookupError('secret')"]


def test_a_failure_on_head_has_no_body(serving):
    client = serving(sends()).connect().send(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")

    assert client.head()[0] == 500
    assert client.rest() == b""


def test_a_failure_within_the_answer_never_looks_complete(serving):
    async def app(scope, receive, send):
        await send(start())
        await send(piece(b"hello"))
        raise LookupError

    client = serving(app).connect().send(GET)
    client.until(b"\r\n\r\n")

    assert client.rest() == b"5\r\nhello\r\n"


def test_a_failure_within_an_answer_that_ends_with_the_connection_is_a_reset(serving):
    """HTTP/1.0 has no other way to show that something is missing."""

    async def app(scope, receive, send):
        await send(start())
        await send(piece(b"hello"))
        await asyncio.sleep(0.05)
        raise LookupError

    client = serving(app).connect().send(b"GET / HTTP/1.0\r\n\r\n")
    with pytest.raises(ConnectionResetError):
        client.rest()


@pytest.mark.parametrize(
    "messages",
    [
        pytest.param((start((b"content-length", b"5")), piece(b"hell", more=False)), id="too short"),
        pytest.param((start((b"content-length", b"5")), piece(b"hello world", more=False)), id="too long"),
        pytest.param((start((b"x", b"y\r\nset-cookie: z")), piece(b"", more=False)), id="split header"),
        pytest.param((piece(b"hello", more=False),), id="body without head"),
        pytest.param((start(), start()), id="two heads"),
        pytest.param(({"type": "http.response.trailers"},), id="unknown message"),
        pytest.param((), id="nothing"),
        pytest.param((start(),), id="head only"),
    ],
)
def test_what_must_not_be_sent_is_a_failure_of_the_app(serving, messages):
    server = serving(sends(*messages))
    client = server.connect().send(GET)

    assert client.answer()[0] == 500
    assert client.rest() == b""
    assert [type(error).__name__ for error in server.errors] == ["BadAnswer"]


@pytest.mark.parametrize(
    "last", [(piece(b"lo wo"),), (piece(b"l", more=False),), ()], ids=["long", "short", "none"]
)
def test_a_length_that_turns_out_wrong_ends_the_connection(serving, last):
    """The client can count."""
    server = serving(sends(start((b"content-length", b"5")), piece(b"hel"), *last))
    client = server.connect().send(GET)
    client.until(b"\r\n\r\n")

    assert client.rest() == b"hel"
    assert [type(error).__name__ for error in server.errors] == ["BadAnswer"]


def test_a_message_behind_the_end_does_no_harm(serving):
    server = serving(
        sends(start((b"content-length", b"1")), piece(b"a", more=False), piece(b"b", more=False))
    )
    client = server.connect()

    assert client.send(GET).answer()[2] == b"a"
    assert client.send(GET).answer()[2] == b"a"
    assert {type(error).__name__ for error in server.errors} == {"BadAnswer"}
