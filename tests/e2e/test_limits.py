"""Limits and budgets over a real socket: what they refuse, what they tell, and that they hold."""

import threading
import time

import httpx
import openai
import pytest

from gateway.demo.engine import Engine
from tests.engines import busy_slots, wait_until
from tests.gateways import Gateway

HELLO = [{"role": "user", "content": "Hello!"}]
CHAT = {"model": "greeting", "messages": HELLO}


def client_of(gateway: Gateway, tenant: str, **policy: int) -> httpx.Client:
    """A client of a new tenant with this policy."""
    options = [text for name, value in policy.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    gateway.json("create-tenant", "--name", tenant, *options)
    key = gateway.json("create-key", "--tenant", tenant, "--name", "only")["key"]
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.Client(base_url=gateway.url, headers=headers, timeout=30, trust_env=False)


def total_used(gateway: Gateway, tenant: str) -> int:
    """What the tenant has spent, by its own view of itself."""
    shown = gateway.json("show-tenant", "--name", tenant)
    return int(shown["usage"]["total_tokens"]["tenant"]["used"])


def test_requests_per_minute_hold_and_are_told(gateway: Gateway):
    with client_of(gateway, "rpm", rpm=3) as client:
        answers = [client.post("/v1/chat/completions", json=CHAT) for _ in range(4)]

    assert [one.status_code for one in answers] == [200, 200, 200, 429]
    assert [one.headers["x-ratelimit-remaining-requests"] for one in answers[:3]] == ["2", "1", "0"]
    assert answers[3].json()["error"]["code"] == "rate_limit_exceeded"
    assert 1 <= int(answers[3].headers["retry-after"]) <= 20


def test_a_spent_budget_is_told_so_that_sdks_do_not_try_again(gateway: Gateway):
    with client_of(gateway, "spent", total_tokens=700) as client:
        answered = client.post("/api/chat", json={**CHAT, "stream": False})
        used = answered.json()["prompt_eval_count"] + answered.json()["eval_count"]
        statuses = [client.post("/v1/chat/completions", json=CHAT).status_code for _ in range(30)]
        sdk = openai.OpenAI(
            base_url=f"{gateway.url}/v1", api_key=client.headers["authorization"].split()[1], max_retries=3
        )
        with sdk, pytest.raises(openai.RateLimitError) as refused:
            sdk.chat.completions.create(model="greeting", messages=HELLO)  # type: ignore[arg-type]

    assert answered.headers["x-budget-limit-total"] == "700"
    assert answered.headers["x-budget-remaining-total"] == str(700 - used)
    assert statuses[-1] == 429
    assert refused.value.code == "insufficient_quota"
    assert wait_until(lambda: total_used(gateway, "spent") <= 700, 5)


def test_concurrency_counts_what_runs(gateway: Gateway, engine_endless: Engine):
    """N streams and one more; a place is free as soon as one of them is closed."""
    endless = {"model": "endless", "messages": HELLO}
    with client_of(gateway, "slots", concurrent=2) as client:
        first = client.send(client.build_request("POST", "/api/chat", json=endless), stream=True)
        second = client.send(client.build_request("POST", "/api/chat", json=endless), stream=True)
        refused = client.post("/api/chat", json=endless)
        second.close()
        assert wait_until(lambda: client.post("/v1/chat/completions", json=CHAT).status_code == 200, 2)
        first.close()

    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) >= 1
    assert wait_until(lambda: busy_slots(engine_endless) == 0, 1)


def test_a_client_that_leaves_pays_for_what_was_produced(gateway: Gateway):
    with client_of(gateway, "left", total_tokens=10**6) as client:
        request = client.build_request("POST", "/api/chat", json={"model": "endless", "messages": HELLO})
        stream = client.send(request, stream=True)
        lines = stream.iter_lines()
        for _ in range(20):
            next(lines)
        stream.close()

    assert wait_until(lambda: total_used(gateway, "left") >= 20, 5)


def test_many_at_once_never_overspend(gateway: Gateway):
    """Sixteen clients race for the last tokens: what was spent is never above the budget."""
    budget = 2000
    with client_of(gateway, "race", total_tokens=budget) as client:
        used: list[int] = []

        def ask() -> None:
            for _ in range(6):
                answered = client.post("/v1/chat/completions", json={**CHAT, "max_tokens": 40})
                if answered.status_code == 200:
                    used.append(answered.json()["usage"]["total_tokens"])

        threads = [threading.Thread(target=ask) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert 0 < sum(used) <= budget
    assert wait_until(lambda: total_used(gateway, "race") == sum(used), 5)


def test_changed_limits_count_for_the_next_request(gateway: Gateway):
    with client_of(gateway, "changed", rpm=1) as client:
        client.post("/v1/chat/completions", json=CHAT)
        before = client.post("/v1/chat/completions", json=CHAT)
        gateway.json("set-limits", "--tenant", "changed", "--rpm", "none")
        time.sleep(1)
        after = client.post("/v1/chat/completions", json=CHAT)

    assert (before.status_code, after.status_code) == (429, 200)


def test_callers_see_their_own_usage(gateway: Gateway):
    """Only their own, with what was refused lately."""
    with client_of(gateway, "seen", rpm=1, daily_tokens=5000) as client:
        answered = client.post("/v1/chat/completions", json=CHAT)
        refused = client.post("/v1/chat/completions", json=CHAT)
        usage = client.get("/v1/usage").json()

    (rate,) = [row for row in usage["limits"] if row["unit"] == "requests"]
    day = next(row for row in usage["budgets"] if row["window"] == "day" and row["scope"] == "tenant")
    assert (usage["tenant"], usage["key"]) == ("seen", "only")
    assert (rate["limit"], rate["remaining"]) == (1, 0)
    assert (day["limit"], day["used"], day["reserved"]) == (5000, answered.json()["usage"]["total_tokens"], 0)
    assert usage["recent_refusals"][0]["request_id"] == refused.headers["x-request-id"]


def test_a_restart_does_not_refill_a_budget(own_gateway: Gateway):
    """The ledger is the truth: also after a kill -9 in the middle of a stream."""
    with client_of(own_gateway, "restarted", total_tokens=5000) as client:
        client.post("/v1/chat/completions", json=CHAT)
        stream = client.build_request("POST", "/api/chat", json={"model": "endless", "messages": HELLO})
        answered = client.send(stream, stream=True)
        lines = answered.iter_lines()
        for _ in range(5):
            next(lines)
        assert own_gateway.process is not None
        own_gateway.process.kill()
        own_gateway.wait()
        headers = dict(client.headers)
        answered.close()
    own_gateway.start()

    with httpx.Client(base_url=own_gateway.url, headers=headers, trust_env=False) as client:
        budgets = client.get("/v1/usage").json()["budgets"]
    (total,) = [row for row in budgets if (row["window"], row["scope"]) == ("total", "tenant")]
    (row,) = own_gateway.rows("operation = 'chat'")

    assert 4096 < total["used"] < 5000, "the stream's whole reservation is charged"
    assert total["reserved"] == 0
    assert (row["outcome"], row["model"]) == ("cut", "endless:latest")
