"""Sampling, structured output and thinking: Anthropic's fields, in the house's words."""

from typing import Any, Final

from attrs import frozen

from gateway.formats.chat import Format, Sampling
from gateway.formats.fields import Fields
from gateway.formats.thinking import read_think
from gateway.model import JsonObject

MAX_STOPS: Final = 64

SAMPLING_FIELDS: Final = frozenset(
    # The last is beyond Anthropic, as on /v1/chat/completions.
    {"max_tokens", "stop_sequences", "temperature", "top_p", "top_k", "num_ctx"}
)


def read_sampling(body: Fields) -> Sampling:
    """What is absent stays None, so that the model's own default counts."""
    stop = body.strings("stop_sequences", MAX_STOPS)
    if "" in stop:
        # It would end every answer before it began; vLLM refuses it, llama.cpp ignores it.
        raise body.refuse("stop_sequences", "an array of strings that are not empty")
    return Sampling(
        max_tokens=body.integer("max_tokens", lowest=1),
        # Anthropic's ends at 1; the models here know more.
        temperature=body.number("temperature", 0, 2),
        top_p=body.number("top_p", 0, 1),
        top_k=body.integer("top_k", lowest=0),
        stop=stop,
        num_ctx=body.integer("num_ctx", lowest=1),
    )


# ── structured output ────────────────────────────────────────────────────────────────────

# `output_format` is where betas had what is now `output_config.format`.
OUTPUT_FIELDS: Final = frozenset({"output_config", "output_format"})
_OUTPUT_CONFIG_FIELDS: Final = frozenset({"effort", "format"})
_FORMAT_FIELDS: Final = frozenset({"type", "schema"})


def read_format(body: Fields) -> Format | None:
    """A JSON Schema that the answer has to obey."""
    config = body.object("output_config")
    form, elder = config.object("format") if config else None, body.object("output_format")
    if form and elder:
        raise body.refuse("output_format", "left out where 'output_config.format' is given")
    form = form or elder
    if form is None:
        return None
    form.refuse_unknown(_FORMAT_FIELDS)
    form.required_choice("type", "json_schema")
    return Format(schema=read_schema(form, "schema"))


def read_schema(parent: Fields, name: str) -> JsonObject:
    schema: Any = parent.raw(name)
    if not isinstance(schema, dict):
        raise parent.refuse(name, "given: a JSON Schema, which is an object")
    return schema


# ── thinking ─────────────────────────────────────────────────────────────────────────────

# The last is beyond Anthropic, as on /v1/chat/completions.
THINK_FIELDS: Final = frozenset({"thinking", "think"})
_THINKING_FIELDS: Final = frozenset({"type", "budget_tokens", "display"})
_EFFORTS: Final = {"low": "low", "medium": "medium", "high": "high", "xhigh": "max", "max": "max"}


@frozen
class Thinking:
    """What the fields of these names in `ChatCall` are to be."""

    think: bool | str | None
    think_if_able: bool
    omit_thinking: bool
    dropped: tuple[str, ...] = ()


def read_thinking(body: Fields) -> Thinking:
    """`think` as Ollama has it; else what `thinking` and `output_config.effort` come to.

    Anthropic's clients ask every model to think, so one that can't is not asked. `budget_tokens` is dropped:
    how much it thinks is the model's own affair, and no backend counts along.
    """
    config = body.object("thinking") or Fields({"type": "adaptive"})
    config.refuse_unknown(_THINKING_FIELDS)
    mode = config.required_choice("type", "enabled", "disabled", "adaptive")
    hidden = config.choice("display", "summarized", "omitted") == "omitted"
    dropped = ("budget_tokens",) if config.integer("budget_tokens", lowest=1) else ()
    effort = _read_effort(body)
    if mode == "disabled" or body.has("think"):
        think = read_think(body) if body.has("think") else False
        return Thinking(think, False, hidden, (*dropped, "effort") if effort else dropped)
    think = effort or (True if mode == "enabled" else None)
    return Thinking(think, think is not None, hidden, dropped)


def _read_effort(body: Fields) -> str | None:
    config = body.object("output_config")
    if config is None:
        return None
    config.refuse_unknown(_OUTPUT_CONFIG_FIELDS)
    effort = config.choice("effort", *_EFFORTS)
    return _EFFORTS[effort] if effort else None
