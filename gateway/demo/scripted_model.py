"""Writes tiny GGUF models whose weights recite a script, so that a real engine runs with nothing to download.

How it works: attention and feed-forward weights are zero, so what leaves the last layer is the embedding of
the current token. Tokens of the script each have a dimension of their own, all others share dimension 0,
and the output matrix says which token follows: an exact state machine. The chat template ends a message with
the token that picks the chain of words; the rest of the prompt is read, counted and ignored.

    python -m gateway.demo.scripted_model '{"name": "…", …}' PATH     (started by `engine.scripted`)
"""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import cattrs
import gguf
import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from gateway.demo import vocabulary as v
from gateway.demo.scripts import Script

Matrix = NDArray[np.float32]

_HEAD_WIDTH = 16
_FEED_FORWARD = 32
_WIDTH_STEP = 64

# The scripted word leads all others by this logit, so that no usual temperature ever picks another.
_LEAD = 100.0

# Where a grammar (JSON mode, a schema, the name of a tool) forbids the scripted word, the first of these that
# it allows comes next: the shortest way to a complete document. The quote leads, because inside a string
# all the others are allowed for ever; white space comes last for the same reason.
_CLOSING = (v.END, '"', "}", "]", v.TOOL_CLOSE, "{", ",", "0")
_BLANK = ("", "<0x20>", "<0x09>", "<0x0A>", "<0x0D>")
_STEP = 10.0

# Each message ends with the token that says what follows. It could not be part of the generation prompt: that
# has to be the same with and without tools, or the engine aborts when a tool is required.
_TEMPLATE = """\
{%- for tool in tools or [] %}{{ tool | tojson }}
{% endfor -%}
{%- for message in messages -%}
{{ '<|from|>' + message.role + '\n' }}
{%- if message.content is string %}{{ message.content }}{% endif -%}
{%- for call in message.tool_calls or [] -%}
{{ '<tool_call>' }}{{ call.function | tojson }}{{ '</tool_call>' }}
{%- endfor -%}
{%- if message.role == 'tool' %}<|reply|>{% elif message.role != 'user' %}<|done|>
{%- elif tools %}<|call|>{% else %}<|answer|>{% endif -%}
{%- endfor -%}
"""


@frozen
class _Machine:
    """The pieces, and which piece follows which."""

    pieces: tuple[v.Piece, ...]
    following: dict[int, int]
    otherwise: int
    """What follows a piece that is in no chain: the first word."""

    @property
    def dimension(self) -> dict[int, int]:
        """Of each piece in a chain: the one dimension of its embedding. Dimension 0 is for all others."""
        return {piece: index for index, piece in enumerate(self.following, start=1)}

    @property
    def width(self) -> int:
        """The embedding length: room for all dimensions, rounded up to what vector units like."""
        return -(-(1 + len(self.following)) // _WIDTH_STEP) * _WIDTH_STEP


def write(script: Script, path: Path) -> None:
    """Write the model of `script` to `path`, making its directory; a reader sees a whole file or none.

    Raises ValueError when the script uses a word twice, and OSError when the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        _write(script, _machine(script), unfinished)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _spoken(sentence: str) -> tuple[str, ...]:
    first, *rest = sentence.split()
    return (first, *(v.SPACE + word for word in rest))


def _chains(script: Script) -> Iterator[tuple[str, ...]]:
    """Each sequence of pieces that the model follows, from the piece that starts it."""
    answer = _spoken(script.answer)
    again = (v.SPACE + answer[0], *answer[1:2]) if script.endless else (v.END,)
    yield (v.ANSWER, *answer, *again)
    if script.tool_call:
        call = (piece.replace(" ", v.SPACE) for piece in script.tool_call)
        yield (v.CALL, v.TOOL_OPEN, *call, v.TOOL_CLOSE, v.END)
    if script.tool_answer:
        yield (v.REPLY, *_spoken(script.tool_answer), v.END)


def _machine(script: Script) -> _Machine:
    chains = tuple(_chains(script))
    pieces = v.vocabulary(text for chain in chains for text in chain)
    ids = {piece.text: index for index, piece in enumerate(pieces)}
    following: dict[int, int] = {}
    for before, after in (pair for chain in chains for pair in pairwise(chain)):
        if following.setdefault(ids[before], ids[after]) != ids[after]:
            raise ValueError(f"A script may use a word only once; {script.name!r} repeats {before!r}.")
    return _Machine(pieces, following, otherwise=following[ids[v.ANSWER]])


def _fallback(pieces: Sequence[v.Piece]) -> Matrix:
    """The logit of each piece where the scripted one is forbidden: one step lower for each rank."""

    def rank(index: int) -> tuple[int, bool]:
        text = pieces[index].text
        closing = _CLOSING.index(text) if text in _CLOSING else len(_CLOSING)
        return closing, text.strip(v.SPACE) in _BLANK

    logits = np.empty(len(pieces), np.float32)
    logits[sorted(range(len(pieces)), key=rank)] = -_STEP * np.arange(len(pieces))
    return logits


def _output(machine: _Machine) -> Matrix:
    """The output matrix, rows by piece and columns by dimension, made for RMS-normed one-hot input."""
    logits = np.tile(_fallback(machine.pieces)[:, None], (1, machine.width))
    logits[machine.otherwise, 0] = _LEAD
    for piece, column in machine.dimension.items():
        logits[machine.following[piece], column] = _LEAD
    return logits / np.float32(np.sqrt(machine.width))


def _embedding(machine: _Machine) -> Matrix:
    """The one-hot embeddings, rows by piece."""
    rows = np.zeros((len(machine.pieces), machine.width), np.float32)
    rows[:, 0] = 1.0
    for piece, column in machine.dimension.items():
        rows[piece, (0, column)] = 0.0, 1.0
    return rows


def _similarity(machine: _Machine) -> Matrix:
    """An embedding for vectors: each piece points its own way, so that texts with common words are near."""
    shape = (len(machine.pieces), machine.width)
    return np.random.default_rng(seed=0).normal(size=shape).astype(np.float32)


def _write(script: Script, machine: _Machine, path: Path) -> None:
    writer = gguf.GGUFWriter(str(path), "llama")
    _describe(writer, script, machine)
    _add_tokenizer(writer, machine.pieces)
    embedding = _similarity(machine) if script.embedding else _embedding(machine)
    writer.add_tensor("token_embd.weight", embedding)
    writer.add_tensor("output_norm.weight", np.ones(machine.width, np.float32))
    writer.add_tensor("output.weight", _output(machine))
    for layer in range(script.layers):
        _add_idle_layer(writer, layer, machine.width)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _describe(writer: gguf.GGUFWriter, script: Script, machine: _Machine) -> None:
    writer.add_name(script.name)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_context_length(script.context)
    writer.add_embedding_length(machine.width)
    writer.add_block_count(script.layers)
    writer.add_feed_forward_length(_FEED_FORWARD)
    writer.add_head_count(1)
    writer.add_key_length(_HEAD_WIDTH)
    writer.add_value_length(_HEAD_WIDTH)
    writer.add_rope_dimension_count(_HEAD_WIDTH)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(machine.pieces))
    if script.embedding:
        writer.add_pooling_type(gguf.PoolingType.MEAN)


def _add_tokenizer(writer: gguf.GGUFWriter, pieces: Sequence[v.Piece]) -> None:
    texts = [piece.text for piece in pieces]
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(texts)
    writer.add_token_scores([piece.score for piece in pieces])
    writer.add_token_types([int(piece.kind) for piece in pieces])
    writer.add_unk_token_id(texts.index(v.UNKNOWN))
    writer.add_bos_token_id(texts.index(v.BEGIN))
    writer.add_eos_token_id(texts.index(v.END))
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(_TEMPLATE)


def _add_idle_layer(writer: gguf.GGUFWriter, layer: int, width: int) -> None:
    """A layer of zeros: the residual stream passes it unchanged."""
    shapes = {
        "attn_q": (_HEAD_WIDTH, width),
        "attn_k": (_HEAD_WIDTH, width),
        "attn_v": (_HEAD_WIDTH, width),
        "attn_output": (width, _HEAD_WIDTH),
        "ffn_gate": (_FEED_FORWARD, width),
        "ffn_up": (_FEED_FORWARD, width),
        "ffn_down": (width, _FEED_FORWARD),
    }
    for norm in ("attn_norm", "ffn_norm"):
        writer.add_tensor(f"blk.{layer}.{norm}.weight", np.ones(width, np.float32))
    for name, shape in shapes.items():
        writer.add_tensor(f"blk.{layer}.{name}.weight", np.zeros(shape, np.float32))


if __name__ == "__main__":
    write(cattrs.structure(json.loads(sys.argv[1]), Script), Path(sys.argv[2]))
