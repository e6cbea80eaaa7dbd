"""The gateway as its users meet it: a process with settings, a database, commands and a port."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Self

import httpx
import pytest

from gateway.demo.engine import Engine
from tests.databases import ask
from tests.doubles import Double, answer, chat_frame
from tests.engines import wait_until
from tests.servers import RedisServer

SECRET = "5f" * 16 + "0123456789abcdef"

# Three commands in one process: most of what a command costs is its start, and most gateways need these.
_MAKE_FIRST_KEY = """
import contextlib, io
from gateway.cli.main import cli
with contextlib.redirect_stdout(io.StringIO()):
    cli(["migrate"], standalone_mode=False)
    cli(["create-tenant", "--name", "acme"], standalone_mode=False)
cli(["create-key", "--tenant", "acme", "--name", "ci", "--json"], standalone_mode=False)
"""


class Gateway:
    """A served gateway in a directory of its own, with one tenant and one key."""

    program: ClassVar[tuple[str, ...]] = ("-m", "gateway", "serve")
    """What Python is given to become one."""

    def __init__(self, directory: Path, **settings: str) -> None:
        self.directory = directory
        # Not the settings of whoever runs the tests.
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("GATEWAY_", "OLLAMA_", "OTEL_"))
        }
        kept.pop("DATABASE_URL", None)
        kept.pop("REDIS_URL", None)
        self.environment = {
            **kept,
            "GATEWAY_BIND": "127.0.0.1:0",
            "GATEWAY_OPS_BIND": "127.0.0.1:0",
            **settings,
        }
        directory.mkdir(exist_ok=True)
        self.log = directory / "gateway.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.url = ""
        self.ops_url = ""
        self.key = ""
        self._log_from = 0

    @property
    def database_url(self) -> str:
        return self.environment.get("DATABASE_URL") or f"sqlite:///{self.directory}/data/gateway.db"

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one command of the gateway's, in its directory."""
        return self._ran("-m", "gateway", *arguments)

    def _ran(self, *program: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *program],
            cwd=self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def json(self, *arguments: str) -> Any:
        """What a command with `--json` prints. It must succeed."""
        done = self.command(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def start(self) -> Self:
        self._log_from = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *self.program],
                cwd=self.directory,
                env=self.environment,
                stderr=log,
            )
        assert wait_until(self._is_listening, 60), self.log.read_text()
        return self

    def _is_listening(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        log = self.log.read_text()[self._log_from :]
        self.url, self.ops_url = listening_url(log), listening_url(log, "listening for operators")
        return bool(self.url)

    def make_first_key(self) -> str:
        done = self._ran("-c", _MAKE_FIRST_KEY)
        assert done.returncode == 0, done.stderr
        self.key = json.loads(done.stdout)["key"]
        return self.key

    def terminate(self) -> None:
        """Ask it to stop, and go on."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def wait(self, within_s: float = 20) -> int:
        """Its exit code, once it has ended."""
        assert self.process is not None
        return self.process.wait(within_s)

    def stop(self) -> None:
        if self.process is not None and self.is_running:
            self.process.terminate()
            try:
                self.process.wait(20)
            finally:
                self.process.kill()

    def rows(self, where: str = "1 = 1") -> list[dict[str, Any]]:
        """Audit rows, oldest first."""
        return ask(
            self.database_url, f"SELECT * FROM audit WHERE {where} ORDER BY received_at_us, request_id"
        )

    def row_of(self, request_id: str) -> dict[str, Any]:
        """The audit row of one request, waited for: rows are written in batches."""
        found: list[dict[str, Any]] = []

        def is_there() -> bool:
            found[:] = self.rows(f"request_id = '{request_id}'")
            return bool(found)

        assert wait_until(is_there, 5), f"no audit row for {request_id}"
        (row,) = found
        return row

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    def client(self) -> httpx.Client:
        """A plain HTTP client with the key."""
        return httpx.Client(base_url=self.url, headers=self.headers, timeout=30, trust_env=False)


def heal(url: str, key: str, backend: Double, model: str = "double") -> None:
    """Let the backend work again, and the gateway know of it: its breaker may have opened."""
    backend.scripts["/api/chat"] = answer(200, chat_frame(done=True))
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "stream": False}
    with httpx.Client(headers={"Authorization": f"Bearer {key}"}, timeout=30, trust_env=False) as client:
        assert wait_until(lambda: client.post(f"{url}/api/chat", json=body).status_code == 200, 90)


def listening_url(log: str, message: str = "listening") -> str:
    """Where the gateway that wrote this log listens; nothing as long as it does not."""
    found = re.findall(rf'"message":"{message}","addresses":\["([^"]+)"\]', log)
    return f"http://{found[-1]}" if found else ""


@pytest.fixture(scope="session")
def double() -> Iterator[Double]:
    with Double() as one:
        yield one


@pytest.fixture(scope="session")
def gateway(
    tmp_path_factory: pytest.TempPathFactory,
    engine_greeting: Engine,
    engine_endless: Engine,
    engine_embed: Engine,
    double: Double,
) -> Iterator[Gateway]:
    """One gateway for all tests that leave it as it was: three real engines and the double behind it."""
    backends = (
        f"words={engine_greeting.url};kind=openai,loop={engine_endless.url};kind=openai,"
        f"vectors={engine_embed.url};kind=openai,double={double.url}"
    )
    one = Gateway(tmp_path_factory.mktemp("the gateway"), OLLAMA_BACKENDS=backends)
    one.make_first_key()
    try:
        yield one.start()
    finally:
        one.stop()


@pytest.fixture
def own_gateway(tmp_path: Path, engine_endless: Engine, engine_greeting: Engine) -> Iterator[Gateway]:
    """A gateway that a test may stop, kill or fill."""
    backends = f"words={engine_greeting.url};kind=openai,loop={engine_endless.url};kind=openai"
    one = Gateway(tmp_path, OLLAMA_BACKENDS=backends)
    one.make_first_key()
    try:
        yield one.start()
    finally:
        one.stop()


@pytest.fixture
def postgres_gateway(
    tmp_path: Path, postgres_url: str, engine_endless: Engine, engine_greeting: Engine
) -> Iterator[Gateway]:
    """As `own_gateway`, with its database in Postgres."""
    backends = f"words={engine_greeting.url};kind=openai,loop={engine_endless.url};kind=openai"
    one = Gateway(tmp_path, OLLAMA_BACKENDS=backends, DATABASE_URL=postgres_url, GATEWAY_SECRET=SECRET)
    one.make_first_key()
    try:
        yield one.start()
    finally:
        one.stop()


@pytest.fixture
def fleet_settings(
    postgres_url: str, redis_server: RedisServer, engine_endless: Engine, engine_greeting: Engine
) -> dict[str, str]:
    """What replicas share: a database, a Redis, a secret and backends."""
    return {
        "OLLAMA_BACKENDS": f"words={engine_greeting.url};kind=openai,loop={engine_endless.url};kind=openai",
        "DATABASE_URL": postgres_url,
        "REDIS_URL": redis_server.url,
        "GATEWAY_SECRET": SECRET,
    }


@pytest.fixture
def fleet(
    tmp_path: Path, redis_server: RedisServer, fleet_settings: dict[str, str]
) -> Iterator[tuple[Gateway, Gateway]]:
    """Two replicas with a disk each, over one database and one Redis, which is empty."""
    redis_server.ask("FLUSHALL")
    replicas = Gateway(tmp_path / "one", **fleet_settings), Gateway(tmp_path / "two", **fleet_settings)
    replicas[1].key = replicas[0].make_first_key()
    try:
        for replica in replicas:
            replica.start()
        yield replicas
    finally:
        for replica in replicas:
            replica.stop()
