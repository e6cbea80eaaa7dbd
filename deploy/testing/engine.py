"""A container engine: the one that runs, or a dockerd of our own that leaves nothing behind."""

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from attrs import frozen

START_S: Final = 60.0
_GO_COMPOSE: Final = "github.com/docker/compose/v2@v2.40.3"


class Unavailable(Exception):
    """No engine can run here: one sentence why, and how one is got."""


@frozen
class Engine:
    """How commands reach the engine. `environment` is what their processes see."""

    environment: dict[str, str]
    is_own: bool

    def run(self, *command: str, check: bool = True, timeout_s: float = 600, **more: object) -> str:
        """Its standard output; RuntimeError with all that it said when it fails."""
        done = subprocess.run(
            command,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
            **more,  # type: ignore[call-overload]
        )
        if check and done.returncode:
            raise RuntimeError(
                f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
            )
        return str(done.stdout)


def cache() -> Path:
    """Where tools and the own engine's images are kept from one run to the next."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    folder = Path(os.environ.get("DEPLOY_CACHE") or Path(home) / "neuronetz-gateway" / "deploy")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def an_engine() -> Iterator[Engine]:
    """Raises Unavailable with what to do."""
    if not shutil.which("docker"):
        raise Unavailable("docker is not installed (Debian, Ubuntu: apt install docker.io)")
    with contextlib.ExitStack() as stack:
        environment = dict(os.environ)
        is_own = not _answers(environment)
        if is_own:
            environment["DOCKER_HOST"] = stack.enter_context(_own_engine())
        _with_compose(environment, stack)
        yield Engine(environment, is_own)


def _answers(environment: dict[str, str]) -> bool:
    done = subprocess.run(["docker", "info"], env=environment, capture_output=True, check=False, timeout=30)
    return done.returncode == 0


@contextlib.contextmanager
def _own_engine() -> Iterator[str]:
    """Its address. What it did to this machine's network is undone; its images stay in the cache."""
    if os.geteuid() != 0:
        raise Unavailable("no engine runs, and only root may start one (sudo make test-deploy)")
    missing = [name for name in ("dockerd", "iptables-save", "ip") if not shutil.which(name)]
    if missing:
        raise Unavailable(
            f"no engine runs, and {', '.join(missing)} is missing (apt install docker.io iptables)"
        )
    data = cache() / "engine"
    with tempfile.TemporaryDirectory(prefix="dockerd-") as text, _network_restored():
        folder = Path(text)
        address = f"unix://{folder}/sock"
        with (folder / "log").open("wb") as log:
            daemon = subprocess.Popen(
                ["dockerd", "--data-root", str(data), "--exec-root", str(folder / "exec"), "-H", address,
                 "-p", str(folder / "pid"), "--live-restore=false"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        try:
            _wait_for(daemon, address, folder / "log")
            yield address
        finally:
            daemon.terminate()
            try:
                daemon.wait(60)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
            _unmount_below(folder, data)


def _wait_for(daemon: "subprocess.Popen[bytes]", address: str, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while not _answers({**os.environ, "DOCKER_HOST": address}):
        if daemon.poll() is not None or time.monotonic() > deadline:
            last = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
            raise Unavailable(f"dockerd does not start on this machine; the end of its log:\n{last}")
        time.sleep(0.3)


@contextlib.contextmanager
def _network_restored() -> Iterator[None]:
    rules = {kind: _output(f"{kind}-save") for kind in ("iptables", "ip6tables")}
    links = _links()
    forwarding = Path("/proc/sys/net/ipv4/ip_forward")
    forwarded = forwarding.read_text()
    try:
        yield
    finally:
        for link in _links() - links:
            subprocess.run(["ip", "link", "delete", link], capture_output=True, check=False)
        for kind, text in rules.items():
            # Tables that were not there before have nothing to be restored to: they are emptied.
            for table in ("filter", "nat", "mangle", "raw"):
                if f"*{table}" not in text and f"*{table}" in _output(f"{kind}-save"):
                    for flag in ("-F", "-X"):
                        subprocess.run([kind, "-t", table, flag], capture_output=True, check=False)
                    if table == "filter":
                        subprocess.run([kind, "-P", "FORWARD", "ACCEPT"], capture_output=True, check=False)
            subprocess.run([f"{kind}-restore"], input=text, text=True, capture_output=True, check=False)
        forwarding.write_text(forwarded)


def _links() -> set[str]:
    return {path.name for path in Path("/sys/class/net").iterdir()}


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def _unmount_below(*folders: Path) -> None:
    mounted = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for path in reversed(mounted):
        if any(Path(path).is_relative_to(folder) for folder in folders):
            subprocess.run(["umount", "--lazy", path], capture_output=True, check=False)


def _with_compose(environment: dict[str, str], stack: contextlib.ExitStack) -> None:
    """`docker compose`, where it is missing: built once from source, through Go's own module proxy."""
    plugin = subprocess.run(
        ["docker", "compose", "version"], env=environment, capture_output=True, check=False
    )
    if plugin.returncode == 0:
        return
    if not shutil.which("go") and not (cache() / "docker-compose").exists():
        raise Unavailable(
            "Docker Compose 2 is missing (Debian 13: apt install docker-compose; or Go, to build it)"
        )
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    (folder / "cli-plugins").mkdir()
    shutil.copy(built_by_go(_GO_COMPOSE, "./cmd", "docker-compose"), folder / "cli-plugins")
    environment["DOCKER_CONFIG"] = str(folder)


def built_by_go(module: str, package: str, name: str) -> Path:
    """A program of a Go module, in the cache. Its own go.mod decides all versions; go.sum's hashes hold."""
    program = cache() / name
    if program.exists():
        return program
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=mod"}
    path, _, version = module.partition("@")
    listed = subprocess.run(
        ["go", "mod", "download", "-json", f"{path}@{version}"],
        env=environment, capture_output=True, text=True, check=False, cwd=cache(),
    ).stdout  # fmt: skip
    source = next((line.split('"')[3] for line in listed.splitlines() if '"Dir"' in line), None)
    if source is None:
        raise Unavailable(f"{name} is missing and can't be built: Go's module proxy does not answer")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "source"
        shutil.copytree(source, copy)
        subprocess.run(["chmod", "-R", "u+w", str(copy)], check=True)
        stamp = f"-s -w -X github.com/docker/compose/v2/internal.Version={version}"
        subprocess.run(
            ["go", "build", "-trimpath", "-ldflags", stamp, "-o", str(program), package],
            cwd=copy, env=environment, check=True,
        )  # fmt: skip
    return program
