"""gateway.rules.model_names: many spellings, one model; and names that are never served."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.rules.model_names import canonical, leaves_the_machine, namespace, shown, with_tag

ALIASES_OF_TINY = [
    "tiny",
    "TINY",
    " tiny ",
    "tiny\n",
    "tiny:latest",
    "tiny:LATEST",
    "library/tiny",
    "LIBRARY/tiny",
    "registry.ollama.ai/library/tiny",
    "Registry.Ollama.AI/library/tiny:latest",
    "tiny:local",
    "tiny:latest:local",
]

OTHER_NAMES = [
    pytest.param("tiny:7b", "tiny:7b", id="a tag"),
    pytest.param("Tiny:7B:LOCAL", "tiny:7b", id="a tag and the source local"),
    pytest.param("alice/tiny", "alice/tiny:latest", id="a namespace"),
    pytest.param("registry.ollama.ai/alice/tiny", "alice/tiny:latest", id="the default registry"),
    pytest.param("hf.co/bart/L-3.2:Q4_K_M", "hf.co/bart/l-3.2:q4_k_m", id="another registry"),
    pytest.param("host:5000/ns/m:t", "host:5000/ns/m:t", id="a registry with a port"),
    pytest.param("Qwen/Qwen2.5-7B-Instruct", "qwen/qwen2.5-7b-instruct:latest", id="a name of vLLM"),
    pytest.param("accounts/f/models/x", "accounts/f/models/x:latest", id="four segments"),
    pytest.param("/models/X.gguf", "x.gguf:latest", id="a file of llama.cpp"),
    pytest.param("models/x.gguf", "models/x.gguf:latest", id="a relative file"),
    pytest.param("m-cloud", "m-cloud:latest", id="a model, not a tag, that ends in -cloud"),
    pytest.param("m:cloudy", "m:cloudy", id="a tag that only begins with cloud"),
    pytest.param("M:Cloud ", "m:cloud", id="cloud in other letters"),
    pytest.param("gpt-oss:120b-cloud", "gpt-oss:120b-cloud", id="a tag that ends in -cloud"),
    pytest.param("gpt-oss:120b:cloud", "gpt-oss:120b-cloud", id="a tag and the source cloud"),
    pytest.param("m:latest:cloud", "m:cloud", id="the usual tag and the source cloud"),
    pytest.param("_m", "_m:latest", id="a leading underscore"),
]

NOT_SERVED = [
    pytest.param("", id="empty"),
    pytest.param("  ", id="white space"),
    pytest.param("http://registry.ollama.ai/library/tiny", id="a scheme"),
    pytest.param("m: cloud", id="cloud after a space"),
    pytest.param("m:7b-cloud:cloud", id="cloud twice"),
    pytest.param("m:cloud:local", id="two sources"),
    pytest.param("m:local:cloud", id="two sources, other order"),
    pytest.param("m:local:local", id="local twice"),
    pytest.param("m:7b-cloud:local", id="a cloud tag called local"),
    pytest.param("m:", id="no tag after the colon"),
    pytest.param(":latest", id="no model before the colon"),
    pytest.param("a:b:c", id="two tags"),
    pytest.param("a//b", id="an empty segment"),
    pytest.param("a/", id="no last segment"),
    pytest.param("/", id="a slash"),
    pytest.param("../m", id="dot segments"),
    pytest.param("./m", id="a dot segment"),
    pytest.param("-m", id="a leading dash"),
    pytest.param("a\\b", id="a backslash"),
    pytest.param("a b", id="a space"),
    pytest.param("a\nb", id="a line feed"),
    pytest.param("a\x00", id="a null byte"),
    pytest.param("tïny", id="a letter beyond ASCII"),
    pytest.param("\u212a", id="the Kelvin sign, which folds onto k"),
    pytest.param("modeſ", id="the long s, which folds onto s"),
    pytest.param("m@sha256-00", id="a digest"),
    pytest.param("registry.ollama.ai/m", id="a registry without a namespace"),
    pytest.param("registry.ollama.ai/registry.ollama.ai/m", id="a registry as a namespace"),
    pytest.param("a" * 81, id="a segment of 81 characters"),
    pytest.param("m:" + "a" * 81, id="a tag of 81 characters"),
    pytest.param("h" * 351 + "/n/m", id="a registry of 351 characters"),
    pytest.param("a/b/c/d/e/f/g/h/i", id="nine segments"),
    pytest.param("C:\\models\\x.gguf", id="a file of Windows"),
]


@pytest.mark.parametrize("name", ALIASES_OF_TINY, ids=repr)
def test_aliases_are_one_model(name):
    """Ollama serves the same model under all of these, so they must share lists, limits and prices."""
    assert canonical(name) == "tiny:latest"


@pytest.mark.parametrize(("name", "expected"), OTHER_NAMES)
def test_a_name_is_lower_case_and_has_its_tag(name, expected):
    """The canonical form keeps what tells models apart and drops what does not."""
    assert canonical(name) == expected


@pytest.mark.parametrize("name", NOT_SERVED)
def test_some_names_are_never_served(name):
    """What could be read differently elsewhere has no canonical form."""
    assert canonical(name) is None


@given(st.text(alphabet="aB1_.-:/ ", max_size=20) | st.text(max_size=20))
def test_a_canonical_name_is_its_own(name):
    """Canonical names are compared with canonical names: doing it twice changes nothing."""
    once = canonical(name)

    assert once is None or canonical(once) == once


@pytest.mark.parametrize(
    ("name", "leaves"),
    [
        ("m:cloud", True),
        ("gpt-oss:120b-cloud", True),
        ("m:latest", False),
        ("m-cloud:latest", False),
        ("m:cloudy", False),
    ],
)
def test_a_name_says_whether_it_leaves_the_machine(name, leaves):
    """As Ollama reads it: by the tag alone."""
    assert leaves_the_machine(name) is leaves


def test_a_file_is_shown_without_its_directories():
    """Where the operator keeps models is nobody's business."""
    assert shown("/srv/models/X.gguf") == "X.gguf"


def test_another_name_is_shown_as_the_backend_writes_it():
    """Clients find the model that they know."""
    assert shown("Qwen/Qwen2.5-7B-Instruct") == "Qwen/Qwen2.5-7B-Instruct"


@pytest.mark.parametrize(
    ("name", "expected"),
    [("tiny", "tiny:latest"), ("tiny:7b", "tiny:7b"), ("h:1/n/m", "h:1/n/m:latest")],
)
def test_a_list_shows_names_with_their_tag(name, expected):
    """A port is no tag."""
    assert with_tag(name) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("tiny", "library"),
        ("alice/tiny:7b", "alice"),
        ("hf.co/bart/m", "bart"),
        ("/models/x.gguf", "library"),
    ],
)
def test_a_model_belongs_to_its_namespace(name, expected):
    """OpenAI's lists say who owns a model."""
    assert namespace(name) == expected
