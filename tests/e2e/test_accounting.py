"""What commands tell of a fleet's accounting: it is what the ledger has, and what the next request meets."""

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from attrs import field, frozen
from click.testing import CliRunner

from gateway.cli.main import cli
from gateway.rules.plans import MIN_OUTPUT_TOKENS
from tests.engines import wait_until
from tests.gateways import Gateway
from tests.servers import RedisServer

Fleet = tuple[Gateway, Gateway]

OUTPUT = 20


@frozen
class Caller:
    """A tenant with one key that asks any of the replicas for the same."""

    fleet: Fleet
    tenant: str
    key: str
    prefix: str
    text: str = "Hello!"
    prompt_tokens: int = field(default=0, kw_only=True)
    """Of its prompt."""

    def ask(self, replica: int = 0) -> httpx.Response:
        chat = {"model": "greeting", "messages": self._messages(), "max_tokens": OUTPUT}
        with self._client(replica) as client:
            return client.post("/v1/chat/completions", json=chat)

    def spend(self) -> int:
        """Tokens that one answer cost."""
        answered = self.ask()
        assert answered.status_code == 200, answered.text
        return int(answered.json()["usage"]["total_tokens"])

    @contextmanager
    def streaming(self, tokens: int) -> Iterator[None]:
        """While an answer of so many tokens runs; 4,000 take twenty seconds at least."""
        chat = {"model": "endless", "messages": self._messages("Go!"), "options": {"num_predict": tokens}}
        with self._client(1) as client, client.stream("POST", "/api/chat", json=chat) as answer:
            assert answer.status_code == 200
            lines = answer.iter_lines()  # kept: without it the stream is closed
            next(lines)
            yield

    def explained(self) -> Any:
        sizes = "--prompt-tokens", str(self.prompt_tokens), "--max-tokens", str(OUTPUT)
        return command(self.fleet, "explain-key", "--prefix", self.prefix, *sizes)

    def explained_bound(self, name: str, scope: str) -> Any:
        found = self.explained()["bounds"]
        return next(one for one in found if (one["bound"], one["scope"]) == (name, scope))

    def agrees(self) -> bool:
        """Spools are drained: the ledger has what Redis counts."""
        return bool(self.explained()["agrees"])

    def _messages(self, text: str | None = None) -> list[dict[str, str]]:
        return [{"role": "user", "content": text or self.text}]

    def _client(self, replica: int) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.key}"}
        return httpx.Client(base_url=self.fleet[replica].url, headers=headers, timeout=30, trust_env=False)


def command(fleet: Fleet, *arguments: str) -> Any:
    """What a command prints as JSON; in this process, which saves it a second. It must succeed."""
    done = CliRunner().invoke(cli, [*arguments, "--json"], env=fleet[1].environment, catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def new_caller(fleet: Fleet, tenant: str, *, of_tenant: str = "", of_key: str = "", **asks: Any) -> Caller:
    command(fleet, "create-tenant", "--name", tenant, *of_tenant.split())
    made = command(fleet, "create-key", "--tenant", tenant, "--name", "only", *of_key.split())
    return Caller(fleet, tenant, made["key"], made["prefix"], **asks)


def asks_with(fleet: Fleet, text: str) -> dict[str, Any]:
    """A text, and of how many tokens its prompt is, by the engine's own count."""
    answered = new_caller(fleet, f"counted {len(text)}", text=text).ask()
    return {"text": text, "prompt_tokens": answered.json()["usage"]["prompt_tokens"]}


def total_of(caller: Caller) -> Any:
    """Where its tenant's total stands, by Redis."""
    assert caller.explained()["counted_by"] == "redis"
    return caller.explained_bound("total_tokens", "tenant")


def id_of(caller: Caller) -> str:
    return str(command(caller.fleet, "show-tenant", "--name", caller.tenant)["id"])


def sums_of(caller: Caller) -> str:
    """The name under which Redis keeps what is counted of it."""
    return f"{{t:{id_of(caller)}}}:sums"


# ── explain-key ──────────────────────────────────────────────────────────────────────────


def test_what_is_explained_is_what_the_next_request_meets(fleet: Fleet):
    """For each kind of limit, of key and tenant: who refuses, with which numbers, in which words."""
    short = asks_with(fleet, "Hello!")
    once = short["prompt_tokens"] + MIN_OUTPUT_TOKENS + 5
    spent = {
        "rpm of key": new_caller(fleet, "rpm", of_key="--rpm 1", **short),
        "rpm of tenant": new_caller(fleet, "all rpm", of_tenant="--rpm 1", **short),
        "daily_tokens of key": new_caller(fleet, "day", of_key=f"--daily-tokens {once}", **short),
        "monthly_tokens of tenant": new_caller(
            fleet, "month", of_tenant=f"--monthly-tokens {once}", of_key="--monthly-tokens 9_000", **short
        ),
        "total_tokens of key": new_caller(fleet, "total", of_key=f"--total-tokens {once}", **short),
    }
    used = {kind: caller.spend() for kind, caller in spent.items()}
    for kind, caller in spent.items():
        check_refusal(caller, kind)
        assert wait_until(caller.agrees, 10), kind
        check_numbers(caller, used[kind])

    # What the stream has reserved of a minute comes back within 45 s.
    long = asks_with(fleet, "word " * 3500)
    held = {
        "concurrent of key": new_caller(fleet, "slots", of_key="--concurrent 1", **short),
        "concurrent of tenant": new_caller(fleet, "all slots", of_tenant="--concurrent 1", **short),
        "tpm of key": new_caller(fleet, "tpm", of_key="--tpm 4_400", **long),
        "tpm of tenant": new_caller(fleet, "all tpm", of_tenant="--tpm 4_400", of_key="--tpm 9_000", **long),
    }
    for kind, caller in held.items():
        with caller.streaming(4000):
            check_refusal(caller, kind)


def check_refusal(caller: Caller, kind: str) -> None:
    refusal = caller.explained()["refusal"]
    refused = caller.ask(replica=1)

    assert f"{refusal['bound']} of {refusal['scope']}" == kind
    assert (refusal["status"], refusal["code"]) == (refused.status_code, refused.json()["error"]["code"])
    assert timeless(refusal["message"]) == timeless(refused.json()["error"]["message"])
    assert refusal["remaining"] == max(0, refusal["limit"] - refusal["used"] - refusal["reserved"])


def timeless(sentence: str) -> str:
    """Without what changes while one is asked after the other, and what is not always counted."""
    return re.sub(r"[\d,]+(?= are left)|(?<=in )\d+(?= s\.)|(?<=may need )[\d,]+", "…", sentence)


def check_numbers(caller: Caller, used: int) -> None:
    """What one answer cost: by the answer itself, Redis, the ledger, and the command that shows that."""
    total = caller.explained_bound("total_tokens", "key")
    shown = command(caller.fleet, "show-key", "--prefix", caller.prefix)["usage"]["total_tokens"]["key"]

    assert total["used"] == total["ledger"]["used"] == shown["used"] == used
    assert total["reserved"] == total["ledger"]["reserved"] == shown["reserved"] == 0


def test_who_would_be_let_in_is_let_in(fleet: Fleet):
    """With the output that was told, where it is clamped too, until the bound refuses that was named."""
    asks = asks_with(fleet, "Hello!")
    output = MIN_OUTPUT_TOKENS + 2
    total = asks["prompt_tokens"] + output
    caller = new_caller(fleet, "clamped", of_key=f"--total-tokens {total}", of_tenant="--rpm 60", **asks)

    found = caller.explained()
    answered = caller.ask()
    after = caller.explained()

    assert (found["admitted"], found["counted_by"]) == (True, "ledger")
    assert (found["grant"]["tokens"], found["grant"]["max_tokens"]) == (total, output)
    assert found["next_bound"] == {"scope": "key", "bound": "total_tokens", "requests": 1}
    assert answered.json()["usage"]["completion_tokens"] <= output
    assert (after["counted_by"], after["refusal"]["bound"]) == ("redis", "total_tokens")


def test_a_key_that_ended_is_explained(fleet: Fleet):
    revoked = new_caller(fleet, "revoked")
    ends = datetime.fromtimestamp(time.time() + 8, UTC)
    expired = new_caller(fleet, "expired", of_key=f"--expires {ends:%Y-%m-%dT%H:%M:%SZ}")
    assert [caller.ask().status_code for caller in (revoked, expired)] == [200, 200]

    command(fleet, "revoke-key", "--prefix", revoked.prefix)

    assert [revoked.ask(replica).status_code for replica in (0, 1)] == [401, 401]
    assert wait_until(lambda: expired.ask().status_code == 401, 20)
    for caller, reason in ((revoked, "revoked"), (expired, "expired")):
        refusal = caller.explained()["refusal"]
        assert (refusal["reason"], refusal["status"]) == (reason, 401)
        assert refusal["message"] == caller.ask().json()["error"]["message"]


def test_a_redis_ahead_of_the_database_is_explained_and_mended(fleet: Fleet, redis_server: RedisServer):
    """As after a database was restored from a backup: nothing may be taken by what it says."""
    caller = new_caller(fleet, "restored")
    caller.spend()
    redis_server.ask("HSET", sums_of(caller), "epoch", 10**6)

    refusal, refused = caller.explained()["refusal"], caller.ask()
    command(fleet, "rebuild-counters", "--tenant", "restored")

    assert (refusal["reason"], refusal["code"]) == ("outdated", refused.json()["error"]["code"])
    assert refusal["status"] == refused.status_code == 503
    assert caller.explained()["admitted"]
    assert caller.ask().status_code == 200


# ── rebuild-counters ─────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("damage", ["lost", "changed"])
def test_counters_are_rebuilt_beside_requests_that_run(fleet: Fleet, redis_server: RedisServer, damage: str):
    """What one has spent and another has reserved counts again, and is settled when that one ends."""
    caller = new_caller(fleet, "rebuilt", of_tenant=f"--total-tokens {10**6} --concurrent 2")
    used = caller.spend()

    with caller.streaming(15_000):
        assert wait_until(caller.agrees, 10)
        right = total_of(caller)
        if damage == "lost":
            redis_server.ask("FLUSHALL")
        else:
            redis_server.ask("HSET", sums_of(caller), f"total:tenant:{id_of(caller)}", "total 0 999999 1")
            assert caller.ask().json()["error"]["code"] == "insufficient_quota"
        rebuilt = command(fleet, "rebuild-counters", "--tenant", "rebuilt")
        mended = total_of(caller)
        assert caller.ask().status_code == 200
    assert wait_until(lambda: caller.agrees() and total_of(caller)["reserved"] == 0, 20)

    assert rebuilt["equal"]
    assert rebuilt["tenants"][0]["was_counted"] is (damage == "changed")
    assert (right["used"], right["reserved"] > 15_000) == (used, True)
    assert mended == right
    assert total_of(caller)["used"] > used
    assert command(fleet, "verify-ledger")["equal"]
