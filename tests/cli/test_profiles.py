"""set-model, list-models, remove-model."""

import pytest

from tests.doubles import TAGS, Double, answer


@pytest.fixture
def backend(monkeypatch):
    """An Ollama with the model `double:latest`."""
    with Double() as one:
        monkeypatch.setenv("OLLAMA_BACKENDS", one.url)
        yield one


SET = ("set-model", "--name", "Double-32k", "--model", "double", "--option", "num_ctx=32768")


def test_a_profile_is_made_listed_and_removed(run, backend):
    """With all that it can have; programs see it in one shape everywhere."""
    limits = ("--max-num-ctx", "40_000", "--max-output-tokens", "2000", "--keep-alive", "24h")
    timeouts = ("--first-byte-timeout", "10m", "--chunk-gap-timeout", "30", "--answer-timeout", "1h30m")
    options = ("--option", "stop=END", "--option", "stop=2", "--default", "temperature=0.5")

    made = run.json(*SET, *options, *limits, *timeouts)

    assert made == {
        "name": "Double-32k",
        "model": "double:latest",
        "created_at": made["created_at"],
        "options": {"num_ctx": 32_768, "stop": ["END", "2"]},
        "defaults": {"temperature": 0.5},
        "max_num_ctx": 40_000,
        "max_output_tokens": 2_000,
        "keep_alive_s": 86_400.0,
        "timeouts": {"first_byte_s": 600.0, "chunk_gap_s": 30.0, "answer_s": 5_400.0},
        "replaced": False,
    }
    assert run.json("list-models") == [{name: made[name] for name in made if name != "replaced"}]
    assert run.json("remove-model", "--name", "DOUBLE-32k:latest")["name"] == "Double-32k"
    assert run.json("list-models") == []


def test_a_profile_is_replaced_whole(run, backend):
    """What is not given is not kept: a profile is what its last command says."""
    run(*SET, "--keep-alive", "24h")

    again = run.json("set-model", "--name", "double-32k", "--model", "double")

    assert (again["replaced"], again["options"], again["keep_alive_s"]) == (True, {}, None)


def test_people_get_a_table(run, backend):
    made = run(*SET, "--keep-alive", "1h", "--default", "top_p=0.5")

    assert made.stdout.startswith("Made 'Double-32k'. Running gateways know it within one second.\n\n")
    assert made.stdout.splitlines()[-1].split() == [
        "Double-32k",
        "double:latest",
        "num_ctx=32768",
        "top_p=0.5",
        "keep-alive=3600s",
    ]
    assert made.stdout.endswith(run("list-models").stdout)
    assert run("remove-model", "--name", "double-32k").stdout.startswith("Removed 'Double-32k'.")
    assert "There are no profiles" in run("list-models").stdout


def test_a_profile_may_have_the_name_of_its_own_model(run, backend):
    """Options for everybody who uses it."""
    assert run("set-model", "--name", "double", "--model", "double", "--default", "seed=1").exit_code == 0
    assert run(*SET).exit_code == 0, "and then others may still stand for that model"


def test_a_profile_hides_no_other_model_and_stands_for_none(run, backend):
    backend.scripts["/api/tags"] = answer(200, {"models": [TAGS["models"][0], {"name": "other:7b"}]})
    run(*SET)

    hides = run("set-model", "--name", "other:7b", "--model", "double")
    chained = run("set-model", "--name", "third", "--model", "double-32k")

    assert (hides.exit_code, chained.exit_code) == (1, 1)
    assert "A backend has a model 'other:7b', which the profile would hide" in hides.stderr
    assert "'Double-32k' is a profile itself" in chained.stderr
    assert "give its model, 'double:latest'" in chained.stderr


def test_a_model_that_no_backend_has_is_warned_of(run, backend):
    """It may come later; a slip of the finger is told by the nearest name."""
    done = run("set-model", "--name", "x", "--model", "doubel")

    assert done.exit_code == 0
    assert "no backend has 'doubel:latest' now; did you mean 'double:latest'?" in done.stderr


def test_backends_that_do_not_answer_are_told_of(run, monkeypatch):
    monkeypatch.setenv("OLLAMA_BACKENDS", "gone=http://127.0.0.1:1")

    assert "(gone did not answer)" in run("set-model", "--name", "x", "--model", "m").stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--name", "a b", "--model", "m"], "'a b' is no name of a model."),
        (["--name", "a:cloud", "--model", "m"], "a name that ends in cloud leaves the box"),
        (["--name", "a", "--model", "m", "--option", "num_gpu=1"], "'num_gpu' is no option of a request"),
        (["--name", "a", "--model", "m", "--option", "num_ctx"], "expected NAME=VALUE"),
        (
            ["--name", "a", "--model", "m", "--option", "top_p=x"],
            "--option: 'options.top_p' must be a number",
        ),
        (["--name", "a", "--model", "m", "--option", "seed=1", "--option", "seed=2"], "seed is given twice"),
        (["--name", "a", "--model", "m", "--keep-alive", "0"], "expected seconds above 0"),
        (["--name", "a", "--model", "m", "--keep-alive", "soon"], "expected seconds above 0"),
    ],
    ids=str,
)
def test_wrong_usage_is_told(unmigrated, arguments, sentence):
    """Before anything is opened."""
    refused = unmigrated("set-model", *arguments)

    assert refused.exit_code == 2
    assert sentence in refused.stderr


def test_a_profile_that_is_not_there_is_told(run, backend):
    run(*SET)

    refused = run("remove-model", "--name", "double-33k")

    assert refused.exit_code == 1
    assert refused.stderr == "Error: There is no profile 'double-33k'; did you mean 'Double-32k'?\n"
