"""Keys over a real socket: what a wrong one costs, and how fast a revoked one dies."""

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.app import build
from gateway.config import parse
from gateway.resources import Resources
from gateway.rules.keys import is_well_formed, new_token
from gateway.server.configuration import configuration
from gateway.server.lifecycle import Shutdown
from gateway.server.worker import serve
from tests.gateways import Gateway

MODELS = "/v1/models"


class InThread:
    """The same server in a thread of the test, so that its counters can be read."""

    def __init__(self, made: Gateway) -> None:
        database = made.directory / "data" / "gateway.db"
        self.resources = Resources(
            parse(
                {
                    "DATABASE_URL": f"sqlite:///{database}",
                    "GATEWAY_DATA_DIR": str(made.directory / "data"),
                    "OLLAMA_BACKENDS": "http://127.0.0.1:1",
                }
            )
        )
        self.url = ""
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    def __enter__(self) -> "InThread":
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._loop.call_soon_threadsafe(self._shutdown.ask)
        self._thread.join(10)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._shutdown = Shutdown()
        await serve(
            build(self.resources),
            configuration("127.0.0.1:0"),
            lifecycle=self.resources.lifecycle,
            new_id=self.resources.new_id,
            on_error=print,
            shutdown=self._shutdown,
            on_listening=self._listening,
        )

    def _listening(self, addresses: list[tuple[str, int]]) -> None:
        self.url = f"http://127.0.0.1:{addresses[0][1]}"
        self._ready.set()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Gateway:
    one = Gateway(tmp_path_factory.mktemp("keys"))
    one.make_first_key()
    return one


@pytest.fixture(scope="module")
def in_thread(made: Gateway) -> Iterator[InThread]:
    with InThread(made) as running:
        yield running


def wrong_keys(good: str) -> dict[str, str | None]:
    """Every kind of key that is none."""
    random = iter(range(10**6))
    other = new_token(lambda below: next(random) % below)
    assert is_well_formed(other)
    return {
        "none": None,
        "empty": "",
        "another, well-formed one": other,
        "the secret of one with the prefix of another": good[:11] + other[11:],
        "one character changed": good[:20] + ("A" if good[20] != "A" else "B") + good[21:],
        "truncated": good[:-1],
        "too long": good + "A",
        "SQL": "nz_' OR '1'='1",
        "wildcards": "nz_" + "%" * 48,
        "not ASCII": "nz_" + "\u00e4" * 48,
        "OpenAI's": "sk-proj-abc",
    }


def test_a_wrong_key_costs_no_argon2_and_looks_like_any_other(made: Gateway, in_thread: InThread):
    """One body for all, and not one run of the slow hash: a flood of keys can't buy CPU time."""
    before = in_thread.resources.hasher.verifications
    bodies, statuses = set(), set()

    with httpx.Client(base_url=in_thread.url, trust_env=False) as client:
        for token in wrong_keys(made.key).values():
            headers: Any = {} if token is None else {"Authorization": f"Bearer {token}".strip().encode()}
            answered = client.get(MODELS, headers=headers)
            statuses.add((answered.status_code, answered.headers.get("www-authenticate")))
            bodies.add(answered.content)

    assert statuses == {(401, "Bearer")}
    assert len(bodies) == 1
    assert in_thread.resources.hasher.verifications == before


def test_a_good_key_costs_one_argon2_for_all_its_requests(made: Gateway, in_thread: InThread):
    key = made.json("create-key", "--tenant", "acme", "--name", "counted")["key"]
    before = in_thread.resources.hasher.verifications

    with httpx.Client(
        base_url=in_thread.url, headers={"Authorization": f"Bearer {key}"}, trust_env=False
    ) as client:
        statuses = {client.get(MODELS).status_code for _ in range(20)}

    assert statuses == {200}
    assert in_thread.resources.hasher.verifications == before + 1


def test_a_new_key_works_at_once_even_where_it_was_tried_before(gateway: Gateway):
    """C21: nothing remembers that a prefix did not exist for longer than a second."""
    key = gateway.json("create-key", "--tenant", "acme", "--name", "brand-new")["key"]

    with gateway.client() as client:
        assert client.get(MODELS, headers={"Authorization": f"Bearer {key}"}).status_code == 200


def test_a_revoked_key_is_refused_within_a_second(gateway: Gateway):
    """Used all the time while it is revoked: the last success is at most a second behind the command."""
    made = gateway.json("create-key", "--tenant", "acme", "--name", "to-revoke")
    headers = {"Authorization": f"Bearer {made['key']}"}
    served_at: list[float] = []
    stop = threading.Event()

    def use() -> None:
        with httpx.Client(base_url=gateway.url, headers=headers, trust_env=False) as client:
            while not stop.is_set():
                asked_at = time.monotonic()
                if client.get(MODELS).status_code == 200:
                    served_at.append(asked_at)

    user = threading.Thread(target=use)
    user.start()
    gateway.json("revoke-key", "--prefix", made["prefix"])
    returned_at = time.monotonic()
    time.sleep(1.5)
    stop.set()
    user.join()

    assert served_at[0] < returned_at, "it worked before"
    assert served_at[-1] - returned_at < 1.0
    with gateway.client() as client:
        refused = client.get(MODELS, headers=headers)
        unknown = client.get(MODELS, headers={"Authorization": "Bearer nz_unknown"})
    assert (refused.status_code, refused.content) == (401, unknown.content)


def test_a_key_s_last_use_is_listed(own_gateway: Gateway):
    (before,) = own_gateway.json("list-keys")
    with own_gateway.client() as client:
        client.get(MODELS)
    own_gateway.stop()

    (after,) = own_gateway.json("list-keys")

    assert before["last_used_at"] is None
    assert after["last_used_at"] is not None


def test_the_key_is_nowhere_but_where_it_was_printed(own_gateway: Gateway, tmp_path: Path):
    """C18: after use in all the wrong places, its secret part is in no file of the gateway."""
    with own_gateway.client() as client:
        client.get(MODELS)
        client.get(f"/v1/models/{own_gateway.key}")
        client.get(
            f"/{own_gateway.key}", headers={"User-Agent": own_gateway.key, "X-Request-Id": own_gateway.key}
        )
        client.post(
            "/api/chat", json={"model": own_gateway.key, "messages": [{"role": "user", "content": "x"}]}
        )
        client.post("/api/chat", content=own_gateway.key)
    own_gateway.stop()

    secret = own_gateway.key[11:].encode()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(own_gateway.rows()) == 5
    assert [path.name for path in files if secret in path.read_bytes()] == []
