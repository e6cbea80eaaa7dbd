"""gateway.formats.ollama.options: the firewall of options."""

import pytest

from gateway.formats.chat import Sampling
from gateway.formats.fields import Fields
from gateway.formats.ollama.options import read_options, write_options

LOAD_TIME = [
    "num_gpu",
    "num_thread",
    "num_batch",
    "main_gpu",
    "use_mmap",
    "use_mlock",
    "numa",
    "low_vram",
    "f16_kv",
    "vocab_only",
    "logits_all",
    "embedding_only",
    "draft_num_predict",
]
SAMPLING = {
    "temperature": 0.5,
    "top_p": 0.9,
    "min_p": 0.1,
    "typical_p": 1,
    "presence_penalty": 0.1,
    "frequency_penalty": 0.2,
    "repeat_penalty": 1.1,
    "top_k": 40,
    "seed": -1,
    "repeat_last_n": 64,
    "num_keep": 4,
    "num_ctx": 4096,
    "num_predict": 10,
    "stop": ["a", "b"],
}


def read(options):
    return read_options(Fields({"options": options}))


@pytest.mark.parametrize("name", LOAD_TIME)
def test_a_load_time_option_is_dropped_and_named(name):
    """Another value makes Ollama reload the model for everybody; its type does not matter then."""
    assert read({name: "anything"}) == (Sampling(), (name,))


def test_sampling_options_pass_in_both_directions():
    """All that only this caller's answer depends on."""
    sampling, dropped = read(SAMPLING)

    assert dropped == ()
    assert write_options(sampling) == SAMPLING


def test_unknown_options_are_dropped_and_named():
    """Also the ones that former versions knew."""
    assert read({"mirostat": 1, "temperature": 1, "grammar": "x"}) == (
        Sampling(temperature=1),
        ("mirostat", "grammar"),
    )


def test_names_that_could_break_a_header_are_not_told():
    """They are dropped all the same; and nobody reads a thousand of them."""
    names = [f"option{number}" for number in range(100)]

    assert read({"a\r\nset-cookie: x": 1, "ü": 1, "n" * 41: 1, "": 1}) == (Sampling(), ())
    assert read(dict.fromkeys(names, 1)) == (Sampling(), tuple(names[:32]))


@pytest.mark.parametrize(
    ("num_predict", "max_tokens"),
    [(10, 10), (10.0, 10), (0, 0), (-1, None), (-2, None), (None, None), (1e9, 1_000_000_000)],
)
def test_a_negative_num_predict_is_no_bound(num_predict, max_tokens):
    """-1 means without end, -2 until the context is full: how far is for the budget to say."""
    assert read({"num_predict": num_predict}) == (Sampling(max_tokens=max_tokens), ())


def test_null_counts_as_absent():
    """As in Ollama: it is neither read nor named."""
    assert read(dict.fromkeys([*SAMPLING, "num_gpu"])) == (Sampling(), ())


@pytest.mark.parametrize("body", [{}, {"options": None}, {"options": {}}])
def test_no_options_are_no_options(body):
    """Most requests have none."""
    assert read_options(Fields(body)) == (Sampling(), ())
    assert write_options(Sampling()) == {}
