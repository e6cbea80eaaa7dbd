"""gateway.rules.access: which models are there for a caller."""

import re

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from gateway.model import ModelPolicy
from gateway.rules.access import MAX_PATTERNS, least, matches, may_use, patterns_of
from tests.asgi import PRINCIPAL

TOO_MANY = ",".join(f"m{number}" for number in range(MAX_PATTERNS + 1))
NAMES = ("llama3:latest", "llama3:8b", "llama3.1:8b", "qwen3:8b", "alice/tiny:latest", "hf.co/b/m:q4")


@pytest.mark.parametrize(
    ("pattern", "meant"),
    [
        pytest.param("llama3:latest", NAMES[:1], id="a name"),
        pytest.param("llama3*", NAMES[:3], id="a beginning"),
        pytest.param("llama3:*", NAMES[:2], id="all tags"),
        pytest.param("*:8b", NAMES[1:4], id="an end"),
        pytest.param("*", NAMES, id="all"),
        pytest.param("*l*m*8*", NAMES[1:3], id="pieces in order"),
        pytest.param("hf.co/*", NAMES[5:], id="a registry"),
        pytest.param("llama3:latest*latest", (), id="no letter counts twice"),
        pytest.param("llama3", (), id="no beginning without a star"),
    ],
)
def test_a_star_stands_for_any_characters(pattern, meant):
    assert tuple(name for name in NAMES if matches(name, pattern)) == meant


@given(st.text("ab:", max_size=12), st.text("ab*", max_size=8))
def test_matching_is_what_regular_expressions_say(name, pattern):
    """Without their cost: no pattern makes it slow."""
    expected = re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), name) is not None

    assert matches(name, pattern) is expected


@pytest.mark.parametrize(
    ("text", "patterns"),
    [
        ("llama3", ("llama3:latest",)),
        ("LLAMA3*, qwen3:8b,", ("llama3*", "qwen3:8b")),
        ("library/llama3*,registry.ollama.ai/library/tiny", ("llama3*", "tiny:latest")),
        ("a,a:latest,A", ("a:latest",)),
        ("***", ("*",)),
        ("m:cloud", ("m:cloud",)),
    ],
)
def test_a_list_is_kept_in_canonical_form(text, patterns):
    """Models have many spellings; names are compared in one."""
    assert patterns_of(text) == patterns


@pytest.mark.parametrize(
    "text",
    ["", " , ", "a b", "tïny", "http://x/y", "a*b c", "*\na", "é*", "*" + "a" * 256, TOO_MANY],
    ids=repr,
)
def test_what_can_mean_no_model_is_refused(text):
    """Better than a list that silently allows nothing."""
    with pytest.raises(ValueError, match=r"model|names|pattern"):
        patterns_of(text)


@pytest.mark.parametrize(
    ("tenant", "key", "is_allowed"),
    [
        pytest.param(None, None, True, id="nothing is said"),
        pytest.param(("qwen3*",), None, True, id="by the tenant"),
        pytest.param(None, ("qwen3:8b",), True, id="by the key"),
        pytest.param(("qwen3*",), ("*",), True, id="by both"),
        pytest.param(("llama3*",), ("*",), False, id="not by the tenant"),
        pytest.param(("*",), ("llama3*",), False, id="not by the key"),
    ],
)
def test_what_a_tenant_allows_and_what_its_key_allows_both_apply(tenant, key, is_allowed):
    """Whoever may make keys of a tenant gives none of them more than the tenant has."""
    caller = evolve(PRINCIPAL, tenant_models=ModelPolicy(tenant), key_models=ModelPolicy(key))

    assert may_use(caller, "qwen3:8b", leaves=False) is is_allowed


@pytest.mark.parametrize(
    ("allow_cloud", "pattern", "is_allowed"),
    [
        (False, "*", False),
        (True, "*", True),
        (True, "other*", False),
        (True, "big:cloud", True),
    ],
)
def test_a_model_that_leaves_the_box_needs_its_tenants_consent(allow_cloud, pattern, is_allowed):
    """Whatever the patterns say; and consent alone is no pattern."""
    caller = evolve(PRINCIPAL, allow_cloud=allow_cloud, key_models=ModelPolicy((pattern,)))

    assert may_use(caller, "big:cloud", leaves=True) is is_allowed


def test_of_several_bounds_the_least_holds():
    assert (least(None, 5, 3), least(None, None)) == (3, None)
