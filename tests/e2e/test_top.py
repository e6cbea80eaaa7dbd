"""The command top on a gateway that works, in a real terminal."""

import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator

import pyte
import pytest

from tests.engines import wait_until
from tests.gateways import Gateway

HELLO = {"messages": [{"role": "user", "content": "Hello!"}]}
ROWS, COLUMNS = 50, 120


class Terminal:
    """A command in a terminal of its own; `shown` is what a person sees."""

    def __init__(self, gateway: Gateway, *arguments: str) -> None:
        self._screen = pyte.Screen(COLUMNS, ROWS)
        self._stream = pyte.ByteStream(self._screen)
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        self.before = termios.tcgetattr(theirs)
        self._theirs = theirs
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gateway", *arguments],
            cwd=gateway.directory,
            env={**gateway.environment, "TERM": "xterm-256color"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._ours, 65536)
            except OSError:
                return
            self._stream.feed(data)

    def shown(self) -> str:
        return "\n".join(self._screen.display)

    def type(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def settings(self) -> list[object]:
        return termios.tcgetattr(self._theirs)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._theirs)
        self._reader.join(10)
        os.close(self._ours)


@pytest.fixture
def terminal(own_gateway: Gateway) -> Iterator[Terminal]:
    own_gateway.json("set-budgets", "--tenant", "acme", "--daily-tokens", "1_000_000")
    with own_gateway.client() as client:
        client.post("/v1/chat/completions", json={"model": "greeting", **HELLO})
    one = Terminal(own_gateway, "top", "--interval", "0.2", "--address", own_gateway.ops_url[7:])
    try:
        yield one
    finally:
        one.close()


def test_it_shows_what_goes_on_and_ends_with_q(own_gateway: Gateway, terminal: Terminal):
    """Tenants, keys, streams as they come and go, backends, budgets; the terminal is as before afterwards."""
    assert wait_until(lambda: "BUDGET OF" in terminal.shown(), 60), terminal.shown()
    with own_gateway.client() as client:
        asked = client.build_request("POST", "/api/chat", json={"model": "endless", **HELLO})
        stream = client.send(asked, stream=True)
        is_seen = wait_until(lambda: "1 running" in terminal.shown(), 60)
        during = terminal.shown()
        stream.close()
    is_gone = wait_until(lambda: "0 running" in terminal.shown(), 60)
    terminal.type("q")

    assert terminal.process.wait(30) == 0
    assert is_seen, during
    assert is_gone
    lines = [line for line in during.splitlines() if "acme" in line]
    assert any(own_gateway.key[:11] in line and "endless:latest" in line for line in lines), during
    assert "ready" in during
    assert "words" in during
    assert "100%" in during or "99%" in during
    assert terminal.settings() == terminal.before


def test_a_gateway_that_goes_is_waited_for(own_gateway: Gateway, terminal: Terminal):
    """And Ctrl-C ends it without a word."""
    assert wait_until(lambda: "BACKEND" in terminal.shown(), 60)
    own_gateway.stop()
    assert wait_until(lambda: "it is tried again" in terminal.shown(), 60), terminal.shown()

    terminal.process.send_signal(signal.SIGINT)

    assert terminal.process.wait(30) == 0
    assert "Traceback" not in terminal.shown()


def test_programs_get_a_report(own_gateway: Gateway):
    told = own_gateway.json("top", "--address", own_gateway.ops_url[7:])

    assert told["ready"] is True
    assert {one["backend"]: one["up"] for one in told["backends"]} == {"loop": True, "words": True}
    assert set(told) == {
        "ready", "missing", "requests_per_s", "refusals_per_s", "tokens_per_s", "in_flight", "running",
        "waiting", "spool_bytes", "ledger_lag_s", "tenants", "keys", "streams", "backends", "budgets",
    }  # fmt: skip


def test_without_a_terminal_it_is_shown_once(own_gateway: Gateway):
    """For a pipe, or a watch of somebody's own."""
    done = own_gateway.command("top", "--address", own_gateway.ops_url[7:])

    assert done.returncode == 0, done.stderr
    assert "BACKEND" in done.stdout
