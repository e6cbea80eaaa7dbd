"""Chunks of a stream that differ in their text alone, as nearly all do: read without reading all of them."""

from collections.abc import Callable
from typing import Final

import orjson

from gateway.model import JsonObject

# Where so many chunks in a row were unlike each other, the next ones most likely are, too.
_MAX_UNLIKE: Final = 16


# Gives the text of a chunk that brings nothing else, and "" of any other one.
PlainText = Callable[[JsonObject], str]


class Alike:
    """The text of chunks that are, byte by byte, like one before but for their text.

    What stands around the text of one is kept. Whatever has the same around another string of JSON says the
    same with another text, and that is read for a third of the cost.
    """

    def __init__(self) -> None:
        self._around: tuple[bytes, bytes, slice] | None = None
        """What is before and behind the text, and where that is between them."""
        self._unlike = 0
        """So many in a row were unlike what is kept."""

    def text_in(self, payload: bytes) -> str:
        """The text of a chunk that is like the one that was kept; "" of any other one."""
        if self._around is None:
            return ""
        before, behind, between = self._around
        if not payload.startswith(before) or not payload.endswith(behind):
            return ""
        try:
            text = orjson.loads(payload[between])
        except orjson.JSONDecodeError:
            return ""
        self._unlike = 0
        return text if type(text) is str else ""

    def learn(self, payload: bytes, chunk: JsonObject, plain_text: PlainText) -> None:
        """Keep what is around the text of this chunk, if it is a plain one.

        Not of the first one, which often has the role as well. Where all differ there is nothing to learn.
        """
        self._unlike += 1
        if not 1 < self._unlike <= _MAX_UNLIKE or not (text := plain_text(chunk)):
            return
        before, found, behind = payload.partition(orjson.dumps(text))
        if found and _is_text_between(before, behind, text + ".", plain_text):
            self._around = before, behind, slice(len(before), -len(behind))


def _is_text_between(before: bytes, behind: bytes, text: str, plain_text: PlainText) -> bool:
    """Whether another text in this place is the text of the chunk, so that the place is no other's."""
    try:
        return plain_text(orjson.loads(before + orjson.dumps(text) + behind)) == text
    except orjson.JSONDecodeError:
        return False
