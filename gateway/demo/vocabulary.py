"""The tokenizer of the scripted models: SentencePiece pieces with their kinds and scores."""

from collections.abc import Iterable, Iterator
from enum import IntEnum

from attrs import frozen

SPACE = "\u2581"
"""SentencePiece writes a space as LOWER ONE EIGHTH BLOCK."""

UNKNOWN, BEGIN, END = "<unk>", "<s>", "</s>"
MESSAGE, MESSAGE_END = "<|from|>", "<|done|>"
ANSWER, CALL, REPLY = "<|answer|>", "<|call|>", "<|reply|>"
"""The last token of a prompt says what follows: the answer, a tool call, a reply to a tool's result."""
TOOL_OPEN, TOOL_CLOSE = "<tool_call>", "</tool_call>"

# Frequent English words; with their beginnings as pieces of their own they bring a prompt to roughly
# three bytes per token, near enough to a real model that token counts look like token counts.
_COMMON = """
the and that with this from have what when where which there their about would could should some into
your you please tell write explain how many much make list words word name answer question weather city
model code python function file text data system user hello world good thanks number first second other
are was were not but can will one two three for all any our out has had more than then them these
"""
_COMMON_ENDINGS = "ing tion er ed ly es al en re in on an or st nd th ea ou it is at as to of"


class Kind(IntEnum):
    """`llama_token_type` of llama.cpp."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    BYTE = 6


@frozen
class Piece:
    """One token of the vocabulary, as the GGUF file lists it."""

    text: str
    kind: Kind
    score: float = 0.0
    """Among the pieces that could be merged next, the tokenizer takes the highest score."""


def vocabulary(words: Iterable[str]) -> tuple[Piece, ...]:
    """All pieces, each text once, in the order of their ids; `words` are the script's own."""
    basic = (*_control(), *_bytes(), *_characters())
    known = {piece.text for piece in basic}
    more = dict.fromkeys(text for text in (*_common(), *words) if text not in known)
    return (*basic, *(Piece(text, Kind.NORMAL, score=float(len(text))) for text in more))


def _control() -> Iterator[Piece]:
    yield Piece(UNKNOWN, Kind.UNKNOWN)
    for text in (BEGIN, END, MESSAGE, MESSAGE_END, ANSWER, CALL, REPLY):
        yield Piece(text, Kind.CONTROL)


def _bytes() -> Iterator[Piece]:
    """What no piece covers is spelled in bytes, so every text can be tokenized."""
    for byte in range(256):
        yield Piece(f"<0x{byte:02X}>", Kind.BYTE)


def _characters() -> Iterator[Piece]:
    for character in (SPACE, *map(chr, range(33, 127))):
        yield Piece(character, Kind.NORMAL)


def _common() -> Iterator[str]:
    """Each frequent word and its beginnings: the tokenizer merges from the left, two pieces at a time."""
    for word in _COMMON.split():
        for spelled in (SPACE + word, word):
            yield from (spelled[:end] for end in range(2, len(spelled) + 1))
    yield from _COMMON_ENDINGS.split()
