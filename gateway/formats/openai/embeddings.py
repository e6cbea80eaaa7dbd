"""POST /v1/embeddings, both ways: from OpenAI's clients, and to OpenAI-compatible backends."""

from collections.abc import Iterable
from typing import Any, Final

import orjson

from gateway.errors import BackendFailed, InvalidRequest
from gateway.formats.chat import AnswerStamp, EmbedCall, Event, Finish, Sampling, UpstreamRequest
from gateway.formats.durations import read_keep_alive
from gateway.formats.fields import Fields
from gateway.formats.joined import embedded
from gateway.formats.openai.other_fields import HARMLESS, dropped, refuse_unsupported
from gateway.formats.openai.reading import count_of
from gateway.formats.openai.texts import read_texts
from gateway.formats.vectors import Vector, as_base64, as_json, of_base64, of_numbers
from gateway.model import JsonObject, Usage

EMBEDDINGS_PATH: Final = "/v1/embeddings"

# OpenAI's own bound.
MAX_INPUTS: Final = 2048

READ: Final = frozenset(
    {"model", "input", "encoding_format", "dimensions"} | {"truncate", "keep_alive", "num_ctx"}
)
# They would change the vectors. Beside each, the values that ask for nothing.
UNSUPPORTED: Final[dict[str, tuple[Any, ...]]] = {
    "add_special_tokens": (True,),
    "input_type": (),
    "messages": (),
    "normalize": (True,),
    "options": ({},),
    "prompt": (),
    "truncate_prompt_tokens": (),
}
KNOWN: Final = READ | HARMLESS | frozenset(UNSUPPORTED)

# vLLM's word for cutting an input that is too long; llama.cpp refuses it all the same.
CUT: Final[JsonObject] = {"truncate_prompt_tokens": -1}

# ── from callers ─────────────────────────────────────────────────────────────────────────


def read_embeddings(body: JsonObject) -> EmbedCall:
    """A call from the body of POST /v1/embeddings. Raise InvalidRequest naming the field that is wrong.

    Beyond OpenAI's fields num_ctx, keep_alive and truncate are read: without the latter, an input that is
    too long is refused, as OpenAI does.
    """
    fields = Fields(body)
    fields.refuse_look_alikes(KNOWN)
    refuse_unsupported(fields, UNSUPPORTED)
    return EmbedCall(
        model=fields.required_string("model"),
        inputs=_read_inputs(fields),
        dimensions=fields.integer("dimensions", lowest=1),
        truncate=fields.boolean("truncate") or False,
        base64=_read_base64(fields),
        sampling=Sampling(num_ctx=fields.integer("num_ctx", lowest=1)),
        keep_alive=read_keep_alive(fields),
        dropped=dropped(fields, KNOWN),
    )


def _read_base64(fields: Fields) -> bool:
    encoding = fields.text("encoding_format").lower() or "float"
    if encoding not in ("float", "base64"):
        raise fields.refuse("encoding_format", "float or base64")
    return encoding == "base64"


def _read_inputs(fields: Fields) -> tuple[str | tuple[int, ...], ...]:
    inputs = read_texts(fields, "input")
    if len(inputs) > MAX_INPUTS:
        raise fields.refuse("input", f"an array of at most {MAX_INPUTS} inputs")
    return inputs


# ── to backends ──────────────────────────────────────────────────────────────────────────


def write_embeddings(call: EmbedCall, model: str) -> UpstreamRequest:
    """The same call for an OpenAI-compatible backend, which knows the model as `model`.

    Always base64, a quarter of the bytes and a tenth of the work of numbers as text (measured); what does
    not know it sends numbers. `dimensions` is left out: llama.cpp ignores it without a word, and vLLM
    takes it for some models only, while cutting is the same everywhere.
    """
    return UpstreamRequest(
        EMBEDDINGS_PATH, {"model": model, "input": list(call.inputs), "encoding_format": "base64"}
    )


def read_embeddings_answer(body: bytes) -> list[Event]:
    """The answer of /v1/embeddings, in the order of its `index`. Raise BackendFailed for what is none."""
    try:
        answer = orjson.loads(body)
        items = sorted(enumerate(answer["data"]), key=lambda item: item[1].get("index", item[0]))
        vectors = tuple(_vector_of(item["embedding"]) for _, item in items)
        count = count_of((answer.get("usage") or {}).get("prompt_tokens"))
    except (orjson.JSONDecodeError, TypeError, KeyError, AttributeError):
        raise BackendFailed("The model's server sent no vectors.") from None
    # No input is empty: a count of 0 is none.
    return [Finish("stop", Usage(count, 0) if count else None, vectors=vectors)]


def _vector_of(value: Any) -> Vector:
    return of_base64(value) if isinstance(value, str) else of_numbers(value)


# ── to callers ───────────────────────────────────────────────────────────────────────────


def write_embeddings_answer(events: Iterable[Event], stamp: AnswerStamp, call: EmbedCall) -> bytes:
    """The whole list of embeddings. Raise InvalidRequest where the model has fewer dimensions than asked."""
    answer = embedded(events, call)
    size = len(answer.vectors[0])
    if call.dimensions is not None and size < call.dimensions:
        raise InvalidRequest(f"'dimensions' must be at most {size} for this model.", param="dimensions")
    written = [_written(vector, call) for vector in answer.vectors]
    data = b",".join(
        [
            b'{"object":"embedding","index":%d,"embedding":%b}' % (index, vector)
            for index, vector in enumerate(written)
        ]
    )
    tokens = answer.usage.prompt_tokens
    rest = {"model": stamp.model, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}
    return b'{"object":"list","data":[' + data + b"]," + orjson.dumps(rest)[1:]


def _written(vector: Vector, call: EmbedCall) -> bytes:
    return b'"' + as_base64(vector) + b'"' if call.base64 else as_json(vector)
