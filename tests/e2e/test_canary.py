"""Secrets and prompts are planted all over requests; then all that is kept and told is searched for them.

What may be kept of a caller's own words is the path, the model's name, the user agent and its request id, so
nothing is planted there.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from gateway.postgres_address import is_postgres
from gateway.storage.postgres.connecting import address_of
from gateway.storage.postgres.libpq import connect
from tests.collector import Collector
from tests.databases import ask
from tests.doubles import Double, answer, hang, raw, stream
from tests.engines import wait_until
from tests.gateways import SECRET, Gateway
from tests.servers import RedisServer

PROMPT = "CANARYprompt7f3a"
ANSWER = "CANARYanswer91bc"
HEADER = "CANARYheader55de"
CREDENTIAL = "CANARYcredential0c4e"
MESSAGES = [{"role": "system", "content": f"{PROMPT} system"}, {"role": "user", "content": PROMPT}]
HEADERS = {"X-Custom": HEADER, "Cookie": f"session={HEADER}", "Referer": f"http://a/?q={HEADER}"}
TOOL = {
    "type": "function",
    "function": {"name": "f", "description": PROMPT, "parameters": {"type": "object", "properties": {}}},
}


def frame(text: str, *, done: bool = False) -> dict[str, object]:
    counts = {"done_reason": "stop", "prompt_eval_count": 5, "eval_count": 3} if done else {}
    message = {"role": "assistant", "content": text}
    return {"model": "double:latest", "message": message, "done": done, **counts}


@pytest.fixture
def model_server() -> Iterator[Double]:
    with Double() as one:
        yield one


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as one:
        yield one


@pytest.fixture(params=["embedded", "fleet", "embedded, prompts kept", "fleet, prompts kept"])
def watched(
    request: pytest.FixtureRequest, tmp_path: Path, model_server: Double, collector: Collector
) -> Iterator[Gateway]:
    """A gateway that logs all that it can."""
    settings = {
        "OLLAMA_BACKENDS": f"double={model_server.url};key-env=BACKEND_KEY",
        "BACKEND_KEY": CREDENTIAL,
        "GATEWAY_LOG_LEVEL": "DEBUG",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "GATEWAY_SECRET": SECRET,
    }
    mode, _, is_kept = request.param.partition(", ")
    if mode == "fleet":
        redis: RedisServer = request.getfixturevalue("redis_server")
        redis.ask("FLUSHALL")
        redis.ask("CONFIG", "SET", "rdbcompression", "no")
        settings |= {"DATABASE_URL": request.getfixturevalue("postgres_url"), "REDIS_URL": redis.url}
    one = Gateway(tmp_path, **settings)
    one.make_first_key()
    if is_kept:
        one.json("update-key", "--prefix", one.key[:11], "--log-prompts", "7d")
    try:
        yield one.start()
    finally:
        one.stop()


def drive(gateway: Gateway, model_server: Double) -> list[str]:
    """Requests of every kind with canaries in them, and the answers to those that are errors."""
    told: list[str] = []
    with gateway.client() as client:
        client.headers.update(HEADERS)

        def post(path: str, **body: object) -> None:
            answered = client.post(path, json=body)
            if answered.status_code >= 400:
                told.append(answered.text)

        model_server.scripts["/api/chat"] = stream(frame(ANSWER), frame(f"{ANSWER}!", done=True))
        for path in ("/api/chat", "/v1/chat/completions", "/v1/messages"):
            post(path, model="double", messages=MESSAGES[1:], max_tokens=50, stream=True)
        post("/v1/chat/completions", model="double", messages=MESSAGES, tools=[TOOL], user=PROMPT)
        post("/v1/responses", model="double", input=PROMPT, instructions=PROMPT, stream=True)
        # Refused by what is in it.
        post("/v1/chat/completions", model="double", messages=MESSAGES, temperature=PROMPT)
        post("/v1/chat/completions", model="double", messages=[{"role": PROMPT, "content": PROMPT}])
        post("/v1/chat/completions", model="double", messages=MESSAGES, logit_bias={PROMPT: 1})
        post("/api/chat", model="double", messages=PROMPT)
        post("/api/pull", model="double", prompt=PROMPT)
        told.append(client.post("/api/chat", content=f'{{"model": "double", "{PROMPT}').text)
        told.append(client.get(f"/v1/models?key={HEADER}").text)
        # By whom it comes from.
        wrong = {"Authorization": f"Bearer {gateway.key[:-1]}x"}
        told.append(
            client.post("/api/chat", json={"model": "double", "messages": MESSAGES}, headers=wrong).text
        )
        twice = {"x-api-key": gateway.key}
        told.append(client.post("/v1/messages", json={"model": "double"}, headers=twice).text)
        # By a backend that repeats what it was sent, breaks, and raves.
        for script in (
            answer(500, {"error": f"cannot answer {PROMPT} for {CREDENTIAL}"}),
            answer(200, b"{" + PROMPT.encode()),
            raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n" + ANSWER.encode()),
            raw(PROMPT.encode()),
        ):
            model_server.scripts["/api/chat"] = script
            post("/api/chat", model="double", messages=MESSAGES, stream=False)
        # A client that leaves.
        model_server.scripts["/api/chat"] = hang(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        with pytest.raises(httpx.TimeoutException):
            client.post("/api/chat", json={"model": "double", "messages": MESSAGES}, timeout=0.5)
    return told


def kept_in_database(gateway: Gateway) -> bytes:
    """All of every table, as text; of SQLite its files, with what was deleted."""
    if not is_postgres(gateway.database_url):
        files = gateway.directory.glob("data/gateway.db*")
        return b"".join(path.read_bytes() for path in files)
    found: list[str] = []
    with connect(address_of(gateway.database_url)) as connection:
        names = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        for (name,) in names:
            rows = connection.execute(f'SELECT t::text FROM "{name}" t'.encode()).fetchall()
            found += [row[0] for row in rows]
    return "\n".join(found).encode()


def kept_in_redis(server: RedisServer) -> bytes:
    """Its whole memory, uncompressed."""
    assert server.ask("SAVE") == b"+OK"
    return (server.folder / "dump.rdb").read_bytes()


def is_all_kept(gateway: Gateway) -> bool:
    """Whether its prompt log has written all that it was given."""
    told = httpx.get(f"{gateway.ops_url}/metrics", trust_env=False, timeout=30).text
    return "gateway_prompt_log_bytes 0.0" in told and "gateway_prompts_kept_total 0.0" not in told


@pytest.mark.parametrize("watched", ["embedded, prompts kept", "fleet, prompts kept"], indirect=True)
def test_what_is_purged_can_be_shown_before_and_is_nowhere_after(watched: Gateway, model_server: Double):
    """Neither in clear nor sealed, nor the keys that sealed it; of SQLite also not in its free pages."""
    drive(watched, model_server)
    prefix = watched.key[:11]
    assert wait_until(lambda: is_all_kept(watched), 60)
    shown = json.dumps(watched.json("show-prompts", "--prefix", prefix, "--limit", "1000"))
    sealed = [bytes(row["sealed"]) for row in ask(watched.database_url, "SELECT sealed FROM prompts")]
    wrapped = [bytes(row["wrapped"]) for row in ask(watched.database_url, "SELECT wrapped FROM prompt_keys")]
    assert sealed
    assert wrapped
    assert PROMPT in shown
    assert ANSWER in shown

    purged = watched.json("purge-prompts", "--prefix", prefix, "--yes")

    assert (purged["prompts"], purged["data_keys"]) == (len(sealed), len(wrapped))
    assert watched.json("show-prompts", "--prefix", prefix) == []
    kept = kept_in_database(watched)
    if is_postgres(watched.database_url):
        rows = ask(watched.database_url, "SELECT 1 FROM prompts UNION ALL SELECT 1 FROM prompt_keys")
        assert rows == []
    assert [secret for secret in (*sealed, *wrapped) if secret in kept] == []
    assert PROMPT.encode() not in kept


def test_nothing_planted_is_kept_or_told(
    watched: Gateway, model_server: Double, collector: Collector, request: pytest.FixtureRequest
):
    """Also where prompts are kept: sealed, they are not to be read."""
    errors = drive(watched, model_server)
    if watched.json("show-key", "--prefix", watched.key[:11])["log_prompts_s"]:
        assert wait_until(lambda: is_all_kept(watched), 60)
    spool = b"".join(path.read_bytes() for path in watched.directory.rglob("spool/**/*") if path.is_file())
    metrics = httpx.get(f"{watched.ops_url}/metrics", trust_env=False, timeout=30).content
    assert wait_until(lambda: len(watched.rows("path = '/api/chat'")) >= 8, 30)
    places = {
        "spool": spool,
        "metrics": metrics,
        "database": kept_in_database(watched),
        "audit": json.dumps(watched.rows(), default=str).encode(),
        "log": watched.log.read_bytes(),
    }
    if "REDIS_URL" in watched.environment:
        places["redis"] = kept_in_redis(request.getfixturevalue("redis_server"))
    watched.stop()
    places["log"] = watched.log.read_bytes()
    places["traces"] = b"".join(collector.bodies)
    assert places["traces"]
    secrets = {
        "prompt": PROMPT,
        "answer": ANSWER,
        "header": HEADER,
        "credential": CREDENTIAL,
        "key": watched.key[11:],
        "secret": SECRET,
    }

    assert len(errors) >= 12
    found = [
        f"{secret} in {place}"
        for place, kept in places.items()
        for secret, planted in secrets.items()
        if planted.encode() in kept
    ]
    assert found == []
    # A backend that repeats the prompt tells it to its own caller, and that is all.
    for_no_caller = [CREDENTIAL, SECRET, HEADER, watched.key[11:]]
    assert [text for text in errors if any(planted in text for planted in for_no_caller)] == []
    assert [text for text in errors if PROMPT in text and "cannot answer" not in text] == []


def test_the_canaries_are_really_planted(watched: Gateway, model_server: Double):
    """The search would find them where they do belong: at the backend."""
    drive(watched, model_server)

    sent = b"".join(one.body for one in model_server.inference)
    assert PROMPT.encode() in sent
    assert any(one.headers.get("authorization") == f"Bearer {CREDENTIAL}" for one in model_server.inference)
    assert not any(HEADER in str(one.headers) for one in model_server.inference)
    assert not any(watched.key in str(one.headers) for one in model_server.inference)
