"""The command doctor: a line and a remedy each for people, a stable list for programs, and exit codes."""

from tests.cli.conftest import Commands
from tests.doubles import Double


def test_what_fails_is_told_with_what_to_do(unmigrated: Commands, monkeypatch):
    monkeypatch.setenv("OLLAMA_BACKENDS", "http://127.0.0.1:1")

    done = unmigrated("doctor")

    assert done.exit_code == 1
    assert "FAILED   database" in done.stdout
    assert "→ Start it, or take it out of OLLAMA_BACKENDS." in done.stdout


def test_a_healthy_gateway_exits_with_0(run: Commands, monkeypatch):
    """What is only to be looked at does not count."""
    monkeypatch.setattr("gateway.doctor.backends.own_addresses", list)
    with Double() as backend:
        monkeypatch.setenv("OLLAMA_BACKENDS", backend.url)
        findings = run.json("doctor")
        told = run("doctor")

    assert told.exit_code == 0
    assert "0 failed" in told.stdout
    assert {"check", "health", "sentence", "remedy"} == set(findings[0])
    assert {one["health"] for one in findings} <= {"ok", "warning", "skipped"}
