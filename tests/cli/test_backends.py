"""add-backend, remove-backend, list-backends: the line, the file, and how the backends are."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.config import load
from tests.doubles import TAGS, Double, answer

LINE = "gpu-1=http://gpu-1:11434;slots=2,http://gpu-2:11434"


@pytest.fixture
def run(unmigrated, empty: Path):
    """Commands beside a .env with two backends; no database is needed."""
    (empty / ".env").write_text(f"# ours\nOLLAMA_BACKENDS='{LINE}'\nGATEWAY_DRAIN_S=9\n")
    return unmigrated


def env() -> str:
    return Path(".env").read_text()


def test_the_new_line_is_printed_and_nothing_is_written(run):
    """To be pasted wherever it is kept."""
    before = env()

    shown = run("add-backend", "http://gpu-3:8000", "--name", "v", "--kind", "openai", "--weight", "3")

    assert shown.stdout == f"OLLAMA_BACKENDS={LINE},v=http://gpu-3:8000;kind=openai;weight=3\n"
    assert (shown.exit_code, env()) == (0, before)


def test_it_is_written_into_the_file(run):
    """In its place and quotes; a gateway reads it as it was meant."""
    shown = run("add-backend", "http://gpu-3:11434", "--slots", "4", "--write-env")

    assert env() == f"# ours\nOLLAMA_BACKENDS='{LINE},http://gpu-3:11434;slots=4'\nGATEWAY_DRAIN_S=9\n"
    assert shown.stdout.startswith(f"Added 'gpu-3:11434'. {Path('.env').resolve()} says now:\n")
    assert "SIGHUP" in shown.stdout
    new = load().backends[-1]
    assert (new.name, new.slots, new.kind) == ("gpu-3:11434", 4, "ollama")


def test_programs_get_line_and_backends(run):
    added = run.json("add-backend", "http://gpu-3:11434", "--write-env")

    assert added["line"] == f"OLLAMA_BACKENDS={LINE},http://gpu-3:11434"
    assert added["written"] is True
    assert [one["name"] for one in added["backends"]] == ["gpu-1", "gpu-2:11434", "gpu-3:11434"]
    assert added["backends"][0] == {
        "name": "gpu-1",
        "url": "http://gpu-1:11434",
        "kind": "ollama",
        "slots": 2,
        "weight": 1,
        "draining": False,
        "has_key": False,
    }


@pytest.mark.parametrize("which", ["gpu-1", "http://gpu-1:11434", "http://gpu-1:11434/"])
def test_a_backend_is_removed_by_name_or_url(run, which):
    assert run("remove-backend", which).stdout == "OLLAMA_BACKENDS=http://gpu-2:11434\n"

    shown = run("remove-backend", which, "--write-env")

    assert shown.stdout.startswith(f"Removed '{which}'.")
    assert env() == "# ours\nOLLAMA_BACKENDS='http://gpu-2:11434'\nGATEWAY_DRAIN_S=9\n"


def test_the_last_backend_stays(run):
    """No line is not none: it is the default."""
    run("remove-backend", "gpu-1", "--write-env")

    refused = run("remove-backend", "gpu-2:11434", "--write-env")

    assert refused.exit_code == 1
    assert "'gpu-2:11434' is the only backend" in refused.stderr


def test_without_a_line_the_default_stays_in_it(unmigrated, empty):
    shown = unmigrated("add-backend", "http://gpu-3:11434")

    assert shown.stdout == "OLLAMA_BACKENDS=http://127.0.0.1:11434,http://gpu-3:11434\n"
    assert "remove-backend 127.0.0.1:11434" in shown.stderr, "who did not expect it is told the way out"


def test_a_line_that_there_is_has_no_default(run):
    assert run("add-backend", "http://gpu-3:11434").stderr == ""


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["remove-backend", "gpu-3"], 1, "There is no backend 'gpu-3'; did you mean 'gpu-1'?"),
        (["remove-backend", "zebra"], 1, "OLLAMA_BACKENDS has gpu-1, gpu-2:11434."),
        (["add-backend", "http://gpu-2:11434", "--name", "x"], 1, "a backend at http://gpu-2:11434 already"),
        (["add-backend", "http://gpu-3", "--name", "gpu-1"], 2, "the name 'gpu-1' is used twice"),
        (["add-backend", "gpu-3:11434"], 2, "expected http://host:port"),
        (["add-backend", "http://a:1;slots=2"], 2, "has options here"),
        (["add-backend", "http://a:1", "--name", "a b"], 2, "a backend's name has 1 to 64 of the characters"),
        (["add-backend", "http://a:1", "--key-env", "NOT_SET"], 2, "key-env names NOT_SET, which is not set"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_told_and_nothing_written(run, arguments, code, sentence):
    before = env()

    refused = run(*arguments, "--write-env")

    assert refused.exit_code == code
    assert sentence in refused.stderr
    assert env() == before


def test_who_may_not_write_is_told_two_ways_on(run, monkeypatch):
    """No traceback: the line to paste, and where to run it."""
    before = env()
    monkeypatch.setattr(os, "access", lambda *_: False)

    refused = run("add-backend", "http://gpu-3:11434", "--write-env")

    assert (refused.exit_code, env()) == (1, before)
    assert "the file was not changed: this user may not write" in refused.stderr
    assert "docker compose exec -u root gateway neuronetz-gateway" in refused.stderr
    assert f"OLLAMA_BACKENDS={LINE},http://gpu-3:11434\n" in refused.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_container_user_is_told_two_ways_on(run, empty):
    """A real one, over a file of root's in a folder of root's."""
    # It may not read where Python is installed, so that is imported before.
    program = "import os; from gateway.cli.main import main; os.setgid(65534); os.setuid(65534); main()"
    empty.chmod(0o755)
    for folder in empty.parents[:3]:
        folder.chmod(folder.stat().st_mode | 0o055)
    # Nor may it write where coverage, which follows into child processes, would keep what it found.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}

    done = subprocess.run(
        [sys.executable, "-c", program, "add-backend", "http://gpu-3:11434", "--write-env"],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=60,
    )

    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "Two ways on" in done.stderr
    assert "docker compose exec -u root gateway neuronetz-gateway add-backend" in done.stderr


def test_an_environment_that_goes_over_the_file_is_told(run, monkeypatch):
    """Else the operator would wonder why nothing changes."""
    monkeypatch.setenv("OLLAMA_BACKENDS", "http://gpu-9:11434")

    shown = run("add-backend", "http://gpu-3:11434", "--write-env")

    assert "OLLAMA_BACKENDS='http://gpu-9:11434,http://gpu-3:11434'" in env()
    assert "the environment sets OLLAMA_BACKENDS too" in shown.stderr


# ── how they are ─────────────────────────────────────────────────────────────────────────


@pytest.fixture
def one_up(unmigrated, monkeypatch):
    """An Ollama with one model, loaded; and a backend that is not there."""
    with Double() as up, Double() as gone:
        loaded = {**TAGS["models"][0], "context_length": 4096}
        up.scripts["/api/ps"] = answer(200, {"models": [loaded]})
        monkeypatch.setenv("OLLAMA_BACKENDS", f"up={up.url};slots=2;weight=3,gone={gone.url};drain=yes")
        gone.__exit__()
        yield unmigrated
        gone.__enter__()


def test_backends_are_listed_as_they_are(one_up):
    """Asked now; one that does not answer is no failure of the command."""
    up, gone = one_up.json("list-backends")

    assert (up["state"], up["error"], up["slots"], up["weight"]) == ("up", None, 2, 3)
    assert up["latency_ms"] > 0
    assert up["models"] == [{"name": "double:latest", "context": 131_072, "loaded": True}]
    assert up["loaded"] == [{"name": "double:latest", "context": 4096}]
    assert (gone["state"], gone["latency_ms"], gone["models"], gone["draining"]) == ("down", None, [], True)
    assert gone["error"] == "The model backend could not be reached."


def test_people_get_a_table_and_the_reasons(one_up):
    shown = one_up("list-backends").stdout

    assert "double:latest (4,096)" in shown
    assert shown.endswith("\ngone: The model backend could not be reached.\n")


def test_a_backend_that_tells_no_models_is_down(unmigrated, monkeypatch):
    with Double({"/api/tags": answer(500, {"error": "x"})}) as broken:
        monkeypatch.setenv("OLLAMA_BACKENDS", broken.url)

        (found,) = json.loads(unmigrated("list-backends", "--json").stdout)

    assert (found["state"], found["error"]) == ("down", "A model backend does not tell which models it has.")


def test_a_model_that_leaves_the_box_is_not_asked_about(unmigrated, monkeypatch):
    """Ollama would ask the other machine."""
    with Double.with_model("big:cloud") as one:
        one.scripts["/api/ps"] = answer(200, {"models": []})
        monkeypatch.setenv("OLLAMA_BACKENDS", one.url)

        (found,) = unmigrated.json("list-backends")

    assert found["models"] == [{"name": "big:cloud", "context": None, "loaded": False}]
    assert "/api/show" not in {request.target for request in one.received}
