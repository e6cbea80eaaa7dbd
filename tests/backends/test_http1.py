"""A connection to a backend that says anything: what is an answer in any cut, and what never becomes one."""

import socket
from typing import Any

import pytest
from attrs import define, field, frozen

from gateway.backends.http1 import Broken, Connection

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


@define
class Transport:
    """What a connection does to its transport."""

    socket: socket.socket
    written: bytearray = field(factory=bytearray)
    unsent: int = 0
    is_reading: bool = True
    is_aborted: bool = False

    def get_extra_info(self, _name: str) -> Any:
        return self.socket

    def write(self, data: bytes) -> None:
        self.written += data

    def writelines(self, pieces: tuple[bytes, ...]) -> None:
        self.written += b"".join(pieces)

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True

    def is_closing(self) -> bool:
        return self.is_aborted

    def abort(self) -> None:
        self.is_aborted = True


@frozen
class Ends:
    connection: Connection
    transport: Transport
    far: socket.socket

    def heard(self, data: bytes, size: int | None = None) -> None:
        """It comes in pieces of this size."""
        size = size or max(1, len(data))
        for first in range(0, len(data), size):
            if not self.transport.is_aborted:
                self.connection.data_received(data[first : first + size])

    @property
    def outcome(self) -> tuple[int, bytes, bool, bool] | str:
        """Status, body, whether it has ended, whether the connection can be used again; or that it broke."""
        if self.connection.error is not None and not self.connection.is_complete:
            return "broken"
        if not self.connection.has_head:
            return "no head"
        connection = self.connection
        return connection.status, connection.take(), connection.is_complete, connection.is_reusable


@pytest.fixture
async def asked() -> Any:
    """A connection on which something was asked."""
    near, far = socket.socketpair()
    connection, transport = Connection(), Transport(near)
    connection.connection_made(transport)  # type: ignore[arg-type]
    connection.ask(b"POST / HTTP/1.1\r\n\r\n", b"{}")
    yield Ends(connection, transport, far)
    near.close()
    far.close()


ANSWERS: dict[str, tuple[bytes, tuple[int, bytes, bool, bool]]] = {
    "a length": (OK + b"Content-Length: 2\r\n\r\n{}", (200, b"{}", True, True)),
    "no body": (b"HTTP/1.1 204 No Content\r\n\r\n", (204, b"", True, True)),
    "an empty body": (b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n", (500, b"", True, True)),
    "no reason": (b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\n{}", (200, b"{}", True, True)),
    "chunks": (CHUNKED + b"2\r\n{}\r\n3\r\nabc\r\n0\r\n\r\n", (200, b"{}abc", True, True)),
    "chunks with extensions": (CHUNKED + b'2;a=1;b="2"\r\n{}\r\n0\r\n\r\n', (200, b"{}", True, True)),
    "trailers": (
        CHUNKED + b"2\r\n{}\r\n0\r\nContent-Encoding: gzip\r\nX-Sum: 9\r\n\r\n",
        (200, b"{}", True, True),
    ),
    "interim answers first": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
        + OK
        + b"Content-Length: 2\r\n\r\n{}",
        (200, b"{}", True, True),
    ),
    "a connection that closes": (
        OK + b"Connection: close\r\nContent-Length: 2\r\n\r\n{}",
        (200, b"{}", True, False),
    ),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}", (200, b"{}", True, False)),
    "HTTP/1.0 that is kept": (
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\n{}",
        (200, b"{}", True, True),
    ),
    "an end that is the connection's": (OK + b"\r\nabc", (200, b"abc", False, False)),
    "an end that did not come": (OK + b"Content-Length: 3\r\n\r\nab", (200, b"ab", False, False)),
    "a chunk that did not end": (CHUNKED + b"5\r\nab", (200, b"ab", False, False)),
    "no last chunk": (CHUNKED + b"2\r\nab\r\n", (200, b"ab", False, False)),
}


@pytest.mark.parametrize(("said", "outcome"), ANSWERS.values(), ids=ANSWERS)
async def test_an_answer_is_the_same_in_any_cut(asked: Ends, said: bytes, outcome: object):
    """In one piece here; byte by byte below."""
    asked.heard(said)
    assert asked.outcome == outcome


@pytest.mark.parametrize(("said", "outcome"), ANSWERS.values(), ids=ANSWERS)
@pytest.mark.parametrize("size", [1, 2, 3, 7])
async def test_an_answer_is_the_same_in_pieces(asked: Ends, said: bytes, outcome: object, size: int):
    asked.heard(said, size)
    assert asked.outcome == outcome


async def test_an_answer_is_the_same_cut_in_two_anywhere():
    """Each kind of answer, at each byte."""
    for said, outcome in ANSWERS.values():
        for cut in range(1, len(said)):
            near, far = socket.socketpair()
            with near, far:
                connection, transport = Connection(), Transport(near)
                connection.connection_made(transport)  # type: ignore[arg-type]
                ends = Ends(connection, transport, far)
                connection.ask(b"", b"")
                ends.heard(said[:cut])
                ends.heard(said[cut:])
                assert ends.outcome == outcome, (said, cut)


BROKEN: dict[str, bytes] = {
    "a length and chunks": OK
    + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "chunks and a length": OK
    + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "two lengths": OK + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    "a list of lengths": OK + b"Content-Length: 2, 2\r\n\r\n{}",
    "a signed length": OK + b"Content-Length: +2\r\n\r\n{}",
    "a length beyond all numbers": OK + b"Content-Length: 99999999999999999999\r\n\r\n{}",
    "two encodings": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "chunks twice": OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "an encoding nobody knows": OK + b"Transfer-Encoding: xchunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "chunks of HTTP/1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "a chunk that is no number": CHUNKED + b"zz\r\n{}\r\n",
    "a chunk of a negative size": CHUNKED + b"-2\r\n{}\r\n",
    "a chunk beyond all numbers": CHUNKED + b"ffffffffffffffffffff\r\n{}\r\n",
    "a chunk longer than it says": CHUNKED + b"2\r\n{}}\r\n0\r\n\r\n",
    "a chunk behind a bare line feed": CHUNKED + b"2\n{}\r\n0\r\n\r\n",
    "a space before the colon": OK + b"Content-Length : 2\r\n\r\n{}",
    "a folded header": OK + b"A: b\r\n c\r\nContent-Length: 2\r\n\r\n{}",
    "a bare carriage return": OK + b"A: b\rc\r\nContent-Length: 2\r\n\r\n{}",
    "a zero byte": OK + b"A: b\x00\r\nContent-Length: 2\r\n\r\n{}",
    "bare line feeds": b"HTTP/1.1 200 OK\nContent-Length: 2\n\n{}",
    "another protocol": b"SSH-2.0-OpenSSH\r\n\r\n",
    "HTTP/2": b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    "HTTP/0.9": b"<html>hello</html>",
    "another protocol from now on": b"HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nabc",
    "a hundred interim answers": b"HTTP/1.1 100 Continue\r\n\r\n" * 100,
    "a thousand headers": OK + b"A: b\r\n" * 1_000 + b"\r\n",
    "a header without an end": OK + b"A: " + b"b" * 200_000,
    "a name without an end": OK + b"A" * 200_000,
    "a large header": OK + b"A: " + b"b" * 9_000 + b"\r\nContent-Length: 0\r\n\r\n",
    "many large headers": OK + (b"A: " + b"b" * 8_000 + b"\r\n") * 20 + b"\r\n",
    "a reason without an end": b"HTTP/1.1 200 " + b"O" * 200_000,
    "an extension without an end": CHUNKED + b"2;" + b"a" * 200_000,
    "a length behind chunks": CHUNKED + b"0\r\nContent-Length: 2\r\n\r\n",
    "a thousand trailers": CHUNKED + b"0\r\n" + b"A: b\r\n" * 1_000,
    "a trailer without an end": CHUNKED + b"0\r\nA: " + b"b" * 200_000,
}


@pytest.mark.parametrize("size", [64_000, 1_000])
@pytest.mark.parametrize("said", BROKEN.values(), ids=BROKEN)
async def test_what_is_no_answer_breaks_the_connection(asked: Ends, said: bytes, size: int):
    """Whatever it may have been meant to be: two readers could read it in two ways, or it has no end."""
    asked.heard(said, size)

    assert asked.outcome == "broken"
    assert asked.transport.is_aborted
    with pytest.raises(Broken):
        await asked.connection.more()


async def test_nothing_is_held_of_what_has_no_end(asked: Ends):
    """It is told from a long answer by what it brings."""
    asked.heard(CHUNKED + b"1;" + b"a" * 30_000 + b"\r\nx\r\n" + b"1;" + b"a" * 60_000 + b"\r\ny\r\n", 1_000)
    assert asked.outcome == (200, b"xy", False, False)


BEHIND: dict[str, bytes] = {
    "another answer": OK + b"Content-Length: 7\r\n\r\nFOREIGN",
    "half of one": b"HTTP/1.1 20",
    "garbage": b"\x00\x01garbage",
}


@pytest.mark.parametrize("behind", BEHIND.values(), ids=BEHIND)
@pytest.mark.parametrize("said", [OK + b"Content-Length: 2\r\n\r\n{}", CHUNKED + b"2\r\n{}\r\n0\r\n\r\n"])
async def test_what_comes_behind_an_answer_is_nobody_s(asked: Ends, said: bytes, behind: bytes):
    """The answer is whole, and the connection is never used again: together with its end, or later."""
    asked.heard(said + behind)
    assert asked.outcome == (200, b"{}", True, False)


async def test_what_comes_on_an_idle_connection_ends_it(asked: Ends):
    asked.heard(OK + b"Content-Length: 2\r\n\r\n{}")
    assert asked.outcome == (200, b"{}", True, True)

    asked.heard(b"x")

    assert asked.transport.is_aborted
    assert not asked.connection.is_reusable
    assert not asked.connection.is_fresh


async def test_what_is_not_read_yet_is_seen(asked: Ends):
    """It lies in the socket, and the event loop had no turn: asking now would take it for the answer."""
    asked.heard(OK + b"Content-Length: 2\r\n\r\n{}")
    was_fresh = asked.connection.is_fresh

    asked.far.send(b"x")

    assert (was_fresh, asked.connection.is_fresh) == (True, False)


async def test_an_end_that_is_not_read_yet_is_seen(asked: Ends):
    asked.heard(OK + b"Content-Length: 2\r\n\r\n{}")

    asked.far.close()

    assert not asked.connection.is_fresh


async def test_the_next_answer_begins_anew(asked: Ends):
    """Nothing of the one before is left."""
    asked.heard(b"HTTP/1.1 500 Oh\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nold")
    assert asked.connection.is_encoded

    asked.connection.ask(b"POST /next HTTP/1.1\r\n\r\n", b"")

    assert (asked.connection.has_head, asked.connection.is_encoded, asked.connection.take()) == (
        False,
        False,
        b"",
    )
    asked.heard(CHUNKED + b"3\r\nnew\r\n0\r\n\r\n")
    assert asked.outcome == (200, b"new", True, True)


@pytest.mark.parametrize("coding", [b"gzip", b"br", b"identity, gzip", b"identity\r\nContent-Encoding: gzip"])
async def test_a_body_that_is_compressed_is_said_to_be(asked: Ends, coding: bytes):
    asked.heard(OK + b"Content-Encoding: " + coding + b"\r\nContent-Length: 2\r\n\r\n{}")
    assert asked.connection.is_encoded


@pytest.mark.parametrize("head", [b"", b"Content-Encoding: identity\r\n"])
async def test_a_body_that_is_not_compressed_is_not(asked: Ends, head: bytes):
    asked.heard(OK + head + b"Content-Length: 2\r\n\r\n{}")
    assert not asked.connection.is_encoded


# ── ends of the connection ───────────────────────────────────────────────────────────────


@pytest.fixture(params=["FIN", "RST"])
def ends_by(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def end(ends: Ends, by: str) -> None:
    if by == "FIN":
        ends.connection.eof_received()
        ends.connection.connection_lost(None)
    else:
        ends.connection.connection_lost(ConnectionResetError())


CUT: dict[str, bytes] = {
    "before all": b"",
    "in the head": OK,
    "behind an interim answer": b"HTTP/1.1 100 Continue\r\n\r\n",
    "before its length": OK + b"Content-Length: 3\r\n\r\nab",
    "in a chunk": CHUNKED + b"5\r\nab",
    "before the last chunk": CHUNKED + b"2\r\nab\r\n",
    "in the last chunk": CHUNKED + b"2\r\nab\r\n0\r\n",
}


@pytest.mark.parametrize("said", CUT.values(), ids=CUT)
async def test_an_answer_that_is_cut_is_broken(asked: Ends, said: bytes, ends_by: str):
    asked.heard(said)
    end(asked, ends_by)
    assert asked.outcome == "broken"


async def test_what_came_before_a_break_is_there_in_its_order(asked: Ends):
    """All in one read: two chunks, and then what is none."""
    asked.heard(CHUNKED + b"2\r\nab\r\n2\r\ncd\r\nno size")

    assert asked.connection.take() == b"abcd"
    assert asked.connection.take() == b""
    with pytest.raises(Broken):
        await asked.connection.more()


async def test_an_answer_without_a_length_ends_with_its_connection(asked: Ends, ends_by: str):
    """By a close; a reset ends nothing well."""
    asked.heard(OK + b"\r\nabc")
    end(asked, ends_by)
    assert asked.outcome == ((200, b"abc", True, False) if ends_by == "FIN" else "broken")


async def test_an_answer_that_had_ended_stays_whole(asked: Ends, ends_by: str):
    asked.heard(OK + b"Content-Length: 2\r\n\r\n{}")
    end(asked, ends_by)
    assert asked.outcome == (200, b"{}", True, False)


async def test_whoever_waits_is_woken_by_the_end(asked: Ends, ends_by: str):
    waiting = asked.connection.more()
    end(asked, ends_by)
    await waiting
    with pytest.raises(Broken):
        await asked.connection.more()


async def test_a_request_that_is_not_sent_yet_keeps_its_connection_from_the_next(asked: Ends):
    """A backend that answers early may never read the rest."""
    asked.transport.unsent = 1
    asked.heard(OK + b"Content-Length: 2\r\n\r\n{}")
    assert asked.outcome == (200, b"{}", True, False)


# ── back-pressure ────────────────────────────────────────────────────────────────────────


async def test_a_reader_that_does_not_take_stops_the_reading(asked: Ends):
    asked.heard(OK + b"Content-Length: 1000000\r\n\r\n" + bytes(70_000))
    assert not asked.transport.is_reading

    assert len(asked.connection.take()) == 70_000
    assert asked.transport.is_reading


async def test_chunks_of_one_byte_hold_no_more_than_they_are(asked: Ends):
    """Each as an object of its own would take forty times the memory."""
    asked.heard(CHUNKED + b"1\r\nx\r\n" * 10_000)

    assert len(asked.connection._pieces) == 1
    assert asked.connection.take() == b"x" * 10_000


async def test_a_large_body_is_not_copied_behind_its_head(asked: Ends):
    """It goes out all the same."""
    asked.connection.ask(b"head", bytes(100_000))
    assert asked.transport.written.endswith(b"head" + bytes(100_000))


async def test_what_was_never_connected_is_not_asked():
    with pytest.raises(Broken):
        Connection().ask(b"", b"")
