"""compose.yaml as callers, operators and intruders meet it. In this order: what comes later kills parts."""

import json
import os
import pty
import re
import shutil
import ssl
import subprocess
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import define, field

from deploy.testing import base_images
from deploy.testing.guide import commands
from deploy.testing.stack import SERVICES, Stack, chat, status_of, wait_for
from deploy.testing.tricks import CLOSE, H2_TRICKS, TRICKS

PYTHON = base_images.OFFICIAL["python"]
# What an engine is asked by a gateway that was not tricked.
ALLOWED = {
    "GET /health", "GET /v1/models", "GET /models", "GET /props", "GET /slots", "POST /tokenize",
    "POST /apply-template", "POST /v1/chat/completions", "GET /version", "GET /metrics",
}  # fmt: skip


def test_from_a_clone_to_a_streamed_answer_over_https(stack: Stack):
    """deploy/up.sh and the command that it prints, as they are; `stack` has done both."""
    print(f"\nfirst answer {stack.first_answer_s:.1f} s after up.sh was called")
    assert "  curl --cacert config/localhost-ca.crt -N https://localhost" in stack.said
    assert stack.first_answer_s < 180


def test_the_image_is_small(stack: Stack):
    size = stack.inspected("neuronetz-gateway-testing")["Size"]

    print(f"\nthe image has {size / 1e6:.0f} MB")
    assert size <= 200e6


def test_a_key_made_by_docker_exec_streams_a_chat(stack: Stack):
    (container,) = stack.containers("gateway")
    execute = ("docker", "exec", container, "neuronetz-gateway")
    stack.engine.run(*execute, "create-tenant", "--name", "acme")
    made = json.loads(
        stack.engine.run(*execute, "create-key", "--tenant", "acme", "--name", "prod-server-1", "--json")
    )

    answer = stack.ask("greeting", 100, key=made["key"])

    assert status_of(answer) == 200
    assert b"data: [DONE]" in answer


def test_a_stream_comes_as_it_is_made(stack: Stack):
    """The first piece is here while the model is still at it."""
    with stack.connection() as connection:
        connection.sendall(chat(stack.key, "long", 2000))
        received = b""
        while b"data: " not in received:
            received += connection.recv(65536)
        first = received
        while piece := connection.recv(65536):
            received += piece

    assert b"[DONE]" not in first
    assert b"[DONE]" in received


def test_tls_is_for_this_name_only_and_plain_http_leads_to_it(stack: Stack):
    answer = stack.exchange(f"GET /v1/models HTTP/1.1\r\n{CLOSE}\r\n".encode())
    plain = subprocess.run(
        ["curl", "-si", f"http://127.0.0.1:{stack.http}/v1/models", "-H", "Host: localhost"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    head = answer.split(b"\r\n\r\n")[0].lower()

    assert status_of(answer) == 401
    assert b"x-content-type-options: nosniff" in head
    assert b"x-frame-options: deny" in head
    assert b"server:" not in head
    assert b"via:" not in head
    assert "Location: https://localhost" in plain
    with pytest.raises(ssl.SSLError):
        stack.connection(name="llm.example.com")


def test_the_settings_hold_for_a_name_of_the_world(stack: Stack):
    """What --domain writes: Caddy takes the name, and would ask for a certificate."""
    validate = ("caddy", "validate", "--config", "/etc/caddy/Caddyfile", "--adapter", "caddyfile")
    stack.compose("exec", "-T", "-e", "GATEWAY_DOMAIN=llm.example.com", "caddy", *validate)


@pytest.mark.parametrize("name", ["dev", "external", "gpu", "vllm", "two-roles"])
def test_compose_takes_an_override(stack: Stack, name: str):
    files = ("-f", "compose.yaml", "-f", f"deploy/compose.{name}.yaml", "--profile", "tools")
    services = json.loads(stack.compose(*files, "config", "--format", "json"))["services"]
    with_cards = {
        service for service, one in services.items()
        if one.get("deploy", {}).get("resources", {}).get("reservations", {}).get("devices")
    }  # fmt: skip

    assert with_cards == {"gpu": {"ollama"}, "vllm": {"vllm"}}.get(name, set())


def test_nothing_but_caddy_can_be_reached_from_outside(stack: Stack):
    published = {
        service: stack.published(container)
        for service in SERVICES
        for container in stack.containers(service)
    }  # fmt: skip

    assert {name for name, ports in published.items() if ports} == {"caddy"}
    assert {port["HostIp"] for port in published["caddy"]} == {"127.0.0.1"}


@pytest.mark.parametrize("network", ["bridge", "edge", "data", "models", "front"])
def test_the_wrong_network_reaches_nothing(stack: Stack, network: str):
    """A stranger's container meets what is on its network, and of that what listens for it."""
    ports = {"gateway": (8080, 9090), "postgres": (5432,), "redis": (6379,), "ollama": (11434, 11435)}
    at = {(ip, port): (name, port) for name in ports for ip in stack.addresses(name) for port in ports[name]}
    name = network if network == "bridge" else f"{stack.name}_{network}"
    reached = {at[target] for target in stack.reaches(name, list(at))}

    assert (
        reached
        == {
            "bridge": set(),
            "front": set(),
            "edge": {("gateway", 8080)},
            "data": {("gateway", 8080), ("postgres", 5432), ("redis", 6379)},
            "models": {("gateway", 8080), ("ollama", 11434), ("ollama", 11435)},
        }[network]
    )


@pytest.fixture(scope="module")
def stranger(stack: Stack) -> Iterator[str]:
    """The address of a server on the engine's default network, from where there is a way to the world."""
    serve = ("python3", "-m", "http.server", "8000", "--directory", "/srv")
    container = stack.engine.run("docker", "run", "--detach", "--rm", PYTHON, *serve).strip()
    try:
        address = stack.inspected(container)["NetworkSettings"]["IPAddress"]
        wait_for(lambda: stack.reaches("bridge", [(address, 8000)]) != set(), "the stranger answers")
        yield address
    finally:
        stack.engine.run("docker", "kill", container, check=False)


@pytest.mark.parametrize("service", ["gateway", "postgres", "redis", "ollama"])
def test_there_is_no_way_out(stack: Stack, stranger: str, service: str):
    """What is broken into can neither call home nor fetch."""
    (container,) = stack.containers(service)
    reach = ("timeout", "3", "bash", "-c", f"exec 3<>/dev/tcp/{stranger}/8000 && echo reached")

    assert stack.engine.run("docker", "exec", container, *reach, check=False) == ""
    assert stack.engine.run("docker", "exec", container, "bash", "-c", "echo there") == "there\n"


def test_nobody_is_root_and_nobody_can_write_or_gain_rights(stack: Stack):
    for service in SERVICES:
        (container,) = stack.containers(service)
        told = stack.inspected(container)
        status = Path(f"/proc/{told['State']['Pid']}/status").read_text()

        assert told["HostConfig"]["ReadonlyRootfs"], service
        assert "0" not in re.findall(r"^Uid:\s+(\d+)\s+(\d+)", status, re.MULTILINE)[0], service
        assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE), service
        assert "NoNewPrivs:\t1" in status, service


def test_the_examination_finds_no_failure(stack: Stack):
    findings = stack.command("doctor")

    assert " 0 failed" in f" {findings.splitlines()[-1]}", findings


def test_a_backend_is_added_by_who_may_and_told_to_who_may_not(stack: Stack):
    """The .env is the host's. The gateway's user gets a sentence with the two ways on; root's way works."""
    add = ("neuronetz-gateway", "add-backend", "http://gpu-2:11434", "--name", "gpu-2", "--write-env")
    env_file = stack.folder / "config/.env"
    before = env_file.read_text()
    (container,) = stack.containers("gateway")
    refused = subprocess.run(
        ["docker", "exec", container, *add],
        env=stack.engine.environment, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert refused.returncode == 1
    assert "Two ways on:" in refused.stderr
    assert "docker compose exec -u root gateway neuronetz-gateway add-backend" in refused.stderr
    assert "gpu-2=http://gpu-2:11434" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert env_file.read_text() == before

    stack.compose("exec", "-T", "-u", "root", "gateway", *add)
    assert env_file.read_text() == before.rstrip() + ",gpu-2=http://gpu-2:11434\n"

    env_file.write_text(before)
    stack.compose("kill", "--signal", "HUP", "gateway")
    assert status_of(stack.ask("greeting", 10)) == 200


@pytest.fixture(scope="module")
def nginx(stack: Stack) -> Iterator[int]:
    """deploy/nginx.conf in Caddy's place, beside it; its port."""
    folder = stack.folder / "nginx"
    folder.mkdir(exist_ok=True)
    text = (stack.folder / "deploy/nginx.conf").read_text()
    (folder / "nginx.conf").write_text(
        text.replace("server 127.0.0.1:8080 ", "server gateway:8080 ").replace("llm.example.com", "localhost")
    )
    caddy = "/var/tmp/caddy/certificates/local/localhost/localhost"
    for suffix, name in (("crt", "fullchain.pem"), ("key", "privkey.pem")):
        (folder / name).write_text(stack.compose("exec", "-T", "caddy", "cat", f"{caddy}.{suffix}"))
        (folder / name).chmod(0o644)
    container = stack.engine.run(
        "docker", "run", "--detach", "--rm", "--read-only", "--cap-drop", "ALL", "--tmpfs", "/tmp",
        "--network", f"{stack.name}_front", "--publish", "127.0.0.1::8443",
        "--volume", f"{folder}/nginx.conf:/etc/nginx/nginx.conf:ro",
        "--volume", f"{folder}:/etc/nginx/tls:ro",
        "--entrypoint", "sh", base_images.OFFICIAL["nginx"],
        "-c", "until getent hosts gateway; do sleep 0.2; done; exec nginx -g 'daemon off;'",
    ).strip()  # fmt: skip
    try:
        stack.engine.run("docker", "network", "connect", f"{stack.name}_edge", container)
        port = int(
            stack.engine.run("docker", "port", container, "8443").strip().splitlines()[0].rpartition(":")[2]
        )
        request = f"GET /healthz HTTP/1.1\r\n{CLOSE}\r\n".encode()
        wait_for(lambda: status_of(stack.exchange(request, port)) == 200, "nginx answers")
        yield port
    finally:
        stack.engine.run("docker", "kill", container, check=False)


@pytest.mark.parametrize("front", ["caddy", "nginx"])
@pytest.mark.parametrize("trick", TRICKS, ids=[name for name, *_ in TRICKS])
def test_a_trick_gets_nowhere(stack: Stack, nginx: int, front: str, trick: tuple[str, bytes, set[int]]):
    """It is refused, and nothing of it is seen by the models; see the next test."""
    _, request, statuses = trick
    answer = stack.exchange(request, nginx if front == "nginx" else 0)
    later = [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3})", answer)][1:]

    assert status_of(answer) in statuses, answer[:300]
    assert not [status for status in later if status < 400], answer[:1000]


@pytest.mark.parametrize("front", ["caddy", "nginx"])
@pytest.mark.parametrize("name", H2_TRICKS)
def test_a_trick_over_http_2_gets_nowhere(stack: Stack, nginx: int, front: str, name: str):
    headers, statuses = H2_TRICKS[name]

    assert stack.exchange_h2(headers, nginx if front == "nginx" else 0) in statuses


def test_no_trick_reached_the_models(stack: Stack):
    lines = {line.rpartition(" ")[0].partition("?")[0] for line in stack.reached_the_engine()}

    assert "POST /v1/chat/completions" in lines
    assert lines <= ALLOWED


@pytest.mark.parametrize("front", ["caddy", "nginx"])
def test_a_caller_cannot_say_where_it_comes_from(stack: Stack, nginx: int, front: str):
    """Of all headers that name a caller, none of theirs is believed."""
    names = ("X-Forwarded-For", "X-Real-IP", "Forwarded", "X_Forwarded_For", "True-Client-IP", "X-Client-IP")
    spoofed = "".join(f"{name}: {'for=' if name == 'Forwarded' else ''}203.0.113.7\r\n" for name in names)
    mark = f"spoof-{front}"
    stack.exchange(
        f"GET /v1/models HTTP/1.1\r\n{CLOSE}User-Agent: {mark}\r\n{spoofed}\r\n".encode(),
        nginx if front == "nginx" else 0,
    )

    def rows() -> list[dict[str, str]]:
        return [row for row in stack.told("audit", "--since", "10m") if row["user_agent"] == mark]

    wait_for(lambda: bool(rows()), "the request is in the audit log")
    assert all("203.0.113.7" not in str(row) for row in rows())


@pytest.mark.parametrize("front", ["caddy", "nginx"])
def test_a_body_beyond_the_cap_is_413(stack: Stack, nginx: int, front: str):
    port = nginx if front == "nginx" else 0
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\n{CLOSE}Authorization: Bearer {stack.key}\r\n"
        "Content-Type: application/json\r\n"
    )
    declared = stack.exchange(
        f"{head}Content-Length: 20971521\r\nExpect: 100-continue\r\n\r\n".encode(), port
    )
    chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
    streamed = stack.exchange(
        f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + chunk * 21 + b"0\r\n\r\n", port
    )

    assert status_of(declared) == 413
    # The connection may be cut while the body is still on its way: then there is no answer to read.
    assert status_of(streamed) in (413, 0)


# ── under load ───────────────────────────────────────────────────────────────────────────


@define
class Load:
    """Callers who ask without a pause until it is left."""

    stack: Stack
    callers: int = 4
    statuses: list[int] = field(factory=list)
    complete: int = 0
    tokens: int = 0
    """Pieces with text that callers have seen: less than what was used."""
    _over: threading.Event = field(factory=threading.Event)
    _threads: list[threading.Thread] = field(factory=list)

    def __enter__(self) -> "Load":
        self._threads = [threading.Thread(target=self._call) for _ in range(self.callers)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(120)

    def _call(self) -> None:
        while not self._over.is_set():
            try:
                answer = self.stack.ask("long", 200)
            except OSError:
                answer = b""
                time.sleep(0.1)
            self.statuses.append(status_of(answer))
            self.complete += b"data: [DONE]" in answer
            self.tokens += answer.count(b'"content":"')
            if status_of(answer) != 200:
                time.sleep(0.1)


def test_a_killed_part_loses_nothing(stack: Stack):
    """Each in turn, in the midst of answers; the ledger holds, and counts at least what callers have seen."""
    with Load(stack) as load:
        for service in SERVICES:
            begun = load.complete
            wait_for(lambda begun=begun: load.complete > begun + 3, "answers before the kill")  # type: ignore[misc]
            (container,) = stack.containers(service)
            stack.engine.run("docker", "kill", "--signal", "KILL", container)
            stack.engine.run("docker", "start", container)
            killed_at, killed = time.monotonic(), load.complete
            wait_for(lambda killed=killed: load.complete > killed + 3, f"answers after {service} was killed")  # type: ignore[misc]
            print(
                f"\n{service}: answers again {time.monotonic() - killed_at:.1f} s after it was killed", end=""
            )

    def holds() -> bool:
        stack.command("verify-ledger")
        return True

    wait_for(holds, "the ledger holds")
    assert set(load.statuses) <= {200, 0, 429, 502, 503, 504}
    (used,) = [one for one in stack.told("usage") if one["tenant"] == "first"]
    charged = used["completion_tokens"]
    print(
        f"\n{load.complete} of {len(load.statuses)} answers complete; {load.tokens} pieces, {charged} charged"
    )
    assert used["completion_tokens"] >= load.tokens
    logs = stack.compose("logs", "gateway")
    assert "Traceback" not in logs
    assert stack.key not in logs


def test_three_replicas_share_the_work_and_one_may_die(stack: Stack):
    stack.compose("up", "--detach", "--wait", "--no-recreate", "--scale", "gateway=3")
    containers = stack.containers("gateway")
    assert len(containers) == 3

    def served(container: str) -> int:
        log = stack.engine.run("sh", "-c", f"docker logs {container} 2>&1")
        return log.count('"path":"/v1/chat/completions"')

    before = {container: served(container) for container in containers}
    with Load(stack, callers=6) as load:
        wait_for(
            lambda: all(served(container) > before[container] + 2 for container in containers),
            "each replica has served",
        )
        stack.engine.run("docker", "kill", "--signal", "KILL", containers[-1])
        begun = load.complete
        wait_for(lambda: load.complete > begun + 10, "answers go on")

    stack.engine.run("docker", "start", containers[-1])
    failed = [status for status in load.statuses if status != 200]
    print(f"\n{load.complete} answers complete of {len(load.statuses)}, {len(failed)} refused or cut")
    # Only what the killed one had in hand, which may have begun with 200.
    assert len(failed) <= load.callers

    def holds() -> bool:
        stack.command("verify-ledger")
        return True

    wait_for(holds, "the ledger holds")


def test_a_stop_lets_running_answers_end(stack: Stack):
    stack.compose("up", "--detach", "--wait", "--no-recreate", "--scale", "gateway=1")
    (container,) = stack.containers("gateway")
    with stack.connection() as connection:
        connection.sendall(chat(stack.key, "long", 4000))
        received = b""
        while b"data: " not in received:
            received += connection.recv(65536)
        stopping = threading.Thread(target=lambda: stack.compose("stop", "gateway"))
        stopping.start()
        while piece := connection.recv(65536):
            received += piece
        stopping.join(200)

    assert b"data: [DONE]" in received
    assert stack.inspected(container)["State"]["ExitCode"] == 0


def test_a_second_up_finds_all_that_was_there(stack: Stack):
    """As after a restart of the machine: the key works, and no second one is made."""
    stack.compose("down")
    stack.up()

    print(f"\nfirst answer {stack.first_answer_s:.1f} s after up.sh was called, with volumes that were there")
    assert "The first key" not in stack.said


def test_logs_can_be_followed(stack: Stack):
    """What a request leaves there comes while it is looked at."""
    followed = "/v1/models/followed"
    following = subprocess.Popen(
        ["docker", "compose", "logs", "--follow", "gateway"],
        cwd=stack.folder, env=stack.engine.environment, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert following.stdout is not None
    seen = threading.Event()

    def read() -> None:
        for line in following.stdout or ():
            if followed in line:
                seen.set()

    reader = threading.Thread(target=read)
    reader.start()
    try:
        stack.exchange(f"GET {followed} HTTP/1.1\r\n{CLOSE}\r\n".encode())
        assert seen.wait(60)
    finally:
        following.terminate()
        following.wait()
        reader.join()
        following.stdout.close()


def test_the_board_is_shown_on_a_terminal(stack: Stack):
    """`docker compose exec gateway neuronetz-gateway top`, with a terminal; q ends it."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (40, 120))
    board = subprocess.Popen(
        ["docker", "compose", "exec", "gateway", "neuronetz-gateway", "top"],
        cwd=stack.folder, env={**stack.engine.environment, "TERM": "xterm-256color"},
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    try:
        while b"ollama" not in shown:
            shown += os.read(ours, 65536)
        os.write(ours, b"q")
        assert _rest(ours, board) == 0, shown[-2000:]
    finally:
        board.kill()
        board.wait()
        os.close(ours)
    assert b"Traceback" not in shown


def _rest(ours: int, board: "subprocess.Popen[bytes]") -> int:
    """How it ended, with all read that it still writes."""
    try:
        while os.read(ours, 65536):
            pass
    except OSError:
        pass
    return board.wait(60)


def test_gateways_serve_as_a_role_that_cannot_change_the_audit_log(stack: Stack):
    """compose.two-roles.yaml over a stack that had one role. What changes something is run as the owner."""
    with (stack.folder / ".env").open("a") as settings:
        settings.write("COMPOSE_FILE=compose.yaml:deploy/compose.two-roles.yaml\n")
    stack.up()
    create = ("create-tenant", "--name", "second")

    assert "can't change it" in stack.command("doctor")
    with pytest.raises(RuntimeError, match="DATABASE_ADMIN_URL"):
        stack.command(*create)
    stack.compose("run", "--rm", "migrate", *create)
    assert "second" in {one["name"] for one in stack.told("list-tenants")}
    stack.compose("run", "--rm", "-T", "migrate", "apply-retention")
    (container,) = stack.containers("gateway")
    owners = (stack.folder / "secrets/postgres_password").read_text().strip()
    held = stack.engine.run("docker", "exec", container, "sh", "-c", "env; cat /run/secrets/*")
    assert "gateway_serving" in held
    assert owners not in held
    stack.command("verify-audit")


def test_what_was_backed_up_under_traffic_is_there_again(stack: Stack, tmp_path: Path):
    """By the guide's own lines. Later all is killed, and nothing is left but the backup and a fresh clone."""
    with Load(stack) as load:
        wait_for(lambda: load.complete > 5, "answers before the backup")
        stack.engine.run("sh", "-ec", commands("compose", "back up"), cwd=stack.folder)
        begun = load.complete
        wait_for(lambda: load.complete > begun + 5, "answers after the backup")
        for service in SERVICES:
            stack.engine.run("docker", "kill", "--signal", "KILL", *stack.containers(service))
    stack.down()
    fresh = Stack(stack.engine, tmp_path / "another clone", https=stack.https, http=stack.http, key=stack.key)
    fresh.folder.mkdir()
    fresh.copy()
    for name in ("backup", "backup-secrets"):
        shutil.copytree(stack.folder / name, fresh.folder / name)
    try:
        fresh.engine.run("sh", "-ec", commands("compose", "restore"), cwd=fresh.folder)
        fresh.compose("run", "--rm", "pull", "greeting")
        answer = fresh.ask("greeting", 100)
        verified = [fresh.command(name) for name in ("verify-ledger", "verify-audit")]
        used = [one for one in fresh.told("usage") if one["tenant"] == "first"]
    finally:
        fresh.down()

    assert status_of(answer) == 200
    assert b"data: [DONE]" in answer
    print(f"\n{verified}")
    assert used[0]["completion_tokens"] > 0
