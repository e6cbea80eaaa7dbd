"""POST /api/embed and its elder /api/embeddings, both ways: from Ollama's clients, and to Ollama."""

from collections.abc import Iterable
from typing import Final

from attrs import evolve

from gateway.errors import BackendFailed, UnsupportedField
from gateway.formats.chat import AnswerStamp, EmbedCall, Event, Finish, UpstreamRequest
from gateway.formats.durations import read_keep_alive
from gateway.formats.fields import Fields
from gateway.formats.joined import Embedded, embedded
from gateway.formats.ndjson import ascii_json
from gateway.formats.ollama.options import read_options
from gateway.formats.ollama.reading import count_in, frame_of
from gateway.formats.ollama.writing import measured
from gateway.formats.vectors import as_json, of_numbers, unit
from gateway.model import JsonObject, Timings, Usage

EMBED_PATH: Final = "/api/embed"

# As many as OpenAI takes.
MAX_INPUTS: Final = 2048

_COMMON: Final = frozenset({"model", "keep_alive", "options", "truncate"})
_EMBED: Final = _COMMON | {"input", "dimensions"}
_EMBEDDINGS: Final = _COMMON | {"prompt"}


# ── from Ollama's clients ────────────────────────────────────────────────────────────────


def read_embed(body: JsonObject) -> EmbedCall:
    """Read the body of POST /api/embed. Raise InvalidRequest naming the field that is wrong.

    No input is a command to load the model: a call without any. As with Ollama, an input that is too long
    is cut unless `truncate` is false, and `dimensions` of 0 or less are all.
    """
    fields = Fields(body)
    fields.refuse_look_alikes(_EMBED)
    dimensions = fields.integer("dimensions")
    call = _read_common(fields, _read_input(fields))
    return evolve(call, dimensions=dimensions if dimensions and dimensions > 0 else None)


def read_embeddings(body: JsonObject) -> EmbedCall:
    """Read the body of POST /api/embeddings: one text at most, its `prompt`."""
    fields = Fields(body)
    fields.refuse_look_alikes(_EMBEDDINGS)
    prompt = fields.text("prompt")
    return _read_common(fields, (prompt,) if prompt else ())


def _read_common(fields: Fields, inputs: tuple[str, ...]) -> EmbedCall:
    sampling, dropped = read_options(fields)
    return EmbedCall(
        model=fields.required_string("model"),
        inputs=inputs,
        truncate=fields.boolean("truncate") is not False,
        sampling=sampling,
        keep_alive=read_keep_alive(fields),
        dropped=dropped,
    )


def _read_input(fields: Fields) -> tuple[str, ...]:
    if isinstance(fields.raw("input"), list):
        return fields.strings("input", MAX_INPUTS)
    if fields.has("input") and not isinstance(fields.raw("input"), str):
        raise fields.refuse("input", "a string or an array of strings")
    text = fields.text("input")
    return (text,) if text else ()


# ── to Ollama ────────────────────────────────────────────────────────────────────────────


def write_embed(call: EmbedCall, model: str) -> UpstreamRequest:
    """The call for a backend that knows the model as `model`. Raise UnsupportedField for tokens."""
    if not all(isinstance(text, str) for text in call.inputs):
        raise UnsupportedField(
            "'input' must be text for this model: its server takes no tokens.", param="input"
        )
    num_ctx = call.sampling.num_ctx
    fields = {
        "dimensions": call.dimensions,
        "options": None if num_ctx is None else {"num_ctx": num_ctx},
        "keep_alive": call.keep_alive,
    }
    # What is too long is not cut unless that can be told: see `CUT`.
    body = {"model": model, "input": list(call.inputs), "truncate": False}
    return UpstreamRequest(
        EMBED_PATH, body | {name: value for name, value in fields.items() if value is not None}
    )


def read_embed_answer(body: bytes) -> list[Event]:
    """The answer of /api/embed. Raise BackendFailed for one that can't be read."""
    frame = frame_of(body)
    vectors = frame.get("embeddings")
    if not isinstance(vectors, list):
        raise BackendFailed("The model's server sent no vectors.")
    # No input is empty: old servers do not count.
    count = count_in(frame, "prompt_eval_count")
    timings = Timings(total_ns=count_in(frame, "total_duration"), load_ns=count_in(frame, "load_duration"))
    usage = Usage(count, 0) if count else None
    return [Finish("stop", usage, timings, vectors=tuple(map(of_numbers, vectors)))]


# ── to Ollama's clients ──────────────────────────────────────────────────────────────────


def write_embed_answer(events: Iterable[Event], stamp: AnswerStamp, call: EmbedCall) -> bytes:
    """The answer of /api/embed: every vector has length one. Raise BackendFailed where one is missing."""
    answer = embedded(events, call)
    written = b",".join([as_json(unit(vector)) for vector in answer.vectors])
    rest = _counts(answer, stamp) if answer.vectors else {}
    head = ascii_json({"model": stamp.model})[:-1]
    return head + b',"embeddings":[' + written + b"]" + (b"," + ascii_json(rest)[1:] if rest else b"}")


def write_embeddings_answer(events: Iterable[Event], _stamp: AnswerStamp, call: EmbedCall) -> bytes:
    """The answer of /api/embeddings: the one vector, and nothing besides."""
    vectors = embedded(events, call).vectors
    return b'{"embedding":' + (as_json(vectors[0]) if vectors else b"[]") + b"}"


def _counts(answer: Embedded, stamp: AnswerStamp) -> JsonObject:
    now = stamp.now()
    timings = measured(answer.timings, stamp.created, now, now)
    return {
        "total_duration": timings.total_ns,
        "load_duration": timings.load_ns,
        "prompt_eval_count": answer.usage.prompt_tokens,
    }
