"""The engine's process: how it starts, fails and ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.demo import child, engine, scripts
from gateway.demo.engine import Engine, EngineFailed, Serving
from tests.engines import ask_json, connect, wait_until

PARENT = """
import sys, time
from pathlib import Path
from gateway.demo import engine, scripts
running = engine.scripted(scripts.GREETING, Path(sys.argv[1]), Path(sys.argv[2])).start()
print(running.pid, flush=True)
time.sleep(60)
"""


def alive(pid: int) -> bool:
    """Whether the process runs; one that ended and waits for its parent to notice does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text() if sys.platform == "linux" else ""
        os.kill(pid, 0)
    except (ProcessLookupError, FileNotFoundError):
        return False
    return not status or status.rpartition(")")[2].split()[0] != "Z"


def refusal(serving: Engine) -> EngineFailed:
    with pytest.raises(EngineFailed) as caught:
        serving.start()
    assert serving.pid is None
    return caught.value


def test_it_is_healthy_when_start_returns_and_gone_after_stop(models_dir: Path, tmp_path: Path):
    """Nothing has to be polled, and nothing stays behind."""
    with engine.scripted(scripts.GREETING, models_dir, tmp_path / "logs" / "engine.log") as running:
        health = ask_json(running, "/health")
        pid = running.pid

    assert health == {"status": "ok"}
    assert pid is not None
    assert not alive(pid)
    with pytest.raises(RuntimeError, match="not running"):
        _ = running.url


def test_two_engines_find_two_ports(engine_greeting: Engine, engine_embed: Engine):
    """The system chooses the port when the engine binds it, so there is no gap for a collision."""
    assert engine_greeting.url != engine_embed.url


def test_a_user_s_file_is_named_after_itself(engine_greeting: Engine, tmp_path: Path):
    """`make run GGUF=path/to/tiny-1b.q4.gguf` serves the model `tiny-1b.q4`."""
    path = tmp_path / "tiny-1b.q4.gguf"
    path.symlink_to(engine_greeting.serving.model)

    with engine.of_file(path, tmp_path / "log") as running:
        (model,) = ask_json(running, "/v1/models")["data"]

    assert model["id"] == "tiny-1b.q4"


def test_it_dies_with_its_parent(models_dir: Path, tmp_path: Path):
    """kill -9 gives the parent no chance to clean up."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, models_dir, tmp_path / "log"],
        stdout=subprocess.PIPE,
        env=child.environment(),
    )
    with parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        was_alive = alive(pid)
        parent.kill()

    assert was_alive
    assert wait_until(lambda: not alive(pid), within_s=2.0)


def test_it_ends_when_the_parent_closes_its_input(models_dir: Path, tmp_path: Path):
    """The way out where the system has no signal for a parent's death."""
    with engine.scripted(scripts.GREETING, models_dir, tmp_path / "log") as running:
        process = running._process
        assert process is not None
        assert process.stdin is not None

        process.stdin.close()

        assert process.wait(2.0) == 0


def test_a_stopped_engine_is_killed(models_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A process that cannot react to SIGTERM does not hold up the end."""
    monkeypatch.setattr(engine, "_STOP_S", 0.1)
    with engine.scripted(scripts.GREETING, models_dir, tmp_path / "log") as running:
        pid = running.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)

    assert not alive(pid)


def test_a_file_that_is_no_gguf_is_refused_in_one_sentence(tmp_path: Path):
    """Told before anything is started."""
    path = tmp_path / "notes.gguf"
    path.write_text("not a model")

    failure = refusal(engine.of_file(path, tmp_path / "log"))

    assert str(failure) == f"{path} is not a GGUF model: the file does not begin with the letters GGUF."


def test_a_missing_file_is_refused_in_one_sentence(tmp_path: Path):
    """The reason is the system's own."""
    path = tmp_path / "none.gguf"

    failure = refusal(engine.of_file(path, tmp_path / "log"))

    assert str(failure) == f"The model file {path} cannot be read: No such file or directory."


def test_a_damaged_gguf_is_refused_with_the_engine_s_reason(engine_greeting: Engine, tmp_path: Path):
    """What llama.cpp said is in the last lines of its log."""
    path, log = tmp_path / "half.gguf", tmp_path / "engine.log"
    whole = Path(engine_greeting.serving.model).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])

    failure = refusal(engine.of_file(path, log))

    assert failure.reason == (
        f"The llama.cpp engine could not serve {path} and ended with exit code 1; its log is {log}."
    )
    assert "model is corrupted or incomplete" in failure.log


@pytest.mark.parametrize("library", ["xllamacpp", "gguf"])
def test_a_missing_library_is_named_with_its_cure(
    library: str, models_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The demo is an optional extra; nothing else of the gateway needs it."""
    monkeypatch.setitem(sys.modules, library, None)

    with pytest.raises(EngineFailed) as caught:
        engine.scripted(scripts.GREETING, tmp_path / "models", tmp_path / "log").start()

    assert str(caught.value) == (
        f"The built-in engine needs {library}: pip install 'neuronetz-gateway[demo]'"
    )


def test_an_engine_that_is_too_slow_is_given_up(models_dir: Path, tmp_path: Path, engine_greeting: Engine):
    """The deadline covers the whole start."""
    serving = Engine(engine_greeting.serving, tmp_path / "log", start_timeout_s=0.001)

    assert "was not ready within 0 s" in refusal(serving).reason


def test_the_engine_does_not_see_the_gateway_s_secrets(monkeypatch: pytest.MonkeyPatch):
    """Its environment is an allow-list."""
    monkeypatch.setenv("GATEWAY_SECRET", "s")
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:p@h/d")

    assert not {"GATEWAY_SECRET", "DATABASE_URL"} & child.environment().keys()


def test_other_sites_cannot_read_its_answers(engine_greeting: Engine):
    """llama.cpp's default lets every web page that the user opens talk to it."""
    connection = connect(engine_greeting)
    connection.request("GET", "/health", headers={"Origin": "https://elsewhere.example"})

    allowed = connection.getresponse().getheader("Access-Control-Allow-Origin")

    connection.close()
    assert allowed == "http://127.0.0.1"


def test_a_serving_has_sensible_defaults():
    """A user's file gets four slots, one bounded context and all cores."""
    assert Serving(model="m.gguf", alias="m") == Serving(
        model="m.gguf", alias="m", slots=4, context=8192, embeddings=False, threads=None
    )
