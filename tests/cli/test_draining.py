"""drain-backend: takes a backend out of service, and back."""

import pytest


@pytest.fixture
def drain(run, monkeypatch):
    monkeypatch.setenv("OLLAMA_BACKENDS", "gpu-1=http://127.0.0.1:1,gpu-2=http://127.0.0.1:2")
    return run


def test_a_backend_is_drained_and_taken_back(drain):
    """By name or URL; lists show it, and again is nothing to do."""
    assert drain.json("drain-backend", "http://127.0.0.1:2") == {
        "name": "gpu-2",
        "draining": True,
        "changed": True,
    }
    assert [one["draining"] for one in drain.json("list-backends")] == [False, True]
    assert drain.json("drain-backend", "gpu-2")["changed"] is False
    assert drain.json("drain-backend", "gpu-2", "--undo")["changed"] is True
    assert [one["draining"] for one in drain.json("list-backends")] == [False, False]


def test_people_are_told_what_happens_and_how_to_undo_it(drain):
    assert "neuronetz-gateway drain-backend gpu-1 --undo" in drain("drain-backend", "gpu-1").stdout
    assert drain("drain-backend", "gpu-1").stdout.startswith(
        "Nothing to do: 'gpu-1' is being drained already."
    )
    assert drain("drain-backend", "gpu-1", "--undo").stdout.startswith("'gpu-1' is back in service")
    assert "in service already" in drain("drain-backend", "gpu-1", "--undo").stdout


def test_a_backend_that_left_the_line_can_be_taken_back(drain, monkeypatch):
    """Else it would be drained unseen when it comes again."""
    drain("drain-backend", "gpu-2")
    monkeypatch.setenv("OLLAMA_BACKENDS", "gpu-1=http://127.0.0.1:1")

    assert drain.json("drain-backend", "gpu-2", "--undo")["changed"] is True


def test_a_backend_that_is_not_there_is_told(drain):
    refused = drain("drain-backend", "gpu-3")

    assert refused.exit_code == 1
    assert "There is no backend 'gpu-3'; did you mean 'gpu-" in refused.stderr
