"""Usage of a running gateway is what its ledger and audit log add up to, whatever became of requests."""

import contextlib

import httpx

from tests.databases import ask
from tests.engines import wait_until
from tests.gateways import Gateway

HELLO = [{"role": "user", "content": "Hello!"}]
CHAT = {"model": "greeting", "messages": HELLO}


def test_usage_sums_equal_ledger_and_audit_log(gateway: Gateway):
    """Served, refused for several reasons, and left in the middle: each counted once, all tokens charged."""
    tenant = gateway.json("create-tenant", "--name", "summed")["id"]
    key = gateway.json("create-key", "--tenant", "summed", "--name", "only", "--rpm", "4")["key"]
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=gateway.url, headers=headers, timeout=60, trust_env=False) as client:
        assert wait_until(lambda: client.get("/v1/models").status_code == 200, 30)
        served = [client.post("/v1/chat/completions", json=CHAT).status_code for _ in range(3)]
        with (
            contextlib.suppress(httpx.HTTPError),
            client.stream("POST", "/api/chat", json={**CHAT, "model": "endless"}) as answered,
        ):
            next(answered.iter_bytes())
        refused = [
            client.post("/v1/chat/completions", json={**CHAT, "model": "none-such"}).status_code,
            client.post("/v1/chat/completions", content=b"{").status_code,
            client.post("/api/pull", json={}).status_code,
            *(client.post("/api/chat", json={**CHAT, "stream": False}).status_code for _ in range(4)),
        ]

    assert served == [200] * 3
    assert refused[:3] == [404, 400, 403]
    assert 429 in refused[3:]
    ended = f"SELECT count(*) AS n FROM ledger WHERE tenant_id = '{tenant}' AND evidence = 'settled'"
    admitted = len(served) + 1 + refused[3:].count(200)
    assert wait_until(lambda: ask(gateway.database_url, ended)[0]["n"] == admitted, 60)
    # All with this key but the blocked one, which is nobody's.
    requests = f"SELECT count(*) AS n FROM audit WHERE tenant_id = '{tenant}' AND operation <> 'models'"
    assert wait_until(
        lambda: ask(gateway.database_url, requests)[0]["n"] == admitted + 2 + 4 - refused[3:].count(200), 60
    )

    (used,) = gateway.json("usage", "--tenant", "summed")
    by_all = gateway.json("usage", "--tenant", "summed", "--by", "model", "--by", "backend", "--by", "hour")
    tokens = f"SELECT sum(tokens) AS n FROM ledger WHERE tenant_id = '{tenant}'"
    rows = f"SELECT count(*) AS n FROM audit WHERE tenant_id = '{tenant}'"
    assert used["tokens"] == ask(gateway.database_url, tokens)[0]["n"] > 0
    assert used["tokens"] == used["prompt_tokens"] + used["completion_tokens"]
    assert used["requests"] == ask(gateway.database_url, rows)[0]["n"]
    assert (used["refused_invalid"], used["client_left"]) == (2, 1)
    assert used["refused_limit"] == refused[3:].count(429)
    assert sum(line["tokens"] for line in by_all) == used["tokens"]
    assert sum(line["requests"] for line in by_all) == used["requests"]
    assert {line["backend"] for line in by_all if line["tokens"]} <= {
        line["backend"] for line in by_all if line["served"] or line["client_left"]
    }
    assert gateway.json("verify-ledger")["equal"]
