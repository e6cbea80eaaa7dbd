"""allow-models, and what other commands tell of it."""

import pytest

from tests.cli.conftest import NO_MODEL_BOUNDS

THREE = ("--models", "LLAMA3*,qwen3:8b", "--max-num-ctx", "4096", "--max-output-tokens", "1_000")
KEPT = {"models": ["llama3*", "qwen3:8b"], "max_num_ctx": 4096, "max_output_tokens": 1_000}


def own(shown: dict[str, object]) -> dict[str, object]:
    return {field: shown[field] for field in NO_MODEL_BOUNDS}


def test_tenants_and_keys_are_made_with_their_models(run):
    """In canonical form; programs see them in the lists too."""
    tenant = run.json("create-tenant", "--name", "other", *THREE, "--allow-cloud")
    key = run.json("create-key", "--tenant", "other", "--name", "a", *THREE)

    assert (own(tenant), tenant["allow_cloud"]) == (KEPT, True)
    assert own(key) == own(run.json("list-keys", "--tenant", "other")[0]) == KEPT
    assert run.json("list-tenants")[1] == tenant


def test_only_what_is_given_changes(run, prefix):
    """`none` removes; before and after are told."""
    run("allow-models", "--prefix", prefix, *THREE)

    changed = run.json("allow-models", "--prefix", prefix, "--max-num-ctx", "none")

    assert own(changed) == KEPT | {"max_num_ctx": None}
    assert (changed["tenant"], changed["prefix"]) == ("acme", prefix)
    assert changed["changed"] == {"max_num_ctx": {"before": 4096, "after": None}}
    assert own(run.json("show-key", "--prefix", prefix)) == own(changed)


def test_a_tenant_is_opted_in_and_out_of_the_cloud(run):
    assert run.json("allow-models", "--tenant", "acme", "--allow-cloud")["allow_cloud"] is True
    assert run.json("allow-models", "--tenant", "acme", "--models", "a")["allow_cloud"] is True
    assert run.json("allow-models", "--tenant", "acme", "--no-cloud")["changed"] == {
        "allow_cloud": {"before": True, "after": False}
    }


def test_people_are_told_what_changed_and_what_applies(run, prefix):
    """A key's own list and its tenant's are both told: a model must be on both."""
    run(
        "allow-models",
        "--tenant",
        "acme",
        "--models",
        "llama3*",
        "--max-output-tokens",
        "50",
        "--allow-cloud",
    )

    told = run("allow-models", "--prefix", prefix, "--models", "*:8b", "--max-output-tokens", "100").stdout

    assert "models: *:8b, was all\n" in told
    assert "tokens of output in a request: 100, was none\n" in told
    assert told.endswith(
        "Models   *:8b; of these only what the tenant's allow: llama3*\n"
        "At most  50 tokens of output in a request\n"
        "Cloud    allowed\n"
    )
    assert "Models     llama3*\n" in run("show-tenant", "--name", "acme").stdout


def test_a_key_without_a_list_has_its_tenants(run, prefix):
    assert "Models     all\n" in run("show-key", "--prefix", prefix).stdout

    run("allow-models", "--tenant", "acme", "--models", "llama3*")

    assert "Models     llama3* (the tenant's)\n" in run("show-key", "--prefix", prefix).stdout


def test_what_is_as_it_was_is_told_so(run):
    run("allow-models", "--tenant", "acme", *THREE)

    again = run("allow-models", "--tenant", "acme", *THREE)

    assert again.exit_code == 0
    assert again.stdout.startswith("Nothing to do: the tenant 'acme' has these values already.\n")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--models", "a"], "Whose? Give either --tenant or --prefix."),
        (["--tenant", "acme"], "Nothing to change: give --models"),
        (["--tenant", "acme", "--models", "a b"], "'a b' is no name of a model."),
        (["--tenant", "acme", "--models", "a b*"], "'a b*' is no pattern"),
        (["--tenant", "acme", "--models", ""], "expected 1 to 64 names or patterns"),
        (["--tenant", "acme", "--max-num-ctx", "0"], "expected at least 1, or `none`"),
        (["--tenant", "acme", "--max-num-ctx", "many"], "expected a whole number"),
        (["--prefix", "nz_00000000", "--allow-cloud"], "Whether prompts may leave is said of a tenant"),
    ],
)
def test_wrong_usage_is_told(run, arguments, sentence):
    refused = run("allow-models", *arguments)

    assert refused.exit_code == 2
    assert sentence in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--tenant", "acmee", "--models", "a"], "There is no tenant 'acmee'; did you mean 'acme'?"),
        (["--prefix", "nz_00000000", "--models", "a"], "There is no key with the prefix 'nz_00000000'"),
    ],
)
def test_who_is_not_there_is_told(run, arguments, sentence):
    refused = run("allow-models", *arguments)

    assert refused.exit_code == 1
    assert sentence in refused.stderr
