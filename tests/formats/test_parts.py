"""gateway.formats.parts: what is sent of one call."""

import pytest
from attrs import evolve

from gateway.formats.chat import ChatCall, CompletionCall, EmbedCall, GenerateCall, Sampling
from gateway.formats.parts import MAX_INPUTS_AT_ONCE, parts_of


def test_a_call_is_sent_as_it_is():
    for call in (ChatCall("m", (), stream=True), GenerateCall("m", "x", stream=False)):
        assert parts_of(call) == (call,)


def test_several_answers_are_several_chats():
    """Alike but for the seed, where there is one."""
    call = ChatCall("m", (), stream=True, n=2)
    seeded = evolve(call, sampling=Sampling(seed=7))

    assert parts_of(call) == (evolve(call, n=1),) * 2
    assert parts_of(seeded) == tuple(evolve(call, n=1, sampling=Sampling(seed=seed)) for seed in (7, 8))


def test_many_inputs_are_sent_in_parts():
    """In their order, none twice and none left out; a call without any sends nothing."""
    inputs = tuple(f"text {number}" for number in range(2 * MAX_INPUTS_AT_ONCE + 1))
    call = EmbedCall("m", inputs, dimensions=8, truncate=True)

    parts = parts_of(call)

    assert [len(part.inputs) for part in parts if isinstance(part, EmbedCall)] == [128, 128, 1]
    assert sum((part.inputs for part in parts if isinstance(part, EmbedCall)), ()) == inputs
    assert all(evolve(part, inputs=inputs) == call for part in parts if isinstance(part, EmbedCall))
    assert parts_of(evolve(call, inputs=())) == ()


COMPLETION = CompletionCall("m", ("Once",), stream=True)
GENERATE = GenerateCall("m", "Once", stream=True, raw=None, think=False)


def test_each_prompt_is_answered_as_often_as_asked():
    """Prompts in their order, the answers to one behind each other; further ones have further seeds."""
    call = evolve(COMPLETION, prompts=("Once", (1, 2)), n=2, sampling=Sampling(seed=7, temperature=1))

    parts = parts_of(call)

    assert [
        (part.prompt, part.tokens, part.sampling.seed) for part in parts if isinstance(part, GenerateCall)
    ] == [
        ("Once", (), 7),
        ("Once", (), 8),
        ("", (1, 2), 7),
        ("", (1, 2), 8),
    ]


def test_a_seed_stays_a_number_that_servers_take():
    """The last of 64 bits is followed by the first."""
    call = evolve(COMPLETION, n=2, sampling=Sampling(seed=2**63 - 1))

    assert [part.sampling.seed for part in parts_of(call)] == [2**63 - 1, -(2**63)]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param({}, {}, id="no thinking, for which there is no place"),
        pytest.param({"think": "low"}, {"think": "low"}, id="thinking that was asked for"),
        pytest.param({"raw": True}, {"raw": True, "think": None}, id="raw: no template that could think"),
        pytest.param({"raw": False}, {"raw": False}, id="templated"),
        pytest.param({"suffix": "end."}, {"suffix": "end."}, id="a suffix"),
        pytest.param(
            {"top_logprobs": 2, "keep_alive": 5.0}, {"top_logprobs": 2, "keep_alive": 5.0}, id="more"
        ),
    ],
)
def test_a_completion_is_sent_as_what_generates(fields, expected):
    assert parts_of(evolve(COMPLETION, **fields)) == (evolve(GENERATE, **expected),)
