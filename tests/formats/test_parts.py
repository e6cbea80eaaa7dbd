"""gateway.formats.parts: what is sent of one call."""

from attrs import evolve

from gateway.formats.chat import ChatCall, EmbedCall, GenerateCall
from gateway.formats.parts import MAX_INPUTS_AT_ONCE, parts_of


def test_a_call_is_sent_as_it_is():
    for call in (ChatCall("m", (), stream=True), GenerateCall("m", "x", stream=False)):
        assert parts_of(call) == (call,)


def test_many_inputs_are_sent_in_parts():
    """In their order, none twice and none left out; a call without any sends nothing."""
    inputs = tuple(f"text {number}" for number in range(2 * MAX_INPUTS_AT_ONCE + 1))
    call = EmbedCall("m", inputs, dimensions=8, truncate=True)

    parts = parts_of(call)

    assert [len(part.inputs) for part in parts if isinstance(part, EmbedCall)] == [128, 128, 1]
    assert sum((part.inputs for part in parts if isinstance(part, EmbedCall)), ()) == inputs
    assert all(evolve(part, inputs=inputs) == call for part in parts if isinstance(part, EmbedCall))
    assert parts_of(evolve(call, inputs=())) == ()
