"""gateway.formats.sse: bytes in any cut → the data of events, and back."""

import collections

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.errors import BackendFailed
from gateway.formats import sse
from gateway.formats.sse import EventSplitter, frame
from tests.formats.cuts import cut, places


def payloads_of(*pieces: bytes) -> list[bytes]:
    """What a splitter gives for these pieces, its end included."""
    splitter = EventSplitter()
    return [payload for piece in pieces for payload in splitter.feed(piece)] + splitter.end()


@pytest.mark.parametrize(
    ("stream", "payloads"),
    [
        pytest.param(b'data: {"a":1}\n\ndata: [DONE]\n\n', [b'{"a":1}', b"[DONE]"], id="two events"),
        pytest.param(
            b"data:1\n\ndata: 2\n\ndata:  3\n\n",
            [b"1", b"2", b" 3"],
            id="one space after the colon is left out",
        ),
        pytest.param(b"data: 1\r\n\r\ndata: 2\r\n\r\n", [b"1", b"2"], id="CRLF"),
        pytest.param(b"data: 1\r\rdata: 2\r\r", [b"1", b"2"], id="CR"),
        pytest.param(b"data: 1\r\n\ndata: 2\n\r\n", [b"1", b"2"], id="line ends mixed"),
        pytest.param(b"data: a\ndata: b\n\n", [b"a\nb"], id="lines of one event are joined"),
        pytest.param(b": ping\n\n:\n\ndata: 1\n: ping\n\n", [b"1"], id="comments"),
        pytest.param(b"event: x\nid: 7\nretry: 1\ndata: 1\n\n", [b"1"], id="other fields"),
        pytest.param(b"event: ping\n\ndata:\n\ndata: \n\n", [], id="events without data"),
        pytest.param(b"\n\n\ndata: 1\n\n\n\n", [b"1"], id="blank lines"),
        pytest.param(b"database: 1\n\ndata: 2\n\n", [b"2"], id="a name that only begins with data"),
        pytest.param(
            "data: \u2028\x0b\x0c\u0085\n\n".encode(),
            ["\u2028\x0b\x0c\u0085".encode()],
            id="no other line ends",
        ),
        pytest.param(b"data: 1\n\ndata: [DONE]\n", [b"1", b"[DONE]"], id="no blank line at the end"),
        pytest.param(b"data: 1\n\ndata: [DONE]", [b"1", b"[DONE]"], id="no line end at the end"),
        pytest.param(b"", [], id="nothing"),
    ],
)
def test_the_data_of_events_is_collected(stream: bytes, payloads: list[bytes]) -> None:
    """As the HTML standard has it, save that an event which lacks its blank line at the end counts."""
    assert payloads_of(stream) == payloads


def test_an_event_is_given_with_the_byte_that_ends_it() -> None:
    """The first byte must reach the client at once, so a CR does not wait for the LF that may follow."""
    splitter = EventSplitter()

    assert splitter.feed(b"data: 1\n") == []
    assert splitter.feed(b"\n") == [b"1"]
    assert splitter.feed(b"data: 2\r\n\r") == [b"2"]
    assert splitter.feed(b"\ndata: 3\r\r") == [b"3"]


@given(
    stream=st.lists(
        st.sampled_from(
            [b"data:", b"data: ", b": ", b"event: x", b"\n", b"\r", b"\r\n", b"\n\n", b"{}", b"x"]
        )
    ).map(b"".join),
    places=places,
)
@example(stream=b"data: 1\r\n\r\n", places=[8, 10])
@example(stream=b"data: 1\n\ndata: 2\n\n", places=[9])
@example(stream=b"data: 1\n\ndata: 2\n\n", places=[12])
@example(stream=b"data: 1\n\ndata: 2\ndata: 3\n\n", places=[5])
def test_any_cut_gives_the_same_payloads(stream: bytes, places: list[int]) -> None:
    """TCP cuts where it likes, also between CR and LF."""
    assert payloads_of(*cut(stream, places)) == payloads_of(stream)


@given(payload=st.binary(min_size=1).filter(lambda data: b"\r" not in data and data.strip(b"\n") != b""))
def test_what_is_framed_is_read_back(payload: bytes) -> None:
    """`frame` and `EventSplitter` are each other's inverse; a CR never stands in JSON."""
    assert payloads_of(frame(payload)) == [payload]


def test_heartbeat_is_a_comment() -> None:
    """openai-python and openai-node raise at events without data, and skip comments."""
    assert sse.COMMENT.startswith(b": ")
    assert sse.COMMENT.endswith(b"\n\n")
    assert payloads_of(sse.COMMENT, sse.DONE) == [sse.DONE_DATA]


@pytest.mark.parametrize(
    "stream",
    [
        pytest.param(b"data: " + b"x" * 100, id="a line that does not end"),
        pytest.param(b"data: " + b"x" * 100 + b"\n\n", id="a whole event"),
        pytest.param(b"data: 12345\n" * 10, id="many lines"),
        pytest.param(b": " + b"x" * 100 + b"\n", id="a comment"),
    ],
)
@pytest.mark.parametrize("step", [1, 7, 1000])
def test_an_event_that_is_too_large_is_refused(stream: bytes, step: int) -> None:
    """A backend gone mad can't make us keep what it sends, whichever way it is cut."""
    splitter = EventSplitter(max_event_bytes=64)

    with pytest.raises(BackendFailed):
        collections.deque(
            splitter.feed(stream[start : start + step]) for start in range(0, len(stream), step)
        )


def test_small_events_without_end_are_no_large_event() -> None:
    """The bound is for one event; a stream may be as long as it likes."""
    splitter = EventSplitter(max_event_bytes=64)

    assert sum(len(splitter.feed(b": ping\ndata: 12345\n\n")) for _ in range(100)) == 100
