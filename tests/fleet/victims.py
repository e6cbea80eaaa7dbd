"""Gateways that are to be killed: real ones, each with a disk of its own; see `launcher`."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

from attrs import define

from tests.engines import wait_until
from tests.fleet.launcher import ARMED
from tests.gateways import Gateway, listening_url

_ROOT = Path(__file__).parent.parent.parent


@define
class Victim:
    directory: Path
    pid: int
    _log_from: int
    url: str = ""

    @property
    def is_dead(self) -> bool:
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        return False

    def listens(self) -> bool:
        log = self.directory / "gateway.log"
        self.url = listening_url(log.read_text()[self._log_from :]) if log.exists() else ""
        return bool(self.url)

    def arm(self) -> None:
        """From now on it dies at its point."""
        (self.directory / ARMED).touch()

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def terminate(self) -> None:
        os.kill(self.pid, signal.SIGTERM)

    def lose_disk(self) -> None:
        shutil.rmtree(self.directory / "data")


@define
class Launcher:
    """The process that forks them."""

    settings: dict[str, str]
    _process: "subprocess.Popen[str]"

    @classmethod
    def start(cls, settings: dict[str, str]) -> Self:
        return cls(
            settings,
            subprocess.Popen(
                [sys.executable, "-m", "tests.fleet.launcher"],
                cwd=_ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            ),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """They all die with it."""
        self._process.kill()
        self._process.communicate()

    def launch(self, directory: Path, point: str = "nowhere") -> Victim:
        """A gateway in this directory, which may have been another's; not listening yet."""
        environment = Gateway(directory, **self.settings).environment
        (directory / ARMED).unlink(missing_ok=True)
        log = directory / "gateway.log"
        log_from = log.stat().st_size if log.exists() else 0
        order: dict[str, Any] = {"directory": str(directory), "environment": environment, "point": point}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return Victim(directory, int(self._process.stdout.readline()), log_from)


def all_listen(victims: list[Victim]) -> None:
    assert wait_until(lambda: all(victim.listens() for victim in victims), 60)


def all_end(victims: list[Victim]) -> None:
    """As an operator ends them: others need not wait for what they had spooled."""
    for victim in victims:
        victim.terminate()
    assert wait_until(lambda: all(victim.is_dead for victim in victims), 30)
