"""Several gateways over one Redis: what they allow together is what was allowed."""

from pathlib import Path

import httpx
import pytest

from tests.engines import wait_until
from tests.gateways import Gateway
from tests.servers import RedisServer

CHAT = {"model": "greeting", "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 20}


def ask(gateway: Gateway, key: str) -> httpx.Response:
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.post(f"{gateway.url}/v1/chat/completions", json=CHAT, headers=headers, timeout=30)


def key_of(gateway: Gateway, tenant: str, *policy: str) -> str:
    gateway.json("create-tenant", "--name", tenant, *policy)
    return str(gateway.json("create-key", "--tenant", tenant, "--name", "only")["key"])


def test_replicas_count_the_same_requests(fleet: tuple[Gateway, Gateway]):
    key = key_of(fleet[0], "two", "--rpm", "4")

    answers = [ask(fleet[number % 2], key) for number in range(6)]

    assert [answer.status_code for answer in answers] == [200] * 4 + [429] * 2
    assert [answer.headers["x-ratelimit-remaining-requests"] for answer in answers[:4]] == list("3210")


def test_a_key_that_one_replica_revoked_is_refused_by_all(fleet: tuple[Gateway, Gateway]):
    key = key_of(fleet[0], "former")
    assert [ask(replica, key).status_code for replica in fleet] == [200, 200]

    (shown,) = fleet[0].json("list-keys", "--tenant", "former")
    fleet[0].json("revoke-key", "--prefix", shown["prefix"])

    assert wait_until(lambda: [ask(replica, key).status_code for replica in fleet] == [401, 401], 5.0)


def test_what_operators_say_of_models_holds_at_all_replicas(fleet: tuple[Gateway, Gateway]):
    """A profile, an allow-list and a drained backend: said once, by a command beside any of them."""
    key = key_of(fleet[0], "modest")

    def statuses(model: str) -> list[int]:
        headers, body = {"Authorization": f"Bearer {key}"}, CHAT | {"model": model}
        return [
            httpx.post(f"{one.url}/v1/chat/completions", json=body, headers=headers, timeout=30).status_code
            for one in fleet
        ]

    fleet[0].json("set-model", "--name", "brief", "--model", "greeting", "--option", "num_predict=2")
    assert wait_until(lambda: statuses("brief") == [200, 200], 30)

    fleet[1].json("allow-models", "--tenant", "modest", "--models", "brief")
    assert wait_until(lambda: statuses("greeting") == [404, 404], 30)
    assert statuses("brief") == [200, 200]

    fleet[1].json("drain-backend", "words")
    assert wait_until(lambda: statuses("brief") == [503, 503], 30)
    fleet[0].json("drain-backend", "words", "--undo")
    assert wait_until(lambda: statuses("brief") == [200, 200], 30)


def test_ready_names_redis(tmp_path: Path, fleet_settings: dict[str, str]):
    with RedisServer() as server:
        gateway = Gateway(tmp_path / "one", **{**fleet_settings, "REDIS_URL": server.url})
        gateway.make_first_key()
        gateway.start()
        try:
            assert ask(gateway, gateway.key).status_code == 200
            server.kill()
            assert wait_until(lambda: "redis" in httpx.get(f"{gateway.url}/readyz").text, 5)
            refused = ask(gateway, gateway.key)
            server.start()
            assert wait_until(lambda: ask(gateway, gateway.key).status_code == 200, 10)
        finally:
            gateway.stop()

    assert refused.status_code == 503
    assert refused.json()["error"]["code"] == "limits_unavailable"
    assert int(refused.headers["retry-after"]) >= 1


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [
        ({"GATEWAY_SECRET": ""}, "GATEWAY_SECRET is not set"),
        ({"REDIS_URL": "redis://127.0.0.1:1"}, "Redis does not answer at 127.0.0.1:1"),
        ({"REDIS_URL": ""}, "Another gateway serves on the database"),
    ],
    ids=["no-secret", "no-redis", "alone"],
)
def test_a_fleet_is_not_joined_by_what_would_break_it(
    fleet: tuple[Gateway, Gateway], missing: dict[str, str], sentence: str
):
    fleet[1].environment |= missing

    done = fleet[1].command("serve")

    assert done.returncode in (1, 2)
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_a_redis_that_drops_keys_is_refused(tmp_path: Path, fleet_settings: dict[str, str]):
    with RedisServer(settings=("maxmemory-policy allkeys-lru",)) as server:
        gateway = Gateway(tmp_path / "one", **{**fleet_settings, "REDIS_URL": server.url})
        gateway.make_first_key()
        done = gateway.command("serve")

    assert done.returncode == 1
    assert "set maxmemory-policy to noeviction" in done.stderr
