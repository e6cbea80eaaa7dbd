"""What keys and tenants go through, as callers see it: streams end, addresses count, budgets stay."""

import json
import threading

import httpx
import pytest

from tests.databases import ask
from tests.engines import wait_until
from tests.gateways import Gateway

HELLO = [{"role": "user", "content": "Hello!"}]
CHAT = {"model": "greeting", "messages": HELLO}


def client_of(gateway: Gateway, key: str, **headers: str) -> httpx.Client:
    authorized = {"Authorization": f"Bearer {key}", **headers}
    return httpx.Client(base_url=gateway.url, headers=authorized, timeout=60, trust_env=False)


@pytest.fixture
def tenant(request: pytest.FixtureRequest) -> str:
    return f"{request.node.name[:50]}"


@pytest.fixture
def made(gateway: Gateway, tenant: str) -> dict[str, str]:
    gateway.json("create-tenant", "--name", tenant)
    key: dict[str, str] = gateway.json("create-key", "--tenant", tenant, "--name", "only")
    return key


ENDS = {
    "revoked": (["revoke-key", "--prefix", "{prefix}"], "invalid_api_key"),
    "rotated": (["rotate-key", "--prefix", "{prefix}", "--grace", "0"], "invalid_api_key"),
    "suspended": (["suspend-tenant", "--name", "{tenant}"], "tenant_suspended"),
    "deleted": (["delete-tenant", "--name", "{tenant}", "--yes"], "invalid_api_key"),
    "moved": (["update-key", "--prefix", "{prefix}", "--allow-ip", "192.0.2.1"], "address_not_allowed"),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_running_stream_ends_with_the_reason(gateway: Gateway, made: dict[str, str], end: str):
    """SPEC 5: within ten seconds, with an error frame in place of the end; what was produced is charged."""
    command, code = ENDS[end]
    frames: list[str] = []

    def read() -> None:
        with (
            client_of(gateway, made["key"]) as client,
            client.stream(
                "POST", "/v1/chat/completions", json={**CHAT, "model": "endless", "stream": True}
            ) as answered,
        ):
            ids.append(answered.headers["x-request-id"])
            frames.extend(line for line in answered.iter_lines() if line.startswith("data: "))

    ids: list[str] = []
    reading = threading.Thread(target=read)
    reading.start()
    assert wait_until(lambda: bool(ids), 60)
    gateway.json(*(part.format(**made) for part in command))
    reading.join(60)

    assert not reading.is_alive()
    assert json.loads(frames[-1].removeprefix("data: "))["error"]["code"] == code
    row = gateway.row_of(ids[0])
    assert (row["outcome"], row["error_code"], row["status"]) == ("cut", code, 200)
    assert row["completion_tokens"] > 0


def test_a_plain_answer_under_way_ends_with_its_status(gateway: Gateway, made: dict[str, str]):
    """Nothing was sent yet: the caller gets what a new request would."""
    answers: list[httpx.Response] = []

    def ask() -> None:
        with client_of(gateway, made["key"]) as client:
            answers.append(client.post("/api/chat", json={**CHAT, "model": "endless", "stream": False}))

    asking = threading.Thread(target=ask)
    asking.start()
    tenant_id = next(one["id"] for one in gateway.json("list-tenants") if one["name"] == made["tenant"])
    of_tenant = f"tenant_id = '{tenant_id}'"
    assert wait_until(lambda: running_of(gateway, of_tenant) == 1, 60)
    gateway.json("suspend-tenant", "--name", made["tenant"])
    asking.join(60)

    assert answers[0].status_code == 403
    assert "suspended" in answers[0].json()["error"]


def running_of(gateway: Gateway, where: str) -> int:
    found = ask(
        gateway.database_url, f"SELECT count(*) AS n FROM ledger WHERE evidence = 'intent' AND {where}"
    )
    return int(found[0]["n"])


def test_a_suspended_tenant_is_refused_and_resumed(gateway: Gateway, made: dict[str, str]):
    """C14: all of its keys, within a second; and let in again as soon."""
    with client_of(gateway, made["key"]) as client:

        def status() -> int:
            return client.get("/v1/models").status_code

        before = status()
        gateway.json("suspend-tenant", "--name", made["tenant"])
        assert wait_until(lambda: status() == 403, 30)
        refused = client.post("/v1/chat/completions", json=CHAT)
        row = gateway.row_of(refused.headers["x-request-id"])
        gateway.json("resume-tenant", "--name", made["tenant"])
        assert wait_until(lambda: status() == 200, 30)

    assert (before, refused.status_code) == (200, 403)
    assert refused.json()["error"]["code"] == "tenant_suspended"
    assert (row["outcome"], row["key_prefix"]) == ("refused", made["prefix"])


def test_a_key_of_some_addresses_is_refused_elsewhere(gateway: Gateway, tenant: str):
    """403, told with the address that was seen; a wrong key from there is 401 as ever."""
    gateway.json("create-tenant", "--name", tenant)
    make = ["create-key", "--tenant", tenant]
    here = gateway.json(*make, "--name", "here", "--allow-ip", "127.0.0.0/8")["key"]
    there = gateway.json(*make, "--name", "there", "--allow-ip", "192.0.2.0/24")["key"]

    with client_of(gateway, here) as client:
        assert wait_until(lambda: client.get("/v1/models").status_code == 200, 30)
    # Nobody trusts this one's word on where it comes from.
    with client_of(gateway, there, **{"X-Forwarded-For": "192.0.2.7"}) as client:
        refused = client.get("/v1/models")

    assert refused.status_code == 403
    assert refused.json()["error"]["code"] == "address_not_allowed"
    assert "127.0.0.1" in refused.json()["error"]["message"]


def test_two_keys_of_one_account_share_what_is_left(gateway: Gateway, tenant: str):
    """Rotating refills no budget and no limit, and the old key goes on for its grace."""
    gateway.json("create-tenant", "--name", tenant)
    old = gateway.json(
        "create-key", "--tenant", tenant, "--name", "only", "--rpm", "3", "--total-tokens", "9000"
    )
    answers = []
    with client_of(gateway, old["key"]) as client:
        answers.append(client.post("/v1/chat/completions", json={**CHAT, "max_tokens": 20}))
        new = gateway.json("rotate-key", "--prefix", old["prefix"])
        with client_of(gateway, new["key"]) as other:
            assert wait_until(lambda: other.get("/v1/models").status_code == 200, 30)
            answers.append(other.post("/v1/chat/completions", json={**CHAT, "max_tokens": 20}))
            answers.append(client.post("/v1/chat/completions", json={**CHAT, "max_tokens": 20}))
            answers.append(other.post("/v1/chat/completions", json={**CHAT, "max_tokens": 20}))

    assert [one.status_code for one in answers] == [200, 200, 200, 429]
    left = [int(one.headers["x-budget-remaining-total"]) for one in answers[:3]]
    assert left == sorted(left, reverse=True)
    assert len(set(left)) == 3
    assert left[0] < 9000
