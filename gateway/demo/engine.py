"""A real llama.cpp engine in a child process, for `make run` without an Ollama and for the tests.

    with engine.scripted(GREETING, models=Path("data/models"), log=Path("data/engine.log")) as running:
        print(running.url)

Synchronous on purpose: it starts before the event loop does and stops after it.
"""

import http.client
import json
import re
import select
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Self, cast

import attrs
import cattrs

from gateway.demo import child
from gateway.demo.scripts import Script

_INSTALL = "pip install 'neuronetz-gateway[demo]'"
_LOG_LINES = 12
_SCRIPTED_START_S = 30.0
_FILE_START_S = 10 * 60.0  # tens of gigabytes from a slow disk
_STOP_S = 5.0
_SLOTS = 4

# A file of the user's: its whole context would often be more memory than the machine has.
_FILE_CONTEXT = 8192


class EngineFailed(Exception):
    """The engine is not running: one sentence why, and what to do; then the last lines of its log."""

    def __init__(self, reason: str, log: str = "") -> None:
        super().__init__(f"{reason}\n{log}".rstrip())
        self.reason = reason
        self.log = log


@attrs.frozen
class Serving:
    """What the engine serves, and how."""

    model: str
    """The path of the GGUF file."""
    alias: str
    """The model's public name."""
    slots: int = _SLOTS
    """Answers written at the same time; more requests than that wait inside the engine."""
    context: int = _FILE_CONTEXT
    """Tokens that all conversations together can hold; one can have them all, up to the model's own limit."""
    embeddings: bool = False
    threads: int | None = None
    """None: as many as the machine has cores."""


class Engine:
    """One engine process. `start` and `stop` it, or use it as a context manager.

    Start it from a thread that lives as long as it should: on Linux it dies with the thread.
    """

    def __init__(self, serving: Serving, log: Path, *, start_timeout_s: float = _FILE_START_S) -> None:
        self.serving = serving
        self.log = log
        self.start_timeout_s = start_timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._url: str | None = None

    @property
    def url(self) -> str:
        """Where it listens, like `http://127.0.0.1:40123`. RuntimeError while it is not running."""
        if self._url is None:
            raise RuntimeError("The engine is not running; start() it first.")
        return self._url

    @property
    def pid(self) -> int | None:
        """The process id, or None while it is not running."""
        return self._process.pid if self._process else None

    def start(self) -> Self:
        """Start it and wait until it is ready to answer. Raises EngineFailed, and leaves nothing running."""
        _require("xllamacpp")
        _check_gguf(Path(self.serving.model))
        deadline = time.monotonic() + self.start_timeout_s
        self._process = self._spawn()
        try:
            self._url = self._announced(self._process, deadline)
            self._wait_until_healthy(deadline)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End it, whatever it is doing. Does nothing when it is not running."""
        process, self._process, self._url = self._process, None, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe:
                pipe.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _spawn(self) -> subprocess.Popen[bytes]:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as log:
            return subprocess.Popen(  # noqa: S603 our own interpreter and module, no shell
                child.command("gateway.demo.llama_server", json.dumps(cattrs.unstructure(self.serving))),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=child.environment(),
                start_new_session=True,  # Ctrl-C is for the gateway, which may want to finish its answers
            )

    def _announced(self, process: subprocess.Popen[bytes], deadline: float) -> str:
        """The URL, which the child writes when the model has been loaded."""
        stdout = cast(IO[bytes], process.stdout)  # `_spawn` asked for a pipe
        readable, _, _ = select.select([stdout], [], [], max(0.0, deadline - time.monotonic()))
        if not readable:
            raise self._failed(f"was not ready within {self.start_timeout_s:.0f} s")
        if line := stdout.readline():
            return line.decode().strip()
        raise self._failed(f"could not serve {self.serving.model} and ended with exit code {process.wait()}")

    def _wait_until_healthy(self, deadline: float) -> None:
        while not _healthy(self.url):
            if time.monotonic() > deadline:
                raise self._failed(f"listened, but was not healthy within {self.start_timeout_s:.0f} s")
            time.sleep(0.01)

    def _failed(self, what: str) -> EngineFailed:
        lines = self.log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
        return EngineFailed(f"The llama.cpp engine {what}; its log is {self.log}.", "\n".join(lines))


def scripted(script: Script, models: Path, log: Path) -> Engine:
    """An engine, not yet started, for a built-in model, which is written into `models` unless it is there.

    Writing takes half a second and happens once. Raises EngineFailed when it fails.
    """
    path = models / script.file_name
    if not path.exists():
        _write(script, path)
    serving = Serving(
        model=str(path),
        alias=script.name,
        slots=_SLOTS,
        context=script.context * _SLOTS,
        embeddings=script.embedding,
        threads=1,
    )
    return Engine(serving, log, start_timeout_s=_SCRIPTED_START_S)


def of_file(path: Path, log: Path) -> Engine:
    """An engine, not yet started, for a user's GGUF file; the model is named after the file.

    What can't stand in a model's name, such as a space, becomes a dash.
    """
    alias = re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-.") or "model"
    return Engine(Serving(model=str(path), alias=alias), log)


def _write(script: Script, path: Path) -> None:
    """Write the model in a process of its own: numpy and gguf would stay in ours for good."""
    _require("gguf", "numpy")
    arguments = (json.dumps(cattrs.unstructure(script)), str(path))
    done = subprocess.run(  # noqa: S603 our own interpreter and module, no shell
        child.command("gateway.demo.scripted_model", *arguments),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        env=child.environment(),
    )
    if done.returncode:
        raise EngineFailed(f"The model {script.name!r} could not be written to {path}.", done.stderr.strip())


def _require(*libraries: str) -> None:
    if missing := child.missing(*libraries):
        raise EngineFailed(f"The built-in engine needs {' and '.join(missing)}: {_INSTALL}")


def _check_gguf(path: Path) -> None:
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise EngineFailed(f"The model file {path} cannot be read: {error.strerror}.") from error
    if magic != b"GGUF":
        raise EngineFailed(f"{path} is not a GGUF model: the file does not begin with the letters GGUF.")


def _healthy(url: str) -> bool:
    """Whether `/health` says ok; it says 503 while the model is being loaded."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=1.0)  # heeds no proxy
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
