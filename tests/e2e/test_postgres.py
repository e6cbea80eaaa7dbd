"""A gateway whose database is Postgres: what it does is kept there, whatever happens to either of them."""

import os
import signal
from typing import Any

import httpx

from tests.databases import ask
from tests.engines import wait_until
from tests.gateways import Gateway
from tests.postgres_server import PostgresServer

CHAT = {"model": "greeting", "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 20}


def chat(gateway: Gateway) -> httpx.Response:
    with gateway.client() as client:
        return client.post("/v1/chat/completions", json=CHAT)


def kill(gateway: Gateway) -> None:
    assert gateway.process is not None
    os.kill(gateway.process.pid, signal.SIGKILL)
    gateway.wait()


def ledger_of(gateway: Gateway) -> list[dict[str, Any]]:
    return ask(gateway.database_url, "SELECT * FROM ledger ORDER BY reservation_id")


def test_what_was_asked_is_in_the_audit_log_and_in_the_ledger(postgres_gateway: Gateway):
    """And the sums are what the ledger adds up to; the command line reads the same database."""
    answer = chat(postgres_gateway)
    used = answer.json()["usage"]["total_tokens"]
    row = postgres_gateway.row_of(answer.headers["x-request-id"])
    assert wait_until(lambda: [one["evidence"] for one in ledger_of(postgres_gateway)] == ["settled"], 5)

    assert (row["status"], row["stream"], row["tokens_estimated"]) == (200, False, False)
    assert row["prompt_tokens"] + row["completion_tokens"] == used == ledger_of(postgres_gateway)[0]["tokens"]
    shown = postgres_gateway.json("show-tenant", "--name", "acme")
    assert shown["usage"]["total_tokens"]["tenant"]["used"] == used
    assert postgres_gateway.json("verify-ledger") == {
        "equal": True,
        "differences": [],
        "usage_differences": [],
    }


def test_a_stream_of_a_killed_gateway_is_charged_its_whole_reservation(postgres_gateway: Gateway):
    """By the next start: nobody knows how much of it was used."""
    with postgres_gateway.client() as client:
        call = {**CHAT, "model": "endless", "max_tokens": 32_000, "stream": True}
        with client.stream("POST", "/v1/chat/completions", json=call) as answer:
            next(answer.iter_lines())
            kill(postgres_gateway)
    postgres_gateway.start()
    postgres_gateway.stop()

    (entry,) = ledger_of(postgres_gateway)
    assert (entry["reservation_id"], entry["evidence"]) == (answer.headers["x-request-id"], "recovered")
    assert entry["tokens"] == entry["reserved"] >= 32_000
    assert entry["estimated"]
    assert postgres_gateway.json("verify-ledger")["equal"]


def test_a_killed_gateway_and_a_killed_postgres_forget_nothing(
    postgres_gateway: Gateway, postgres_server: PostgresServer
):
    """Of each request one row and one entry: what Postgres did not get waits on the gateway's disk."""
    answers = [chat(postgres_gateway)]
    postgres_server.kill()
    try:
        # The key is known, and limits are counted in the process.
        answers += [chat(postgres_gateway) for _ in range(3)]
        kill(postgres_gateway)
    finally:
        postgres_server.start()
    postgres_gateway.start()
    answers.append(chat(postgres_gateway))
    postgres_gateway.stop()

    assert [answer.status_code for answer in answers] == [200] * 5
    ids = [answer.headers["x-request-id"] for answer in answers]
    assert [row["request_id"] for row in postgres_gateway.rows("operation IS NOT NULL")] == ids
    entries = ledger_of(postgres_gateway)
    assert [(one["reservation_id"], one["evidence"]) for one in entries] == [(id, "settled") for id in ids]
    assert [one["tokens"] for one in entries] == [
        answer.json()["usage"]["total_tokens"] for answer in answers
    ]
    assert postgres_gateway.json("verify-ledger")["equal"]
