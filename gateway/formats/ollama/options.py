"""Ollama's `options`, and the firewall around them.

Sampling options pass. All others are dropped and named: a different value of a load-time option makes
Ollama reload the model, which throws out the warm cache and makes every other caller wait.
"""

import re
from typing import Any, Final

from gateway.formats.chat import Sampling
from gateway.formats.fields import Fields
from gateway.model import JsonObject

MAX_STOPS: Final = 64
# Dropped names travel in a header: tame ones only, and not more than anybody reads.
_MAX_NAMED: Final = 32
_TAME_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,40}")

_FLOATS: Final = (
    "temperature",
    "top_p",
    "min_p",
    "typical_p",
    "presence_penalty",
    "frequency_penalty",
    "repeat_penalty",
)
_INTEGERS: Final = ("top_k", "seed", "repeat_last_n", "num_keep")
_WHOLE: Final = frozenset({*_INTEGERS, "num_predict", "num_ctx"})
# By their names here and there.
_WRITTEN: Final = {name: name for name in (*_FLOATS, *_INTEGERS, "num_ctx")} | {"max_tokens": "num_predict"}
_SAMPLING: Final = frozenset({*_FLOATS, *_WHOLE, "stop"})

# What a look-alike must not be mistaken for, besides: load-time options (Runner in Ollama's api/types.go),
# and names that clients still send and no server reads.
_LOAD_TIME: Final = frozenset(
    {"num_batch", "num_gpu", "main_gpu", "num_thread", "use_mmap", "use_mlock", "numa", "low_vram", "f16_kv"}
    | {"vocab_only", "logits_all", "embedding_only", "draft_num_predict"}
)
_FORMER: Final = frozenset({"tfs_z", "mirostat", "mirostat_tau", "mirostat_eta", "penalize_newline"})
_KNOWN: Final = _SAMPLING | _LOAD_TIME | _FORMER


_BY_DEFAULT: Final = Sampling()


def read_options(body: Fields) -> tuple[Sampling, tuple[str, ...]]:
    """The sampling options of a body, and the names of those that were given and are dropped.

    A negative `num_predict` is Ollama's word for no bound of the caller's own: None.
    """
    if not body.has("options"):
        return _BY_DEFAULT, ()
    body.object("options")
    options = Fields(_whole(body.raw("options")), body.path("options"))
    options.refuse_look_alikes(_KNOWN)
    max_tokens = options.integer("num_predict")
    values: dict[str, Any] = {name: options.number(name) for name in _FLOATS}
    values |= {name: options.integer(name) for name in _INTEGERS}
    sampling = Sampling(
        max_tokens=None if max_tokens is None or max_tokens < 0 else max_tokens,
        num_ctx=options.integer("num_ctx", lowest=1),
        stop=options.strings("stop", at_most=MAX_STOPS),
        **values,
    )
    return sampling, _dropped(options)


def write_options(sampling: Sampling) -> JsonObject:
    """The options to send to a backend: only those that were given."""
    values = vars(sampling)
    options = {word: values[name] for name, word in _WRITTEN.items() if values[name] is not None}
    if sampling.stop:
        options["stop"] = list(sampling.stop)
    return options


def _whole(options: JsonObject) -> JsonObject:
    """Integers that were written as `42.0`, as languages without integers do, as integers."""
    return {
        name: int(value) if name in _WHOLE and type(value) is float and value.is_integer() else value
        for name, value in options.items()
    }


def _dropped(options: Fields) -> tuple[str, ...]:
    given = (name for name in options.names() if name not in _SAMPLING and options.has(name))
    return tuple(name for name in given if _TAME_NAME.fullmatch(name))[:_MAX_NAMED]
