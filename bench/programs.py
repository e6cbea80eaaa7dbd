"""The backend's double and the load generator: C programs in bench/native, compiled where they are used."""

import hashlib
import json
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

import httpx
from attrs import define, field, frozen

from bench import machine
from tests.servers import free_port

_SOURCES: Final = Path(__file__).parent / "native"
_BUILT: Final = Path(__file__).parent / ".built"
_START_S: Final = 10.0


class NoCompiler(Exception):
    """There is no C compiler. Its words say what to do."""


def program(name: str) -> Path:
    """Compiled, unless that was done before. Raises NoCompiler."""
    source = _SOURCES / f"{name}.c"
    made = _BUILT / f"{name}-{hashlib.sha256(source.read_bytes()).hexdigest()[:16]}"
    if not made.exists():
        compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        if compiler is None:
            raise NoCompiler("A C compiler is missing. On Debian or Ubuntu: apt install gcc libc6-dev")
        _BUILT.mkdir(exist_ok=True)
        unfinished = made.with_suffix(".new")
        subprocess.run([compiler, "-O2", "-Wall", "-Wextra", "-o", unfinished, source], check=True)
        unfinished.replace(made)
    return made


@frozen
class Model:
    """A model of the double: a stream has so many chunks, so far apart (0: as fast as they go)."""

    name: str
    chunks: int
    delay_ms: int = 0

    def __str__(self) -> str:
        return f"{self.name}:{self.chunks}:{self.delay_ms}"


@define
class Double:
    """A backend that answers at once. `with` starts and stops it."""

    models: Sequence[Model]
    port: int = field(factory=free_port)
    _process: "subprocess.Popen[bytes] | None" = None

    def __enter__(self) -> Self:
        with machine.on(machine.REST):
            self._process = subprocess.Popen([program("double"), str(self.port), *map(str, self.models)])
        wait_for(f"{self.url}/v1/models", _START_S)
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid


@frozen
class Call:
    """What callers send, and to whom."""

    port: int
    path: str
    body: Path
    headers: Mapping[str, str] = field(factory=dict)


@frozen
class Load:
    """So many callers for so long, who begin spread over `spread_s`; each asks again when it was answered."""

    callers: int
    seconds: float
    grace_s: float = 5.0
    """For so long, answers that are under way at the end are waited for."""
    spread_s: float = 0.0


@frozen
class Timing:
    """In milliseconds. None: nothing to measure came."""

    count: int
    p50: float | None
    p99: float | None


@frozen
class Told:
    """What the load generator measured."""

    seconds: float
    ok: int
    refused: int
    errors: int
    tokens: int
    refusal: str
    answer: Timing
    first_token: Timing
    token: Timing
    jitter: Timing

    @classmethod
    def read(cls, line: str) -> Self:
        told = json.loads(line)
        plain = ("seconds", "ok", "refused", "errors", "tokens", "refusal")
        return cls(
            **{name: told[name] for name in plain},
            answer=_timing(told["answer_ms"]),
            first_token=_timing(told["first_token_ms"]),
            token=_timing(told["token_ms"]),
            jitter=_timing(told["jitter_ms"]),
        )


def _timing(told: Mapping[str, Any]) -> Timing:
    return Timing(told["count"], told.get("p50"), told.get("p99"))


def start_load(call: Call, load: Load) -> "subprocess.Popen[str]":
    headers = [f"{name}: {value}" for name, value in call.headers.items()]
    numbers = (load.callers, load.seconds, load.grace_s, load.spread_s)
    arguments = [str(call.port), call.path, str(call.body), *map(str, numbers), *headers]
    with machine.on(machine.REST):
        return subprocess.Popen([program("load"), *arguments], stdout=subprocess.PIPE, text=True)


def told_by(process: "subprocess.Popen[str]") -> Told:
    printed, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"the load generator ended with {process.returncode}")
    return Told.read(printed)


def wait_for(url: str, within_s: float) -> float:
    """Ask until an answer comes, whatever it says. How long it took, in s. Raises TimeoutError."""
    began = time.perf_counter()
    with httpx.Client(trust_env=False, timeout=5.0) as client:
        while (took := time.perf_counter() - began) < within_s:
            try:
                client.get(url)
            except httpx.TransportError:
                time.sleep(0.01)
            else:
                return took
    raise TimeoutError(f"{url} did not answer within {within_s} s")
