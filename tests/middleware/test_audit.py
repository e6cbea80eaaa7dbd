"""Audit: one row for each request, whatever becomes of it."""

import asyncio
import gc
import ipaddress
import weakref

import pytest

from gateway.errors import ClientLeft, MutationBlocked, Unauthenticated
from gateway.middleware.audit import Audit
from gateway.middleware.context import answer, exchange_of, is_done
from gateway.middleware.errors import Errors
from gateway.model import Outcome, Route
from tests.asgi import HOST, FakeClock, Rows, call, nobody, scope_of


def audited(app, sink: Rows, **settings) -> Audit:
    return Audit(app, clock=FakeClock(), new_id=lambda: "r1", sinks=[sink], **settings)


async def ok(scope, receive, send):
    await answer(send, 200, b"fine")


async def test_a_served_request_leaves_one_row():
    sink = Rows()

    answered = await call(
        audited(ok, sink), "GET", "/api/tags?secret=1", headers=[HOST, (b"user-agent", b"curl/8")]
    )

    assert answered.headers["x-request-id"] == "r1"
    (row,) = sink.rows
    assert (row.request_id, row.method, row.path, row.status, row.outcome) == (
        "r1",
        "GET",
        "/api/tags",
        200,
        "served",
    )
    assert (row.peer, row.user_agent, row.bytes_out) == ("192.0.2.1", "curl/8", 4)
    assert row.received_at_us == 1_800_000_000_000_000


@pytest.mark.parametrize(("path", "is_told"), [("/v1/messages", True), ("/v1/models", False)])
async def test_anthropics_clients_find_the_request_id_under_their_own_name(path: str, is_told: bool):
    answered = await call(audited(ok, Rows()), "POST", path)

    assert answered.headers["x-request-id"] == "r1"
    assert answered.headers.get("request-id") == ("r1" if is_told else None)


@pytest.mark.parametrize("is_at_once", [False, True], ids=["slow-reader", "at-once"])
@pytest.mark.parametrize("is_admitted", [False, True], ids=["refused", "admitted"])
async def test_nobody_has_an_answer_that_a_kill_would_leave_without_a_row(
    is_admitted: bool, is_at_once: bool
):
    """Where an admitted client may still leave, its intent tells until it is known whether it did."""
    sink = Rows()
    rows_at = []
    scope = scope_of()

    async def app(scope, receive, send):
        exchange_of(scope).is_admitted = is_admitted
        await answer(send, 200, b"fine")
        raise ClientLeft

    async def send(message):
        if message["type"] == "http.response.body":
            scope["extensions"]["gateway.before_end"](is_at_once)  # as our server does
            rows_at.append(len(sink.rows))

    await audited(app, sink)(scope, nobody, send)

    is_late = is_admitted and not is_at_once
    assert rows_at == [0 if is_late else 1]
    (row,) = sink.rows
    assert (row.status, row.bytes_out) == (200, 4)
    assert row.outcome == (Outcome.CLIENT_LEFT if is_late else Outcome.SERVED)


async def test_what_the_server_refuses_is_recorded_before_it_says_so():
    """The body broke under way: the app is told that the client left, and the client is told 400."""
    sink = Rows()
    rows_at = []

    async def app(scope, receive, send):
        scope["extensions"]["gateway.refused_status"] = 400
        scope["extensions"]["gateway.before_end"](True)
        rows_at.append(len(sink.rows))
        raise ClientLeft

    await audited(app, sink)(scope_of("POST", "/api/chat"), nobody, nobody)

    assert rows_at == [1]
    assert [(row.status, row.outcome) for row in sink.rows] == [(400, Outcome.REFUSED)]


async def test_the_target_is_classified_once_for_all_layers():
    """What the layers below decide on is the table's verdict on the raw target."""
    seen = []

    async def app(scope, receive, send):
        seen.append(exchange_of(scope).route)
        await answer(send, 200, b"")

    await call(audited(app, Rows()), "POST", "/api/%70ull")
    await call(audited(app, Rows()), "POST", "/api/chat")

    assert isinstance(seen[0], MutationBlocked)
    assert isinstance(seen[1], Route)


async def test_a_client_that_left_is_recorded_as_such():
    """The row says 499, which is never sent."""
    sink = Rows()

    async def app(scope, receive, send):
        raise ClientLeft

    async def nothing(message):
        raise AssertionError("nothing is sent to a client that left")

    await audited(app, sink)(scope_of(), nobody, nothing)

    assert (sink.rows[0].status, sink.rows[0].outcome) == (499, Outcome.CLIENT_LEFT)


async def test_a_client_that_leaves_at_the_frame_of_a_failure_did_not_end_the_request():
    """As official clients do, who raise at it and close the connection."""
    sink = Rows()

    async def app(scope, receive, send):
        exchange = exchange_of(scope)
        exchange.status, exchange.outcome = 200, Outcome.BACKEND_FAILED
        raise ClientLeft

    async def nothing(message):
        raise AssertionError("nothing is sent any more")

    await audited(app, sink)(scope_of(), nobody, nothing)

    (row,) = sink.rows
    assert (row.status, row.outcome) == (200, "backend_failed")


async def test_a_send_that_fails_means_the_client_left():
    """ASGI 2.4: send raises OSError after a disconnect; the layers below see ClientLeft."""
    sink = Rows()
    seen = []

    async def app(scope, receive, send):
        try:
            await answer(send, 200, b"fine")
        except ClientLeft:
            seen.append("left")
            raise

    async def gone(message):
        raise BrokenPipeError

    await audited(app, sink)(scope_of(), nobody, gone)

    assert seen == ["left"]
    assert sink.rows[0].outcome == Outcome.CLIENT_LEFT


@pytest.mark.parametrize(
    "error", [RuntimeError("bug"), asyncio.CancelledError()], ids=["bug", "cancellation"]
)
async def test_whatever_is_raised_the_row_is_written(error: BaseException):
    sink = Rows()

    async def app(scope, receive, send):
        raise error

    with pytest.raises(type(error)):
        await call(audited(app, sink))

    assert len(sink.rows) == 1


async def test_the_peer_behind_a_trusted_proxy_is_recorded():
    sink = Rows()
    proxies = (ipaddress.ip_network("192.0.2.0/24"),)

    await call(
        audited(ok, sink, trusted_proxies=proxies), headers=[HOST, (b"x-forwarded-for", b"198.51.100.7")]
    )

    assert sink.rows[0].peer == "198.51.100.7"


@pytest.fixture
def no_collector():
    """What is freed is freed because nobody knows it any more."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def refused(scope, receive, send):
    exchange = exchange_of(scope)
    try:
        raise MutationBlocked
    except MutationBlocked as error:
        exchange.error = error
    await answer(send, 403, b"no")


@pytest.mark.parametrize("app", [ok, refused])
async def test_what_a_request_knows_is_freed_with_it(app, no_collector: None):
    """Its body may be 20 MiB, and the collector comes after many requests."""
    known = []

    async def noted(scope, receive, send):
        known.append(weakref.ref(exchange_of(scope)))
        await app(scope, receive, send)

    await call(audited(noted, Rows()), "POST", "/api/chat", headers=[HOST])

    assert known[0]() is None


async def test_what_is_refused_at_once_is_done_when_it_was_told():
    """By a server whose `send` has nothing to wait for: no task, and the row is there."""
    sink = Rows()
    told: list[dict[str, object]] = []
    done = asyncio.get_running_loop().create_future()
    done.set_result(None)

    def refusing(*_):
        raise Unauthenticated

    def send(message):
        told.append(message)
        return done

    app = audited(Errors(refusing, chance=float), sink)
    answering = app(scope_of("POST", "/api/chat"), nobody, send)

    assert is_done(answering)
    assert [message.get("status") for message in told] == [401, None]
    assert [(row.status, row.error_code) for row in sink.rows] == [(401, "invalid_api_key")]


@pytest.mark.parametrize("error", [ClientLeft, ZeroDivisionError])
async def test_what_a_layer_raises_when_it_is_called_is_recorded_like_what_it_raises_later(error):
    sink = Rows()

    def raising(*_):
        raise error

    answering = audited(raising, sink)(scope_of(), nobody, nobody)
    if error is ClientLeft:
        await answering
    else:
        with pytest.raises(error):
            await answering

    assert [row.outcome for row in sink.rows] == [Outcome.CLIENT_LEFT]
