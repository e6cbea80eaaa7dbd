"""GATEWAY_SERVER=hypercorn: what callers rely on holds without the gateway's own connections, too."""

import json
from collections.abc import Iterator

import httpx
import pytest

from gateway.demo.engine import Engine
from tests.e2e.test_lifecycle import HELLO, Reader
from tests.engines import busy_slots, wait_until
from tests.gateways import Gateway

CHAT = {"model": "greeting", "messages": HELLO}


@pytest.fixture(scope="module")
def stock(
    tmp_path_factory: pytest.TempPathFactory, engine_endless: Engine, engine_greeting: Engine
) -> Iterator[Gateway]:
    one = gateway_at(tmp_path_factory, engine_endless, engine_greeting)
    try:
        yield one.start()
    finally:
        one.stop()


@pytest.fixture
def own_stock(
    tmp_path_factory: pytest.TempPathFactory, engine_endless: Engine, engine_greeting: Engine
) -> Iterator[Gateway]:
    """One that a test may stop."""
    one = gateway_at(tmp_path_factory, engine_endless, engine_greeting)
    try:
        yield one
    finally:
        one.stop()


def gateway_at(factory: pytest.TempPathFactory, endless: Engine, greeting: Engine) -> Gateway:
    backends = f"words={greeting.url};kind=openai,loop={endless.url};kind=openai"
    one = Gateway(factory.mktemp("stock"), OLLAMA_BACKENDS=backends, GATEWAY_SERVER="hypercorn")
    one.make_first_key()
    return one


def test_a_plain_answer_comes_whole_with_its_row(stock: Gateway):
    """Over a connection that is kept for the next one."""
    with stock.client() as client:
        answers = [client.post("/v1/chat/completions", json=CHAT) for _ in range(3)]

    for answered in answers:
        assert answered.status_code == 200
        assert answered.json()["choices"][0]["message"]["content"]
        row = stock.row_of(answered.headers["x-request-id"])
        assert (row["outcome"], row["status"]) == ("served", 200)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/chat"])
def test_a_stream_comes_to_its_end(stock: Gateway, path: str):
    with (
        stock.client() as client,
        client.stream("POST", path, json={**CHAT, "stream": True}) as answered,
    ):
        lines = [line for line in answered.iter_lines() if line]

    assert answered.status_code == 200
    assert lines[-1] == "data: [DONE]" or json.loads(lines[-1])["done"] is True
    assert stock.row_of(answered.headers["x-request-id"])["outcome"] == "served"


def test_who_has_no_key_is_told_so(stock: Gateway):
    answered = httpx.post(f"{stock.url}/v1/chat/completions", json=CHAT, trust_env=False)

    assert answered.status_code == 401
    assert answered.json()["error"]["code"] == "invalid_api_key"
    assert stock.row_of(answered.headers["x-request-id"])["status"] == 401


def test_a_limit_holds_and_is_told(stock: Gateway):
    stock.json("create-tenant", "--name", "rpm", "--rpm", "1")
    key = stock.json("create-key", "--tenant", "rpm", "--name", "only")["key"]
    with httpx.Client(headers={"Authorization": f"Bearer {key}"}, timeout=30, trust_env=False) as client:
        answers = [client.post(f"{stock.url}/v1/chat/completions", json=CHAT) for _ in range(2)]

    assert [one.status_code for one in answers] == [200, 429]
    assert int(answers[1].headers["retry-after"]) >= 1


def test_a_websocket_is_refused(stock: Gateway):
    """Hypercorn offers one to the app; nobody gets past it."""
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    with stock.client() as client:
        assert client.get("/v1/models", headers=upgrade).status_code == 403


def test_a_client_that_leaves_mid_stream_stops_the_engine(stock: Gateway, engine_endless: Engine):
    """Its slot is free again, and its row says what happened."""
    body = {"model": "endless", "messages": HELLO, "stream": True}
    with stock.client() as client, client.stream("POST", "/v1/chat/completions", json=body) as answered:
        pieces = answered.iter_bytes()  # kept: httpx closes the stream with its iterator
        next(pieces)
        assert wait_until(lambda: busy_slots(engine_endless) == 1, 5)

    assert wait_until(lambda: busy_slots(engine_endless) == 0, 5)
    row = stock.row_of(answered.headers["x-request-id"])
    assert row["outcome"] == "client_left"
    assert row["completion_tokens"] > 0


def test_a_drain_finishes_what_runs_and_refuses_what_is_new(own_stock: Gateway):
    own_stock.start()
    reader = Reader(own_stock, "/api/chat", model="endless", messages=HELLO, options={"num_predict": 3000})
    reader.start()
    assert reader.begun.wait(10)

    own_stock.terminate()
    with own_stock.client() as client:
        assert wait_until(lambda: client.get("/readyz").status_code == 503, 5)
        refused = client.post("/v1/chat/completions", json=CHAT)

    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
    assert refused.headers["connection"] == "close"
    assert own_stock.wait(30) == 0
    reader.join(5)
    assert json.loads(reader.lines[-1])["done_reason"] == "length"
    (row,) = own_stock.rows("operation = 'chat' AND stream = 1")
    assert row["outcome"] == "served"
    assert "Traceback" not in own_stock.log.read_text()


def test_a_drain_out_of_time_ends_streams_with_an_error(own_stock: Gateway):
    own_stock.environment["GATEWAY_DRAIN_S"] = "0.5"
    own_stock.start()
    reader = Reader(own_stock, "/api/chat", model="endless", messages=HELLO)
    reader.start()
    assert reader.begun.wait(10)

    own_stock.terminate()

    assert own_stock.wait(15) == 0
    reader.join(5)
    assert reader.failure is None
    assert "error" in json.loads(reader.lines[-1])
