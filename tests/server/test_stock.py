"""Hypercorn's own connections under our start, drain and counts."""

from __future__ import annotations

import json
import threading

import pytest

from tests.server.live import happens, read_body, reply
from tests.server.test_requests import post
from tests.server.test_shutdown import GET, Worker, cancelled_before_its_answer, get, wait_for


@pytest.fixture
def stock(serving):
    def start(answer, **options):
        return serving(answer, by_hypercorn=True, **options)

    return start


def test_bodies_are_read_and_answered_over_one_connection(stock):
    async def echo(scope, receive, send):
        await reply(send, await read_body(receive))

    client = stock(echo).connect()

    assert [client.send(post(body)).answer()[2] for body in (b"one", bytes(300_000))] == [
        b"one",
        bytes(300_000),
    ]


def at_work(stock):
    """An app, its server, and the client whose answer it has begun."""
    app = Worker()
    server = stock(app)
    app.lifecycle = server.lifecycle
    client = server.connect().send(get(b"/stream"))
    assert happens(app.at_work)
    return app, server, client


def test_requests_in_flight_are_counted(stock):
    app, server, client = at_work(stock)

    assert server.lifecycle.in_flight == 1
    app.go_on.set()
    assert client.answer()[2] == b"begunfinished"
    wait_for(lambda: server.lifecycle.in_flight == 0)


def test_a_drain_finishes_what_is_in_flight_and_answers_meanwhile(stock):
    app, server, client = at_work(stock)
    server.ask_to_stop()
    wait_for(lambda: server.lifecycle.draining)

    probe = server.connect().send(get(b"/readyz"))
    status, fields, _ = probe.answer()
    assert (status, fields[b"connection"]) == (503, b"close")
    assert probe.rest() == b""
    app.go_on.set()
    assert client.answer()[2] == b"begunfinished"
    assert client.rest() == b""
    assert server.ended()
    assert server.failure is None


def test_an_idle_connection_does_not_hold_up_the_end(stock):
    server = stock(Worker())
    client = server.connect().send(GET)
    client.answer()
    server.ask_to_stop()

    assert server.ended()
    assert client.rest() == b""


def test_a_request_that_is_cancelled_before_its_answer_is_told_503(stock):
    assert cancelled_before_its_answer(stock)[b"x-request-id"] == b"req_of_the_server"


def test_an_app_that_raises_is_a_500_and_is_told_of(stock):
    async def app(scope, receive, send):
        raise LookupError

    server = stock(app)
    status, _, body = server.connect().send(GET).answer()

    assert (status, json.loads(body)["error"]["code"]) == (500, "internal_error")
    assert [type(error) for error in server.errors] == [LookupError]


def test_an_answer_that_breaks_never_looks_complete(stock):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        raise LookupError

    client = stock(app).connect().send(GET)

    assert b"0\r\n\r\n" not in client.rest()


def test_a_client_that_leaves_is_told_to_the_app(stock):
    saw_leave = threading.Event()

    async def app(scope, receive, send):
        while (await receive())["type"] != "http.disconnect":
            pass
        saw_leave.set()

    stock(app).connect().send(GET).leave()

    assert happens(saw_leave)


def test_only_so_many_connections_are_taken(stock):
    server = stock(Worker(), bounds={"max_connections": 1})
    server.connect().send(GET).answer()

    with pytest.raises((ConnectionResetError, AssertionError)):
        server.connect().send(GET).answer()
