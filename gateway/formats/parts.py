"""What is sent of one call: mostly the call itself; of some, parts of it, one after another.

One after another, so that a call never holds more of a backend than its one place.
"""

from typing import Final

from attrs import evolve

from gateway.formats.chat import Call, EmbedCall

# The JSON of so many vectors of 1,024 numbers is read in some 7 ms (measured): other callers wait no longer.
# And a client that leaves stops what is not yet sent, also where a server does not notice.
MAX_INPUTS_AT_ONCE: Final = 128


def parts_of(call: Call) -> tuple[Call, ...]:
    """In the order of the answers; none where there is nothing to do."""
    if isinstance(call, EmbedCall):
        return tuple(
            evolve(call, inputs=call.inputs[start : start + MAX_INPUTS_AT_ONCE])
            for start in range(0, len(call.inputs), MAX_INPUTS_AT_ONCE)
        )
    return (call,)
