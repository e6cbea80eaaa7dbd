"""gateway.formats.profiles: what a public name makes of a call, and of its model's card."""

import pytest
from attrs import evolve

from gateway.formats.chat import ChatCall, EmbedCall, Sampling
from gateway.formats.profiles import Profile, options_of, sampling_of, shown_as, with_profile
from gateway.model import ModelCard

PROFILE = Profile(
    "qwen3-32k",
    "qwen3:8b",
    0.0,
    fixed=Sampling(num_ctx=32_768, temperature=0.0, stop=("END",)),
    presets=Sampling(top_p=0.5, max_tokens=100),
)


def call(sampling: Sampling | None = None) -> ChatCall:
    return ChatCall("Qwen3-32k", (), False, sampling=sampling or Sampling())


def test_what_is_said_nowhere_else_is_what_the_profile_says():
    """And the model stays the name that the caller wrote: it is what the answer names."""
    granted = with_profile(call(), PROFILE, None)

    assert granted.sampling == Sampling(
        num_ctx=32_768, temperature=0.0, stop=("END",), top_p=0.5, max_tokens=100
    )
    assert (granted.model, granted.dropped) == ("Qwen3-32k", ())


def test_what_is_fixed_goes_over_the_caller_who_goes_over_what_is_preset():
    """What was not granted as asked is named; what is the same anyway is not."""
    asked = Sampling(num_ctx=8, temperature=0.0, stop=("x",), top_p=0.9, seed=1)

    granted = with_profile(call(asked), PROFILE, None)

    assert granted.sampling == evolve(asked, num_ctx=32_768, temperature=0.0, stop=("END",), max_tokens=100)
    assert granted.dropped == ("stop", "num_ctx")


def test_a_callers_cap_holds_over_the_profile():
    """A tenant that may have 4096 tokens of context gets no more by another name."""
    assert with_profile(call(), PROFILE, 4_096).sampling.num_ctx == 4_096
    assert with_profile(call(), evolve(PROFILE, fixed=Sampling()), 4_096).sampling.num_ctx is None


def test_options_are_named_as_ollama_does():
    """The header speaks of options in the words of their documentation."""
    fixed = evolve(PROFILE, fixed=Sampling(max_tokens=5))

    assert with_profile(call(Sampling(max_tokens=50)), fixed, None).dropped == ("num_predict",)


def test_embeddings_have_profiles_too():
    granted = with_profile(EmbedCall("qwen3-32k", ("a",)), PROFILE, None)

    assert granted.sampling.num_ctx == 32_768


@pytest.mark.parametrize(
    ("context", "profile", "shown"),
    [
        pytest.param(131_072, PROFILE, 32_768, id="what it is loaded with"),
        pytest.param(8_192, PROFILE, 8_192, id="what the model has"),
        pytest.param(None, PROFILE, 32_768, id="nobody knows more"),
        pytest.param(8_192, evolve(PROFILE, fixed=Sampling()), 8_192, id="none is said"),
        pytest.param(8_192, evolve(PROFILE, fixed=Sampling(), max_num_ctx=9), 9, id="a bound"),
    ],
)
def test_a_card_is_shown_under_the_public_name_with_its_context(context, profile, shown):
    card = shown_as(ModelCard("qwen3:8b", context=context, digest="d", parameters="stop x"), profile)

    assert (card.name, card.context, card.digest) == ("qwen3-32k", shown, "d")
    assert card.parameters.startswith("stop x\n")


def test_options_are_kept_and_read_again():
    assert sampling_of(options_of(PROFILE.fixed)) == PROFILE.fixed


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"num_gpu": 1}, "'num_gpu' is no option of a request"),
        ({"tempreature": 1}, "'tempreature' is no option of a request"),
        ({"temperature": "hot"}, "'options.temperature' must be a number"),
        ({"num_ctx": 0}, "'options.num_ctx' must be"),
    ],
    ids=str,
)
def test_what_is_no_option_is_told(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        sampling_of(options)
