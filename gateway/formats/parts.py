"""What is sent of one call: mostly the call itself; of some, parts of it, one after another.

One after another, so that a call never holds more of a backend than its one place. Several answers are
several parts: of those that one request asks for llama.cpp counts one, and Ollama gives no more.
"""

from typing import Final

from attrs import evolve

from gateway.formats.chat import Call, ChatCall, CompletionCall, EmbedCall, GenerateCall, Part, Sampling

# The JSON of so many vectors of 1,024 numbers is read in some 7 ms (measured): other callers wait no longer.
# And a client that leaves stops what is not yet sent, also where a server does not notice.
MAX_INPUTS_AT_ONCE: Final = 128

_INT64: Final = 2**63


def parts_of(call: Call) -> tuple[Part, ...]:
    """In the order of the answers; none where there is nothing to do."""
    match call:
        case EmbedCall():
            return tuple(
                evolve(call, inputs=call.inputs[start : start + MAX_INPUTS_AT_ONCE])
                for start in range(0, len(call.inputs), MAX_INPUTS_AT_ONCE)
            )
        case ChatCall(n=n) if n > 1:
            return tuple(evolve(call, n=1, sampling=_seeded(call.sampling, number)) for number in range(n))
        case CompletionCall():
            return tuple(
                _completion(call, prompt, number) for prompt in call.prompts for number in range(call.n)
            )
        case _:
            return (call,)


def _completion(call: CompletionCall, prompt: str | tuple[int, ...], number: int) -> GenerateCall:
    """One answer to one prompt. It has no place for thinking, so that is off unless it was asked for."""
    return GenerateCall(
        model=call.model,
        prompt=prompt if isinstance(prompt, str) else "",
        tokens=() if isinstance(prompt, str) else prompt,
        stream=call.stream,
        raw=call.raw,
        suffix=call.suffix,
        sampling=_seeded(call.sampling, number),
        format=call.format,
        think=False if call.think is None and not call.raw else call.think,
        top_logprobs=call.top_logprobs,
        keep_alive=call.keep_alive,
        truncate=call.truncate,
    )


def _seeded(sampling: Sampling, number: int) -> Sampling:
    """Each further answer has the next seed, or all would be the same."""
    if sampling.seed is None:
        return sampling
    return evolve(sampling, seed=(sampling.seed + number + _INT64) % (2 * _INT64) - _INT64)
