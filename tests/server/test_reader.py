"""Requests out of bytes, in any cut."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.server.asgi import Headers
from gateway.server.head import Malformed
from gateway.server.reader import RequestReader

STARTS = [b"", b"GET / HTTP/1.1\r\nHost: a\r\n", b"POST / HTTP/1.1\r\nHost: a\r\n", b"POST / HTTP/1.0\r\n"]
FIELDS = [
    *(b"Host: a\r\n", b"X : y\r\n", b" folded\r\n", b"Connection: close\r\n", b"X: y\nZ: z\r\n", b"X: y\r"),
    *(b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Content-Length: 4, 4\r\n"),
    *(b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip, chunked\r\n"),
    b"Connection: upgrade\r\nUpgrade: h2c\r\n",
]
BODIES = [
    b"hello",
    b"5\r\nhello\r\n",
    b"5;a=b\r\nhello\r\n",
    b"0\r\n\r\n",
    b"0\r\nX: y\r\n\r\n",
    b"\r\n",
    b"\n",
    b"\0",
]
PARTS = [
    *STARTS,
    *BODIES,
    b"CONNECT ",
    b"get ",
    b"PRI * HTTP/2.0\r\n\r\n",
    b"GET  / HTTP/1.1\r\n",
    b"\r\n\r\n",
]
messages = st.builds(
    lambda start, fields, parts: start + b"".join(fields) + b"\r\n" + b"".join(parts),
    st.sampled_from(STARTS),
    st.lists(st.sampled_from(FIELDS), max_size=3),
    st.lists(st.sampled_from(PARTS), max_size=4),
)


class Recorder:
    """Notes what a reader tells."""

    def __init__(self) -> None:
        self.heads: list[tuple[str, bytes, Headers]] = []
        self.body = b""
        self.ended = False

    def head_arrived(self, head):
        self.heads.append((head.method, head.target, head.headers))

    def body_arrived(self, piece):
        self.body += piece

    def body_ended(self):
        self.ended = True


def read(data: bytes, cuts: list[int]):
    """What comes of one request in pieces cut there: what was told, and whether it was refused."""
    recorder = Recorder()
    reader = RequestReader(recorder)
    refused = False
    for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        if start < end and not refused:
            refused = isinstance(reader.feed(data[start:end]), Malformed)
    return recorder.heads, recorder.body, recorder.ended, refused


@settings(max_examples=400, deadline=None)
@given(messages, st.data())
def test_the_cut_does_not_matter(message, data):
    """Two parsers on the way see different packets; here the same bytes are the same request.

    And whatever comes: nothing is raised, and no second request is told before the first is answered.
    """
    cuts = sorted(data.draw(st.lists(st.integers(0, len(message)), max_size=5)))

    whole = read(message, [])

    assert read(message, cuts) == whole
    assert read(message, list(range(1, len(message)))) == whole
    assert len(whole[0]) <= 1


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 60))
def test_noise_is_refused_and_raises_nothing(noise, at):
    request = b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"

    heads, _, _, _ = read(request[:at] + noise + request[at:], [])

    assert len(heads) <= 1


def test_requests_come_one_after_the_other():
    recorder = Recorder()
    reader = RequestReader(recorder)
    for n in range(3):
        assert reader.feed(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % n) is None
        reader.next_request()

    assert [target for _, target, _ in recorder.heads] == [b"/0", b"/1", b"/2"]
    assert not reader.surplus


def test_what_follows_an_unanswered_request_is_surplus():
    recorder = Recorder()
    reader = RequestReader(recorder)

    reader.feed(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n")

    assert reader.surplus
    assert len(recorder.heads) == 1
