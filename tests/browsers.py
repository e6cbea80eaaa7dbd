"""A real browser without a window, for the pages: $TEST_BROWSER, or a Chromium on PATH."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from attrs import frozen

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


@frozen
class Seen:
    """A page after its scripts have run, and what the browser had to say about it."""

    dom: str
    log: str


@frozen
class Browser:
    path: str
    profile: Path

    def open(self, url: str) -> Seen:
        """Open a page. No name is looked up: only addresses of this machine can be reached."""
        done = subprocess.run(
            [*self._command(), "--dump-dom", url], capture_output=True, text=True, timeout=60, check=True
        )
        return Seen(done.stdout, done.stderr)

    def _command(self) -> list[str]:
        return [
            self.path,
            "--headless",
            "--no-sandbox",  # as root it has none
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--enable-logging=stderr",
            "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
            "--virtual-time-budget=2000",
            f"--user-data-dir={self.profile}",
        ]


@pytest.fixture
def browser(tmp_path: Path) -> Browser:
    found = os.environ.get("TEST_BROWSER") or next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        pytest.skip("no browser here: install chromium, or name one in TEST_BROWSER")
    return Browser(found, tmp_path / "profile")
