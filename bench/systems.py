"""What is measured side by side: each is started on its core, and told where its backends are."""

import contextlib
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Final

from attrs import define, field, frozen

from bench import machine
from bench.programs import Double, Model, wait_for
from gateway.rules.keys import new_token, prefix_of
from tests.gateways import SECRET, Gateway
from tests.postgres_server import PostgresServer
from tests.servers import RedisServer, free_port

PLAIN: Final = "plain"
BURST: Final = "burst"
PACED: Final = "paced"
PACED_S: Final = 2.0
SLOW: Final = "slow"
NATIVE: Final = "native-"
MODELS: Final = (
    Model(PLAIN, 1),
    Model(BURST, 200),
    # 50 tokens a second, for two seconds, as a fast model writes; and for as long as anybody measures.
    Model(PACED, round(PACED_S * 50), 20),
    Model(SLOW, 600, 1000),
)
_START_S: Final = 120.0
# More than any load here asks for, on everything that a tenant and a key can have.
_LIMITS: Final = ("--rpm", "1000000000", "--tpm", "1000000000000", "--concurrent", "1000000")
_BUDGETS: Final = tuple(
    word for window in ("daily", "monthly", "total") for word in (f"--{window}-tokens", "1000000000000000")
)


class Surface(StrEnum):
    """What callers speak, and what the backend speaks."""

    OPENAI = "openai"
    NATIVE = "native"
    TRANSLATED = "openai to native"

    @property
    def path(self) -> str:
        return "/api/chat" if self is Surface.NATIVE else "/v1/chat/completions"

    def model(self, name: str) -> str:
        return name if self is Surface.OPENAI else NATIVE + name


class Caller(StrEnum):
    """Who calls: one with a key, one whose limit is used up, one with a key that does not exist."""

    KNOWN = "known"
    LIMITED = "limited"
    UNKNOWN = "unknown"


@define
class Backends:
    """One double for each kind of backend; they have different models, so that a name says where it goes."""

    openai: Double = field(factory=lambda: Double(MODELS))
    native: Double = field(
        factory=lambda: Double([Model(NATIVE + m.name, m.chunks, m.delay_ms) for m in MODELS])
    )

    @contextlib.contextmanager
    def started(self) -> Iterator["Backends"]:
        with self.openai, self.native:
            yield self

    def of(self, surface: Surface) -> Double:
        return self.openai if surface is Surface.OPENAI else self.native


@frozen
class System:
    """One that runs."""

    name: str
    version: str
    pid: int | None
    """The root of its processes; None where there is nothing in between."""
    ports: Mapping[Surface, int]
    headers: Mapping[Caller, Mapping[str, str]]
    started_s: float = 0.0
    stores: Sequence[int] = ()
    """The roots of Redis and Postgres, which only the gateway uses."""


Start = Callable[[Backends, Path], contextlib.AbstractContextManager[System]]


class Missing(Exception):
    """A system that can't be measured here. Its words say why."""


@contextlib.contextmanager
def direct(backends: Backends, _folder: Path) -> Iterator[System]:
    """Nothing in between: what the callers and the double cost themselves."""
    ports = {surface: backends.of(surface).port for surface in (Surface.OPENAI, Surface.NATIVE)}
    yield System("direct", "the backend's double itself", None, ports, {Caller.KNOWN: {}})


_NGINX: Final = """
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 8192; }}
http {{
    access_log off; client_max_body_size 20m; client_body_buffer_size 1m; keepalive_requests 1000000000;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; proxy_read_timeout 1h;
    upstream openai {{ server 127.0.0.1:{openai}; keepalive 1024; keepalive_requests 1000000000; }}
    upstream native {{ server 127.0.0.1:{native}; keepalive 1024; keepalive_requests 1000000000; }}
    server {{ listen 127.0.0.1:{port} backlog=4096;
        location /v1/ {{ proxy_pass http://openai; }}
        location /api/ {{ proxy_pass http://native; }} }}
}}
"""


@contextlib.contextmanager
def nginx(backends: Backends, folder: Path) -> Iterator[System]:
    """A plain reverse proxy: the floor of what can be had, as it looks at nothing."""
    binary = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if binary is None:
        raise Missing("nginx is not installed; on Debian or Ubuntu: apt install nginx-light")
    told = subprocess.run([binary, "-v"], capture_output=True, text=True, check=True).stderr
    port, settings = free_port(), folder / "nginx.conf"
    settings.write_text(
        _NGINX.format(folder=folder, port=port, openai=backends.openai.port, native=backends.native.port)
    )
    with running([binary, "-c", str(settings), "-p", str(folder)], folder) as pid:
        took = wait_for(f"http://127.0.0.1:{port}/v1/models", _START_S)
        version = told.rpartition("/")[2].split()[0]
        ports = dict.fromkeys((Surface.OPENAI, Surface.NATIVE), port)
        yield System("nginx", version, pid, ports, {Caller.KNOWN: {}}, took)


@contextlib.contextmanager
def running(
    words: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None
) -> Iterator[int]:
    """A server on the core of what is measured, its words going to `log`; stopped in the end."""
    with machine.on(machine.SYSTEM), (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder, env=environment
        )
    try:
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def embedded(backends: Backends, folder: Path) -> Iterator[System]:
    """This gateway alone: SQLite, counters in its process."""
    with gateway("gateway, embedded", backends, folder, {}) as system:
        yield system


@contextlib.contextmanager
def fleet(backends: Backends, folder: Path) -> Iterator[System]:
    """This gateway as one of a fleet: Postgres and Redis, which run on the other cores."""
    with (
        stores() as (settings, roots),
        gateway("gateway, fleet", backends, folder, settings, roots) as system,
    ):
        yield system


@contextlib.contextmanager
def stores() -> Iterator[tuple[dict[str, str], list[int]]]:
    """The settings of gateways over one Redis and one Postgres, and the roots of their processes."""
    with machine.on(machine.REST), PostgresServer() as postgres, RedisServer() as redis:
        settings = {
            "DATABASE_URL": postgres.url(postgres.new_database()),
            "REDIS_URL": redis.url,
            "GATEWAY_SECRET": SECRET,
        }
        roots = [_pid_of(postgres), _pid_of(redis)]
        with machine.on(machine.REST | machine.SYSTEM):
            yield settings, roots


def _pid_of(server: PostgresServer | RedisServer) -> int:
    process = server._process
    assert process is not None
    return process.pid


@contextlib.contextmanager
def gateway(
    name: str,
    backends: Backends,
    folder: Path,
    settings: Mapping[str, str],
    roots: Sequence[int] = (),
    *,
    tenant: str = "acme",
    prepare: Callable[[Gateway], None] = lambda _: None,
) -> Iterator[System]:
    """Every control on: limits and budgets on tenant and key, the audit log, metrics, a log line a request.

    `prepare` changes its database before it starts.

    Redis has longer than a caller should be made to wait: beside it, here, others keep its core busy.
    """
    served = Gateway(
        folder,
        OLLAMA_BACKENDS=f"openai={backends.openai.url};kind=openai,native={backends.native.url}",
        **{"GATEWAY_REDIS_TIMEOUT_S": "5", **settings, **_passed_on()},
    )
    make_key(served, tenant)
    limited = limited_key(served, f"limited-{tenant}")
    put_limits(served, tenant, served.key)
    prepare(served)
    with machine.on(machine.SYSTEM):
        began = time.perf_counter()
        served.start()
        took = time.perf_counter() - began
    assert served.process is not None
    port = int(served.url.rpartition(":")[2])
    wait_until_served(served)
    try:
        yield System(
            name,
            _commit(),
            served.process.pid,
            dict.fromkeys(Surface, port),
            {
                Caller.KNOWN: _bearer(served.key),
                Caller.LIMITED: _bearer(limited),
                Caller.UNKNOWN: _bearer(new_token(secrets.randbelow)),
            },
            took,
            roots,
        )
    finally:
        served.stop()


def _passed_on() -> dict[str, str]:
    """Settings that whoever measures wants to compare: BENCH_GATEWAY_X=… is GATEWAY_X=… there."""
    prefix = "BENCH_"
    return {name.removeprefix(prefix): value for name, value in os.environ.items() if name.startswith(prefix)}


def put_limits(served: Gateway, tenant: str, key: str) -> None:
    for whom in (("--tenant", tenant), ("--prefix", prefix_of(key))):
        served.json("set-limits", *whom, *_LIMITS)
        served.json("set-budgets", *whom, *_BUDGETS)


def make_key(served: Gateway, tenant: str) -> None:
    done = served.command("migrate")
    assert done.returncode == 0, done.stderr
    served.json("create-tenant", "--name", tenant)
    served.key = served.json("create-key", "--tenant", tenant, "--name", "ci")["key"]


def limited_key(served: Gateway, tenant: str) -> str:
    """One that may ask once a minute."""
    served.json("create-tenant", "--name", tenant)
    return str(served.json("create-key", "--tenant", tenant, "--name", "one", "--rpm", "1")["key"])


def wait_until_served(served: Gateway) -> None:
    with served.client() as client:
        for model in (PLAIN, NATIVE + PLAIN):
            body = {"model": model, "messages": [{"role": "user", "content": "Hi"}]}
            answered = client.post("/v1/chat/completions", json=body)
            assert answered.status_code == 200, answered.text


def _bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def _commit() -> str:
    git = shutil.which("git")
    if git is None:
        return "unknown"
    here = Path(__file__).parent
    told = subprocess.run(
        [git, "-C", here, "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return told.stdout.strip() or "unknown"
