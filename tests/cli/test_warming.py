"""warm-model: loads a model before anybody asks for it."""

from collections.abc import Iterator

import pytest

from tests.doubles import SHOWN, TAGS, Double, answer, hang


@pytest.fixture
def ollama(monkeypatch) -> Iterator[Double]:
    with Double() as one:
        one.scripts["/api/chat"] = answer(
            200, {"model": "double:latest", "done": True, "done_reason": "load"}
        )
        one.scripts["/api/embed"] = answer(200, {"embeddings": []})
        monkeypatch.setenv("OLLAMA_BACKENDS", f"gpu-1={one.url}")
        yield one


def test_ollama_loads_it_without_being_asked_anything(run, ollama):
    """And says nothing: no prompt is run."""
    (done,) = run.json("warm-model", "DOUBLE", "--keep-alive", "1h")

    assert (done["backend"], done["loaded"], done["was_loaded"], done["error"]) == (
        "gpu-1",
        True,
        False,
        None,
    )
    assert done["took_s"] >= 0
    (asked,) = ollama.inference
    assert asked.target == "/api/chat"
    assert asked.json() == {"model": "double:latest", "messages": [], "stream": False, "keep_alive": 3600.0}


def test_of_a_profile_its_model_is_loaded_with_the_context_of_its_requests(run, ollama):
    """Another context would have it loaded again by the first request."""
    options = ("--option", "num_ctx=32768", "--option", "temperature=0", "--keep-alive", "24h")
    run("set-model", "--name", "double-32k", "--model", "double", *options)

    run.json("warm-model", "double-32k")

    sent = ollama.inference[-1].json()
    assert (sent["model"], sent["options"], sent["keep_alive"]) == (
        "double:latest",
        {"num_ctx": 32_768},
        86_400.0,
    )


def test_a_model_that_only_makes_vectors_is_loaded_by_its_own_route(run, ollama):
    ollama.scripts["/api/show"] = answer(200, {**SHOWN, "capabilities": ["embedding"]})

    run.json("warm-model", "double")

    assert [(one.target, one.json()["input"]) for one in ollama.inference] == [("/api/embed", [])]


def test_what_is_loaded_stays_so_for_as_long(run, ollama):
    """It is asked again: its time begins anew."""
    ollama.scripts["/api/ps"] = answer(200, {"models": [TAGS["models"][0]]})

    assert run.json("warm-model", "double")[0]["was_loaded"] is True
    assert len(ollama.inference) == 1
    assert "stays loaded" in run("warm-model", "double").stdout


def test_a_server_that_has_it_in_memory_is_left_alone(run, engine_greeting, monkeypatch):
    """llama.cpp and vLLM have what they serve."""
    monkeypatch.setenv("OLLAMA_BACKENDS", f"words={engine_greeting.url};kind=openai")

    (done,) = run.json("warm-model", "greeting")

    assert (done["loaded"], done["was_loaded"], done["took_s"]) == (True, True, None)


def test_a_server_that_would_have_to_load_it_is_asked_for_one_token(run, monkeypatch):
    """The router of llama.cpp loads a model for the first request."""
    listed = {"id": "m", "owned_by": "llamacpp", "status": {"value": "unloaded"}}
    with Double({"/v1/models": answer(200, {"data": [listed]})}) as one:
        one.scripts["/v1/chat/completions"] = answer(200, {"choices": []})
        monkeypatch.setenv("OLLAMA_BACKENDS", f"{one.url};kind=openai")

        run.json("warm-model", "m")

        assert one.inference[-1].json()["max_tokens"] == 1


def test_each_backend_that_has_it_is_asked_or_the_one_that_is_named(run, ollama, monkeypatch):
    with Double() as second, Double.with_model("other:1b") as third:
        second.scripts |= ollama.scripts
        third.scripts["/api/ps"] = answer(200, {"models": []})
        backends = f"gpu-1={ollama.url},gpu-2={second.url},gpu-3={third.url}"
        monkeypatch.setenv("OLLAMA_BACKENDS", backends)

        everywhere = run.json("warm-model", "double")
        there = run.json("warm-model", "double", "--backend", "gpu-2")

        assert [one["backend"] for one in everywhere] == ["gpu-1", "gpu-2"]
        assert [one["backend"] for one in there] == ["gpu-2"]
        assert (len(ollama.inference), len(second.inference), len(third.inference)) == (1, 2, 0)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["doubel"], "No backend that was asked has a model 'doubel'; did you mean 'double'?"),
        (["double", "--backend", "gpu-2"], "There is no backend 'gpu-2'; did you mean 'gpu-1'?"),
    ],
)
def test_what_is_not_there_is_told(run, ollama, arguments, sentence):
    refused = run("warm-model", *arguments)

    assert refused.exit_code == 1
    assert sentence in refused.stderr


def test_a_backend_that_fails_is_told_with_its_words(run, ollama):
    """Exit code 1, and the others are told all the same."""
    ollama.scripts["/api/chat"] = answer(500, {"error": "model requires more system memory"})

    failed = run("warm-model", "double", "--json")

    assert failed.exit_code == 1
    assert failed.stderr == "Error: gpu-1: It answered 500: model requires more system memory.\n"
    assert '"loaded": false' in failed.stdout


def test_what_a_backend_says_may_be_nothing(run, ollama):
    ollama.scripts["/api/chat"] = answer(502, b"<html>")

    assert run("warm-model", "double").stderr == "Error: gpu-1: It answered 502.\n"


def test_a_backend_that_takes_too_long_is_not_waited_for_for_ever(run, ollama, monkeypatch):
    monkeypatch.setenv("GATEWAY_FIRST_BYTE_TIMEOUT_S", "0.2")
    ollama.scripts["/api/chat"] = hang()

    failed = run("warm-model", "double")

    assert failed.exit_code == 1
    assert "did not answer in time" in failed.stderr
