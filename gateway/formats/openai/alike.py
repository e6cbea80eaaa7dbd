"""Chunks of a stream that differ in one text alone, as nearly all do: read without reading all of them."""

from collections.abc import Callable, Iterable
from typing import Final

import orjson
from attrs import frozen

from gateway.formats.chat import Delta
from gateway.model import JsonObject

# Where so many chunks in a row were unlike each other, the next ones most likely are, too.
_MAX_UNLIKE: Final = 16


@frozen
class Kind:
    """Chunks that bring one text and nothing else. `text_of` is "" for any other chunk."""

    text_of: Callable[[JsonObject], str]
    delta_of: Callable[[str], Delta]


class Alike:
    """What chunks say that are, byte by byte, like one before but for their text.

    What stands around the text of one is kept. Whatever has the same around another string of JSON says the
    same with another text, and that is read for a third of the cost.
    """

    def __init__(self) -> None:
        self._around: tuple[bytes, bytes, slice, Callable[[str], Delta]] | None = None
        """What is before and behind the text, where that is between them, and what it says."""
        self._unlike = 0
        """So many in a row were unlike what is kept."""

    def delta_in(self, payload: bytes) -> Delta | None:
        """What a chunk says that is like the one that was kept; None of any other, and of an empty text."""
        if self._around is None:
            return None
        before, behind, between, delta_of = self._around
        if not payload.startswith(before) or not payload.endswith(behind):
            return None
        try:
            text = orjson.loads(payload[between])
        except orjson.JSONDecodeError:
            return None
        self._unlike = 0
        return delta_of(text) if text and type(text) is str else None

    def learn(self, payload: bytes, chunk: JsonObject, kinds: Iterable[Kind]) -> None:
        """Keep what is around the text of this chunk, if it is one of these kinds.

        Not of the first one, which often has the role as well. Where all differ there is nothing to learn.
        """
        self._unlike += 1
        if not 1 < self._unlike <= _MAX_UNLIKE:
            return
        for kind in kinds:
            if text := kind.text_of(chunk):
                before, found, behind = payload.partition(orjson.dumps(text))
                if found and _is_text_between(before, behind, text + ".", kind):
                    self._around = before, behind, slice(len(before), -len(behind)), kind.delta_of


def _is_text_between(before: bytes, behind: bytes, text: str, kind: Kind) -> bool:
    """Whether another text in this place is the text of the chunk, so that the place is no other's."""
    try:
        return kind.text_of(orjson.loads(before + orjson.dumps(text) + behind)) == text
    except orjson.JSONDecodeError:
        return False
