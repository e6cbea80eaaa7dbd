"""First contact: `quickstart`, which `make run` runs, from nothing to a streamed answer."""

import http.client
import itertools
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from gateway.demo import scripts
from gateway.demo.scripts import GREETING
from tests.doubles import Double, chat_stream
from tests.engines import wait_until

KEPT = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("GATEWAY_", "OLLAMA_", "DATABASE_"))
}


class Quickstart:
    """One run of the command, in a directory of its own."""

    def __init__(self, directory: Path, *arguments: str, **settings: str) -> None:
        self.out = directory / "out"
        self.err = directory / "err"
        environment = {
            **KEPT,
            "GATEWAY_BIND": "127.0.0.1:0",
            "GATEWAY_OPS_BIND": "127.0.0.1:0",
            "OLLAMA_BACKENDS": "http://127.0.0.1:1",
            **settings,
        }
        with self.out.open("w") as out, self.err.open("w") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gateway", "quickstart", *arguments],
                cwd=directory,
                env=environment,
                stdout=out,
                stderr=err,
            )

    def printed(self) -> str:
        """What it says once it serves."""
        assert wait_until(lambda: "Serving on" in self.out.read_text() or self.process.poll() is not None, 30)
        assert self.process.poll() is None, self.err.read_text()
        return self.out.read_text()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(20)


@pytest.fixture
def running() -> Iterator[list[Quickstart]]:
    started: list[Quickstart] = []
    yield started
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()


def run_curl(printed: str) -> list[str]:
    """Do what the printed curl command does, word by word; the lines of the answer."""
    words = shlex.split(printed[printed.index("curl -N") :].split("\n\n", maxsplit=1)[0].replace("\\\n", " "))
    url = urlsplit(words[2])
    headers = dict(word.split(": ", 1) for flag, word in itertools.pairwise(words) if flag == "-H")
    body = words[words.index("-d") + 1]
    connection = http.client.HTTPConnection(url.netloc, timeout=20)
    connection.request("POST", url.path, body, headers)
    answered = connection.getresponse()
    lines = answered.read().decode().splitlines()
    connection.close()
    assert answered.status == 200, lines
    return lines


def words_of(lines: list[str]) -> str:
    chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


def test_the_printed_command_streams_a_sentence(tmp_path: Path, running: list[Quickstart]):
    """Nothing is there before; the built-in engine answers; the key is printed once."""
    first = Quickstart(tmp_path)
    running.append(first)

    printed = first.printed()
    lines = run_curl(printed)

    assert "No model server answers at http://127.0.0.1:1" in printed
    assert words_of(lines) == GREETING.answer
    assert lines[-2:] == ["data: [DONE]", ""]
    assert printed.count("nz_") == 2, "once to keep, once in the command"
    assert first.stop() == 0


def test_a_second_run_does_not_print_a_key(tmp_path: Path, running: list[Quickstart]):
    """It says how to make another one."""
    first = Quickstart(tmp_path)
    running.append(first)
    key = first.printed().split("shown this once:\n  ")[1].split("\n")[0]
    first.stop()

    second = Quickstart(tmp_path)
    running.append(second)
    printed = second.printed()
    lines = run_curl(printed.replace("nz_YOUR_KEY", key))

    assert "create-key --tenant first" in printed
    assert words_of(lines) == GREETING.answer
    assert key not in printed


def test_a_first_run_that_can_not_listen_prints_its_key(tmp_path: Path, running: list[Quickstart]):
    """The next one finds the tenant, and can't show it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        one = Quickstart(tmp_path, GATEWAY_BIND=f"127.0.0.1:{taken.getsockname()[1]}")
        running.append(one)
        assert one.process.wait(30) == 1

    assert "cannot listen" in one.err.read_text()
    assert re.search(r"Your first key, shown this once:\n  nz_\w+\n", one.out.read_text())


def test_an_ollama_that_answers_is_used(tmp_path: Path, running: list[Quickstart], double: Double):
    double.scripts["/api/chat"] = chat_stream(["Hello", " from", " Ollama"])
    one = Quickstart(tmp_path, OLLAMA_BACKENDS=double.url)
    running.append(one)

    printed = one.printed()

    assert f"The models come from {double.url}" in printed
    assert words_of(run_curl(printed)) == "Hello from Ollama"
    assert not (tmp_path / "data" / "models").exists(), "no engine was needed"


def test_a_gguf_file_is_served_by_its_name(
    tmp_path: Path, running: list[Quickstart], models_dir: Path, engine_greeting
):
    """`make run GGUF=path`: also where an Ollama would answer."""
    model = tmp_path / "my model.gguf"
    model.write_bytes((models_dir / scripts.GREETING.file_name).read_bytes())
    one = Quickstart(tmp_path, "--gguf", str(model))
    running.append(one)

    assert words_of(run_curl(one.printed())) == GREETING.answer


def test_a_file_that_is_no_model_is_told_in_a_sentence(tmp_path: Path, running: list[Quickstart]):
    (tmp_path / "not.gguf").write_text("no model")
    one = Quickstart(tmp_path, "--gguf", "not.gguf")
    running.append(one)

    assert one.process.wait(20) == 1
    assert "is not a GGUF model" in one.err.read_text()
    assert "Traceback" not in one.err.read_text()


def test_the_engine_ends_with_the_gateway(tmp_path: Path, running: list[Quickstart]):
    """Also when the gateway is killed: no orphan keeps the memory."""
    one = Quickstart(tmp_path)
    running.append(one)
    one.printed()
    children = Path(f"/proc/{one.process.pid}/task/{one.process.pid}/children").read_text().split()
    assert children

    one.process.kill()
    one.process.wait()

    assert wait_until(lambda: not any(is_alive(int(child)) for child in children), 5)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
