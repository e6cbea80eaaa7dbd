"""gateway.formats.ndjson: lines in any cut, and JSON that every client splits alike."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import BackendFailed
from gateway.formats.ndjson import LineSplitter, ascii_json
from tests.formats.cuts import cut, places

READ = [
    pytest.param([b'{"a":1}\n'], [b'{"a":1}'], id="a line"),
    pytest.param([b'{"a":1}\n{"b":2}\n'], [b'{"a":1}', b'{"b":2}'], id="two lines at once"),
    pytest.param([b'{"a"', b":1}\n"], [b'{"a":1}'], id="a line in two pieces"),
    pytest.param([b"a\nb", b"c\nd\n"], [b"a", b"bc", b"d"], id="a cut between lines"),
    pytest.param([b"a\r\nb\r\n"], [b"a", b"b"], id="CRLF"),
    pytest.param([b"a\r", b"\nb\n"], [b"a", b"b"], id="a cut CRLF"),
    pytest.param([b"\n\r\n \na\n\n"], [b"a"], id="blank lines"),
    pytest.param([b"", b"a\n", b""], [b"a"], id="empty pieces"),
    pytest.param(
        ["a\u2028b\u0085c\n".encode()], ["a\u2028b\u0085c".encode()], id="separators that are no line ends"
    ),
]


@pytest.mark.parametrize(("pieces", "expected"), READ)
def test_lines_are_collected(pieces: list[bytes], expected: list[bytes]) -> None:
    """LF and CRLF end a line, and nothing else does; blank lines are left out."""
    lines = LineSplitter()

    assert [line for piece in pieces for line in lines.feed(piece)] == expected
    assert lines.end() == []


def test_the_last_line_may_lack_its_end() -> None:
    """A server that closes right behind the last byte has said it all."""
    lines = LineSplitter()

    assert lines.feed(b"a\nb") == [b"a"]
    assert lines.end() == [b"b"]
    assert lines.end() == []


@given(
    st.lists(st.sampled_from([b"a", b"bc", b"\n", b"\r\n", b" ", "é\u2028".encode()])).map(b"".join), places
)
def test_any_cut_gives_the_same_lines(data: bytes, places: list[int]) -> None:
    """A network cuts anywhere, also inside a letter or a CRLF."""
    whole, pieces = LineSplitter(), LineSplitter()

    expected = whole.feed(data) + whole.end()

    assert [line for piece in cut(data, places) for line in pieces.feed(piece)] + pieces.end() == expected


@pytest.mark.parametrize("size", [1, 3, 100])
def test_an_endless_line_is_a_failure(size: int) -> None:
    """Memory per stream is bounded, however the bytes come."""
    lines = LineSplitter(max_line_bytes=10)
    pieces = cut(b"12345678901\n", list(range(0, 12, size)))

    assert lines.feed(b"1234567890\n") == [b"1234567890"]
    with pytest.raises(BackendFailed):
        [lines.feed(piece) for piece in pieces]


letters = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)


@given(st.recursive(letters | st.integers(-(2**63), 2**63 - 1) | st.none(), st.lists, max_leaves=5))
def test_written_json_is_one_line_for_every_client(value: Any) -> None:
    """ollama-python splits like `str.splitlines`, which knows eleven line ends."""
    text = ascii_json(value).decode("ascii")

    assert text.splitlines() == [text]
    assert json.loads(text) == value


def test_written_json_is_compact() -> None:
    """Letters beyond ASCII change nothing but themselves."""
    assert ascii_json({"a": [1, "x"]}) == b'{"a":[1,"x"]}'
    assert ascii_json({"a": [1, "é\u2028😀"]}) == b'{"a":[1,"\\u00e9\\u2028\\ud83d\\ude00"]}'
