"""The audit log over a real socket: one row for every request, and never a word of a prompt."""

import re
import sqlite3
from pathlib import Path

from tests.engines import wait_until
from tests.gateways import Gateway

CANARY = "canary-3f9a1c"
HELLO = [{"role": "user", "content": f"Hello {CANARY}!"}]


def test_every_request_leaves_exactly_one_row(own_gateway: Gateway):
    """Served, refused, unknown, malformed, unauthenticated, aborted: as many rows as answers."""
    ids = []
    with own_gateway.client() as client:
        for _ in range(20):
            ids += [
                client.get("/healthz"),
                client.get("/v1/models"),
                client.get("/v1/models", headers={"Authorization": "Bearer nope"}),
                client.post("/api/pull"),
                client.get("/nowhere"),
                client.get("/api//chat"),
                client.put("/api/chat"),
                client.post("/api/chat", content=b"{"),
                client.post("/api/chat", json={"model": "nope", "messages": HELLO}),
                client.post("/v1/chat/completions", json={"model": "greeting", "messages": HELLO}),
                client.post("/api/chat", json={"model": "greeting", "messages": HELLO}),
            ]
    own_gateway.stop()

    rows = {row["request_id"]: row for row in own_gateway.rows()}
    assert {answered.headers["x-request-id"] for answered in ids} == set(rows)
    assert [rows[answered.headers["x-request-id"]]["status"] for answered in ids] == [
        answered.status_code for answered in ids
    ]
    assert {row["outcome"] for row in rows.values()} == {"served", "refused"}


def test_a_served_chat_is_recorded_with_who_what_and_how_much(own_gateway: Gateway):
    with own_gateway.client() as client:
        answered = client.post(
            "/v1/chat/completions",
            json={"model": "greeting", "messages": HELLO},
            headers={"X-Request-Id": "theirs", "User-Agent": "test/1"},
        )
    row = own_gateway.row_of(answered.headers["x-request-id"])
    usage = answered.json()["usage"]

    assert row["tenant_id"]
    assert row["key_prefix"] == own_gateway.key[:11]
    assert (row["client_request_id"], row["user_agent"], row["peer"]) == ("theirs", "test/1", "127.0.0.1")
    assert (row["operation"], row["surface"], row["model"]) == (
        "chat_completions",
        "openai",
        "greeting:latest",
    )
    assert (row["prompt_tokens"], row["completion_tokens"]) == (
        usage["prompt_tokens"],
        usage["completion_tokens"],
    )
    assert row["tokens_estimated"] == 0
    assert row["bytes_out"] == len(answered.content)
    assert 0 < row["first_token_ms"] <= row["duration_ms"]


def test_no_prompt_and_no_answer_is_kept_or_logged(own_gateway: Gateway, tmp_path: Path):
    with own_gateway.client() as client:
        client.post("/api/chat", json={"model": "greeting", "messages": HELLO})
        client.post("/v1/chat/completions", json={"model": "nope", "messages": HELLO, "user": CANARY})
        client.post("/api/generate", json={"model": "greeting", "prompt": CANARY, CANARY: 1})
        client.get(f"/v1/models?secret={CANARY}", headers={"Cookie": CANARY, "X-Api-Key": CANARY})
    own_gateway.stop()

    written = {path.name: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert [name for name, data in written.items() if CANARY.encode() in data] == []
    assert [
        name for name, data in written.items() if b"my tiny weights" in data and not name.endswith("gguf")
    ] == []
    assert len(own_gateway.rows()) == 4


def test_a_request_log_line_cannot_be_forged(own_gateway: Gateway):
    """J1: newlines and escapes of a caller stay inside one JSON string."""
    with own_gateway.client() as client:
        client.get("/%0a%1b[31mforged", headers={"User-Agent": "x\x1b[31m"})
    own_gateway.stop()

    log = own_gateway.log.read_text()
    assert "\x1b" not in log
    assert all(line.startswith("{") and line.endswith("}") for line in log.splitlines())


def test_rows_wait_while_the_database_is_locked(own_gateway: Gateway):
    """H10: requests are served meanwhile, and none is forgotten."""
    with own_gateway.client() as client:
        # Known to the process: its key, and what its tenant has spent.
        client.post("/api/chat", json={"model": "greeting", "messages": HELLO, "stream": False})
        blocker = sqlite3.connect(own_gateway.directory / "data" / "gateway.db", isolation_level=None)
        blocker.execute("BEGIN EXCLUSIVE")
        during = client.post("/api/chat", json={"model": "greeting", "messages": HELLO, "stream": False})
        assert wait_until(lambda: "wait for the database" in own_gateway.log.read_text(), 10)
        blocker.execute("ROLLBACK")
        blocker.close()

    assert during.status_code == 200
    assert own_gateway.row_of(during.headers["x-request-id"])["outcome"] == "served"


def test_request_ids_sort_by_time(own_gateway: Gateway):
    with own_gateway.client() as client:
        ids = [client.get("/healthz").headers["x-request-id"] for _ in range(3)]

    assert all(re.fullmatch(r"req_[0-9a-f]{32}", one) for one in ids)
    assert len(set(ids)) == 3
