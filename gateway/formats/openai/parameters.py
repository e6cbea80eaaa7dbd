"""Sampling, structured output and thinking: OpenAI's fields, and those of its servers ↔ the house's words."""

import re
from typing import Any, Final

from gateway.formats.chat import Format, Sampling
from gateway.formats.fields import Fields
from gateway.formats.thinking import read_think
from gateway.model import JsonObject

MAX_STOPS: Final = 4
MAX_TOP_LOGPROBS: Final = 20
# More than OpenAI takes.
MAX_BIASES: Final = 1024
_MOST_BIAS: Final = 100
# One spelling each: no token is told twice.
_TOKEN: Final = re.compile(r"0|[1-9][0-9]{0,8}")
_INT64: Final = 2**63

# ── sampling ─────────────────────────────────────────────────────────────────────────────

SAMPLING_FIELDS: Final = frozenset(
    {
        "max_completion_tokens",
        "max_tokens",
        "temperature",
        "top_p",
        "seed",
        "stop",
        "presence_penalty",
        "frequency_penalty",
        "logit_bias",
        # Beyond OpenAI, by the names of llama.cpp, vLLM and Ollama.
        "top_k",
        "min_p",
        "typical_p",
        "repeat_penalty",
        "repetition_penalty",
        "repeat_last_n",
        "num_keep",
        "num_ctx",
    }
)
# What few callers set, and so is looked for only where there is any of it.
_RARE: Final = SAMPLING_FIELDS - {"max_completion_tokens", "max_tokens", "temperature", "top_p", "stop"}

_BY_DEFAULT: Final = Sampling()


def read_sampling(body: Fields) -> Sampling:
    """Ranges as OpenAI has them. What is absent stays None, so the model's own default counts.

    Ollama's /v1 sets temperature and top_p to OpenAI's default of 1.0 where they are absent; here the
    values that the operator gave the model are kept.
    """
    if not body.has_any(SAMPLING_FIELDS):
        return _BY_DEFAULT
    limit = body.integer("max_completion_tokens", lowest=1)
    elder_limit = body.integer("max_tokens", lowest=1)
    return Sampling(
        max_tokens=elder_limit if limit is None else limit,
        temperature=body.number("temperature", 0, 2),
        top_p=body.number("top_p", 0, 1),
        stop=_read_stop(body),
        **(_read_rare(body) if body.has_any(_RARE) else {}),
    )


def _read_rare(body: Fields) -> dict[str, Any]:
    """What few callers set of their sampling, by the names of its attributes."""
    penalty = body.number("repeat_penalty", 0, 10)
    same_penalty = body.number("repetition_penalty", 0, 10)
    return {
        "top_k": body.integer("top_k", lowest=-1),
        "min_p": body.number("min_p", 0, 1),
        "typical_p": body.number("typical_p", 0, 1),
        "seed": body.integer("seed", -_INT64, _INT64 - 1),
        "presence_penalty": body.number("presence_penalty", -2, 2),
        "frequency_penalty": body.number("frequency_penalty", -2, 2),
        "repeat_penalty": same_penalty if penalty is None else penalty,
        "repeat_last_n": body.integer("repeat_last_n", lowest=-1),
        "num_keep": body.integer("num_keep", lowest=-1),
        "num_ctx": body.integer("num_ctx", lowest=1),
        "logit_bias": _read_logit_bias(body),
    }


# By their names here and there: one has a name at each of both.
_WRITTEN: Final = (
    ("temperature", "temperature"),
    ("top_p", "top_p"),
    ("seed", "seed"),
    ("presence_penalty", "presence_penalty"),
    ("frequency_penalty", "frequency_penalty"),
    ("top_k", "top_k"),
    ("min_p", "min_p"),
    ("typical_p", "typical_p"),
    ("repeat_penalty", "repeat_penalty"),
    ("repeat_penalty", "repetition_penalty"),
    ("repeat_last_n", "repeat_last_n"),
    ("num_keep", "n_keep"),
)


def write_sampling(sampling: Sampling) -> JsonObject:
    """What both vLLM and llama.cpp know, and what one of them knows: the other ignores it.

    `num_ctx` is left out: the context of these servers is set when they start. A bound of 0 tokens
    means one, as with Ollama; a negative one none.
    """
    values = vars(sampling)
    written = {word: values[name] for name, word in _WRITTEN if values[name] is not None}
    limit = sampling.max_tokens
    if limit is not None and limit >= 0:
        written["max_tokens"] = max(1, limit)
    if sampling.stop:
        written["stop"] = list(sampling.stop)
    if sampling.logit_bias:
        written["logit_bias"] = {str(token): bias for token, bias in sampling.logit_bias}
    return written


def _read_stop(body: Fields) -> tuple[str, ...]:
    stop = (body.text("stop"),) if isinstance(body.raw("stop"), str) else body.strings("stop", MAX_STOPS)
    # An empty one would end every answer before it began; vLLM refuses it, llama.cpp ignores it.
    return tuple(text for text in stop if text)


def _read_logit_bias(body: Fields) -> tuple[tuple[int, float], ...]:
    biases = body.object("logit_bias")
    if biases is None:
        return ()
    tokens = list(biases.names())
    if len(tokens) > MAX_BIASES or not all(map(_TOKEN.fullmatch, tokens)):
        raise body.refuse(
            "logit_bias", f"an object of {MAX_BIASES} tokens at most, by number, with their biases"
        )
    read = ((int(token), biases.number(token, -_MOST_BIAS, _MOST_BIAS)) for token in tokens)
    return tuple((token, bias) for token, bias in read if bias is not None)


def read_top_logprobs(body: Fields) -> int | None:
    """How many alternatives to each token; None where no log probabilities are asked for."""
    top_logprobs = body.integer("top_logprobs", 0, MAX_TOP_LOGPROBS)
    if body.boolean("logprobs"):
        return top_logprobs or 0
    if top_logprobs:
        raise body.refuse("top_logprobs", "left out unless 'logprobs' is true")
    return None


# ── structured output ────────────────────────────────────────────────────────────────────


def read_format(body: Fields) -> Format | None:
    return format_of(body.object("response_format"))


def format_of(response_format: Fields | None) -> Format | None:
    """Also where `schema` stands beside `type`, as llama.cpp and /v1/responses have it."""
    if response_format is None:
        return None
    kind = response_format.required_choice("type", "text", "json_object", "json_schema")
    if kind == "text":
        return None
    if kind == "json_object":
        return Format(schema=_read_schema(response_format))
    described = response_format.object("json_schema") or response_format
    schema = _read_schema(described)
    if schema is None:
        raise described.refuse("schema", "given: a JSON Schema")
    return Format(
        schema=schema,
        name=described.text("name"),
        strict=described.boolean("strict"),
        description=described.text("description"),
    )


def write_format(format: Format | None) -> JsonObject:
    if format is None:
        return {}
    if format.schema is None:
        return {"response_format": {"type": "json_object"}}
    described: JsonObject = {"name": format.name or "schema", "schema": format.schema}
    if format.strict is not None:
        described["strict"] = format.strict
    if format.description:
        described["description"] = format.description
    return {"response_format": {"type": "json_schema", "json_schema": described}}


def _read_schema(parent: Fields) -> JsonObject | None:
    schema: Any = parent.raw("schema")
    if schema is None or isinstance(schema, dict):
        return schema
    raise parent.refuse("schema", "a JSON Schema: an object")


# ── thinking ─────────────────────────────────────────────────────────────────────────────

THINK_FIELDS: Final = frozenset({"think", "reasoning", "reasoning_effort", "chat_template_kwargs"})
_EFFORTS: Final[dict[str, bool | str]] = {
    "none": False,
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "max": "max",
    "xhigh": "max",
    "ultra": "max",
}


def read_thinking(body: Fields) -> bool | str | None:
    """`think` as Ollama has it, else the effort of `reasoning` or `reasoning_effort`, else vLLM's switch."""
    if not body.has_any(THINK_FIELDS):
        return None
    if body.has("think"):
        return read_think(body)
    reasoning = body.object("reasoning")
    for name, fields in (("effort", reasoning), ("reasoning_effort", body)):
        effort = fields.choice(name, *_EFFORTS) if fields else None
        if effort is not None:
            return _EFFORTS[effort]
    switches = body.object("chat_template_kwargs")
    return switches.boolean("enable_thinking") if switches else None


def is_wish(body: Fields) -> bool:
    """Whether a model that can't think may just answer: clients send an effort to any, but not `think`."""
    return not body.has("think") and any(map(body.has, THINK_FIELDS))


def write_think(think: bool | str | None) -> JsonObject:
    """An effort, and the switch that templates of Qwen's kind read; llama.cpp and vLLM know both."""
    if think is None:
        return {}
    written: JsonObject = {"chat_template_kwargs": {"enable_thinking": think is not False}}
    if think is not True:
        written["reasoning_effort"] = think or "none"
    return written
