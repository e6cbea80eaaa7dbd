"""The address for operators, of a gateway that runs: what its metrics say after some traffic."""

import os
import shlex
import socket
import subprocess
import sys

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.config import Address
from tests.engines import wait_until
from tests.gateways import Gateway

HELLO = {"messages": [{"role": "user", "content": "Hello!"}]}


def sample(gateway: Gateway, name: str, **labels: str) -> float:
    """The sum of what has these labels."""
    text = httpx.get(f"{gateway.ops_url}/metrics", trust_env=False, timeout=30).text
    return sum(
        one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
        if one.name == f"gateway_{name}" and labels.items() <= one.labels.items()
    )


def test_traffic_is_counted(own_gateway: Gateway):
    """A stream, a refusal, and the store that was asked."""
    with own_gateway.client() as client:
        client.post("/v1/chat/completions", json={"model": "greeting", "stream": True, **HELLO})
        client.post("/api/pull", json={})
    served = {"operation": "chat_completions", "status": "2xx", "outcome": "served"}

    assert sample(own_gateway, "requests_total", **served) == 1
    assert sample(own_gateway, "refusals_total", reason="blocked_mutation") == 1
    assert sample(own_gateway, "tenant_tokens_total", tenant="acme", kind="completion") > 1
    assert sample(own_gateway, "time_between_tokens_seconds_count") == 1
    assert sample(own_gateway, "store_latency_seconds_count", store="database", use="write") > 0
    assert sample(own_gateway, "backend_up") == 2
    assert sample(own_gateway, "ready") == 1
    assert wait_until(lambda: sample(own_gateway, "ledger_lag_seconds") == 0, 30)
    assert sample(own_gateway, "spool_records") == 0


def test_what_runs_is_seen_while_it_runs(own_gateway: Gateway):
    """By tenant, key and model."""
    with own_gateway.client() as client:
        asked = client.build_request("POST", "/api/chat", json={"model": "endless", **HELLO})
        answered = client.send(asked, stream=True)
        lines = answered.iter_lines()
        next(lines)
        running = sample(own_gateway, "running", tenant="acme", key=own_gateway.key[:11])
        answered.close()

    assert running == 1
    assert wait_until(lambda: sample(own_gateway, "running") == 0, 30)


def test_budgets_left_are_told(own_gateway: Gateway):
    own_gateway.json("set-budgets", "--tenant", "acme", "--daily-tokens", "1_000_000")
    with own_gateway.client() as client:
        client.post("/v1/chat/completions", json={"model": "greeting", **HELLO})

    assert sample(own_gateway, "budget_tokens", tenant="acme", window="day") == 1_000_000
    assert 0 < sample(own_gateway, "budget_remaining_tokens", tenant="acme", window="day") <= 1_000_000


def test_the_public_address_has_none_of_it(own_gateway: Gateway):
    with own_gateway.client() as client:
        assert client.get("/metrics").status_code == 404
    assert httpx.get(f"{own_gateway.ops_url}/v1/models", trust_env=False).status_code == 404
    assert httpx.get(f"{own_gateway.ops_url}/readyz", trust_env=False).json() == {"status": "ok"}


def test_an_ops_address_that_is_taken_is_told_with_the_remedy(own_gateway: Gateway, tmp_path):
    """By a second gateway on the machine."""
    taken = own_gateway.ops_url.removeprefix("http://")

    second = Gateway(tmp_path / "second", GATEWAY_OPS_BIND=taken).command("serve")

    assert second.returncode == 1
    assert f"cannot listen on {taken}: address already in use" in second.stderr
    assert "GATEWAY_OPS_BIND names another address" in second.stderr


def test_it_can_be_off(own_gateway: Gateway):
    """Then nothing is counted either."""
    own_gateway.stop()
    own_gateway.environment["GATEWAY_OPS_BIND"] = "off"
    own_gateway.start()

    assert own_gateway.ops_url == ""
    with own_gateway.client() as client:
        assert client.get("/readyz").status_code == 200


def test_quickstart_takes_a_free_port_where_the_usual_one_is_taken(own_gateway: Gateway):
    """Somebody's Prometheus is on 9090: that is no reason not to be tried."""
    from gateway.cli.quickstart import _free

    host, _, port = own_gateway.ops_url.removeprefix("http://").rpartition(":")
    found = _free(Address(host, int(port)))

    assert found is not None
    assert found.port not in (0, int(port))
    assert _free(found) == found
    assert _free(None) is None


@pytest.mark.parametrize("closed", ["2>&-", "0<&- 1>&- 2>&-"])
def test_it_serves_without_standard_streams(own_gateway: Gateway, closed: str):
    """Their numbers are nobody else's: a socket that had one would be logged into, and end in SIGABRT."""
    own_gateway.stop()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {**own_gateway.environment, "GATEWAY_BIND": f"127.0.0.1:{port}"}
    command = f"exec {shlex.quote(sys.executable)} -m gateway serve {closed}"
    process = subprocess.Popen(["sh", "-c", command], cwd=own_gateway.directory, env=environment)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            assert wait_until(lambda: is_ready(client), 60)
            answered = client.post(
                "/v1/chat/completions", json={"model": "greeting", **HELLO}, headers=own_gateway.headers
            )
        process.terminate()
        assert (answered.status_code, process.wait(30)) == (200, 0)
    finally:
        process.kill()
        process.wait()


def is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").status_code == 200
    except httpx.ConnectError:
        return False


def test_a_log_that_nobody_reads_holds_up_nobody(own_gateway: Gateway):
    """More of it than a pipe takes; and the gateway still ends."""
    own_gateway.stop()
    read_end, write_end = os.pipe()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {**own_gateway.environment, "GATEWAY_BIND": f"127.0.0.1:{port}"}
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway", "serve"],
        cwd=own_gateway.directory,
        env=environment,
        stderr=write_end,
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60) as client:
            assert wait_until(lambda: is_ready(client), 60)
            answers = {client.get("/healthz").status_code for _ in range(400)}
        process.terminate()
        assert (answers, process.wait(60)) == ({200}, 0)
    finally:
        process.kill()
        process.wait()
        os.close(read_end)
        os.close(write_end)
