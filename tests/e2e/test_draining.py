"""drain-backend with a running gateway: nothing new goes there, what runs goes on."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.doubles import HEAD_OF_STREAM, Double, chat_frame, chat_stream, chunk, hang
from tests.engines import wait_until
from tests.gateways import Gateway

CHAT = {"model": "double", "messages": [{"role": "user", "content": "Hi"}]}


@pytest.fixture
def two() -> Iterator[tuple[Double, Double]]:
    with Double() as one, Double() as other:
        for double in (one, other):
            double.scripts["/api/chat"] = chat_stream()
        yield one, other


def asked(client: httpx.Client) -> int:
    return client.post("/api/chat", json=CHAT).status_code


def test_a_drained_backend_gets_nothing_new_and_finishes_what_runs(
    tmp_path: Path, two: tuple[Double, Double]
):
    """A stream that began there before goes on; with both drained, callers are told to come back."""
    first, second = two
    gateway = Gateway(tmp_path, OLLAMA_BACKENDS=f"one={first.url},two={second.url}")
    gateway.make_first_key()
    first.scripts["/api/chat"] = hang(HEAD_OF_STREAM, chunk(chat_frame("Hello")))
    try:
        gateway.start()
        with gateway.client() as client, client.stream("POST", "/api/chat", json=CHAT) as stream:
            lines = stream.iter_lines()
            assert "Hello" in next(lines)
            first.scripts["/api/chat"] = chat_stream()

            gateway.json("drain-backend", "one")
            gateway.json("drain-backend", "two")
            assert wait_until(lambda: asked(client) == 503, 30)
            refused = client.post("/api/chat", json=CHAT)
            assert (refused.status_code, "retry-after" in refused.headers) == (503, True)

            gateway.json("drain-backend", "two", "--undo")
            assert wait_until(lambda: asked(client) == 200, 30)
            before = len(first.inference)
            assert {asked(client) for _ in range(5)} == {200}
            assert len(first.inference) == before, "all of them went to the other one"
            assert not first.closed_early.is_set(), "the stream still runs there"
    finally:
        gateway.stop()


def test_it_holds_for_a_gateway_that_starts_later(tmp_path: Path, two: tuple[Double, Double]):
    """A restart takes nothing back into service that an operator took out."""
    first, second = two
    gateway = Gateway(tmp_path, OLLAMA_BACKENDS=f"one={first.url},two={second.url}")
    gateway.make_first_key()
    gateway.json("drain-backend", "one")
    try:
        gateway.start()
        with gateway.client() as client:
            assert {asked(client) for _ in range(5)} == {200}
    finally:
        gateway.stop()

    assert (len(first.inference), len(second.inference)) == (0, 5)
